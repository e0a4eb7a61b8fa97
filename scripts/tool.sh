#!/usr/bin/env bash
# Make sure that a program of Debian's is there for the tests, and print its path: tool.sh haproxy|promtool
set -euo pipefail
cd "$(dirname "$0")/.." && mkdir -p build

die() { printf '%s: %s\n' "$tool" "$*" >&2; exit 1; }

tool=$1
# Tests run in parallel: one fetches, the others find it there.
exec 9>build/tool.lock && flock 9
case $tool in
  haproxy) package=haproxy inside=usr/sbin/haproxy ;;
  promtool) package=prometheus inside=usr/bin/promtool ;;
  *) die "unknown" ;;
esac
found=$(PATH="$PATH:/usr/sbin" command -v "$tool" || true)
own=build/tools/$package/$inside
if [ -z "$found" ] && [ -x "$own" ]; then found=$PWD/$own; fi
if [ -z "$found" ]; then
  command -v apt-get >/dev/null || die "not installed, and this script knows only Debian's packages"
  printf '  fetching %s\n' "$package" >&2
  if [ "$package" = prometheus ]; then
    # The program alone: the package would start a server.
    mkdir -p build/tools
    fetch() { (cd build/tools && apt-get download -qq prometheus >/dev/null 2>&1); }
    fetch || { apt-get update -qq || true; fetch; } || die "apt-get could not download the package prometheus"
    rm -rf build/tools/new && dpkg -x build/tools/prometheus_*.deb build/tools/new
    rm -f build/tools/prometheus_*.deb && rm -rf "build/tools/$package" && mv build/tools/new "build/tools/$package"
    found=$PWD/$own
  else
    [ "$(id -u)" = 0 ] || die "not installed: install Debian's package $package, or run as root"
    apt-get update -qq || printf '  the package lists could not be renewed; trying with those that are there\n' >&2
    # A package's service is not to be started on a machine that only tests.
    printf '#!/bin/sh\nexit 101\n' >build/no-services && chmod 755 build/no-services
    [ -e /usr/sbin/policy-rc.d ] || { install -m 755 build/no-services /usr/sbin/policy-rc.d; trap 'rm -f /usr/sbin/policy-rc.d' EXIT; }
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$package" >/dev/null \
      || die "apt-get could not install the package $package"
    found=$(PATH="$PATH:/usr/sbin" command -v "$tool")
  fi
fi
printf '%s\n' "$found"
