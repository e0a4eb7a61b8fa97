#!/usr/bin/env bash
# Make sure that Debian's Chromium is there, for the tests with a real browser. Prints nothing if it is.
set -euo pipefail

die() { printf 'chromium: %s\n' "$*" >&2; exit 1; }

command -v chromium >/dev/null && exit 0
[ "$(id -u)" = 0 ] || die "not installed: install Debian's package chromium, or run as root"
command -v apt-get >/dev/null || die "not installed, and this script knows only Debian's packages"
printf '  installing chromium\n' >&2
apt-get update -qq || printf '  the package lists could not be renewed; trying with those that are there\n' >&2
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium >/dev/null \
  || die "apt-get could not install the package chromium"
