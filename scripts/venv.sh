#!/usr/bin/env bash
# Make an empty virtual environment: scripts/venv.sh PYTHON DIRECTORY. Debian ships venv apart from Python itself.
set -euo pipefail
python=$1 directory=$2

command -v "$python" >/dev/null || { echo "make: $python not found; set PYTHON=<Python 3.11>" >&2; exit 1; }
if ! "$python" -c 'import ensurepip' 2>/dev/null; then
  [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null \
    || { echo "make: $python has no venv module: install python3-venv" >&2; exit 1; }
  echo "  installing python3-venv" >&2
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive DEBCONF_NOWARNINGS=yes apt-get install -y -qq --no-install-recommends python3-venv >/dev/null
fi
"$python" -m venv --clear "$directory"
