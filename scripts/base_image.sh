#!/usr/bin/env bash
# Print the name of a base image with Python 3.11, making it where none can be pulled.
#
# With a registry in reach it is the official slim image. Without one, a minimal Debian 12 is put together from
# Debian's packages (its Python is 3.11) and imported. Either is kept, so the second run only looks.
set -euo pipefail

OFFICIAL=python:3.11-slim
OWN=openfactory/base:bookworm-py311-1
PACKAGES=python3-minimal,python3-pip,ca-certificates

say() { printf '  %s\n' "$*" >&2; }
have() { docker image inspect "$1" >/dev/null 2>&1; }

if [ -n "${BASE:-}" ]; then echo "$BASE"; exit 0; fi
for image in "$OWN" "$OFFICIAL"; do
  if have "$image"; then echo "$image"; exit 0; fi
done
say "looking for $OFFICIAL (60 s at most)"
if timeout 60 docker pull -q "$OFFICIAL" >/dev/null 2>&1; then echo "$OFFICIAL"; exit 0; fi

say "no image can be pulled: building a minimal Debian 12 with Python 3.11 (about a minute)"
[ "$(id -u)" = 0 ] || { echo "base image: debootstrap needs root; set BASE=<image with Python 3.11> instead" >&2; exit 1; }
if ! command -v debootstrap >/dev/null; then
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive DEBCONF_NOWARNINGS=yes apt-get install -y -qq --no-install-recommends debootstrap >/dev/null
fi
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT

bootstrap() { # [mirror]
  rm -rf "$root/fs"
  debootstrap --variant=minbase --include="$PACKAGES" bookworm "$root/fs" "$@" >"$root/log" 2>&1
}

# The mirror that this machine's own apt uses (the nearest, and in a closed network the only one), else the default.
mirror=$(cat /etc/apt/sources.list.d/*.sources /etc/apt/sources.list /etc/apt/sources.list.d/*.list 2>/dev/null \
  | grep -v '^#' | grep -oE 'https?://[^ ]+/debian/?( |$)' | head -n 1 | tr -d ' ' || true)
bootstrap ${mirror:+"$mirror"} || bootstrap || { tail -n 20 "$root/log" >&2; exit 1; }
rm -rf "$root/fs/var/cache/apt/archives/"*.deb "$root/fs/var/lib/apt/lists/"*
tar -C "$root/fs" -c . | docker import - "$OWN" >/dev/null
echo "$OWN"
