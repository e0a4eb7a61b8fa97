#!/usr/bin/env bash
# Make sure that build/kafka has the jars of the broker that the tests run, and that there is a Java to run them.
# Versions: scripts/kafka/pom.xml. Safe to run again: a second run only looks.
set -euo pipefail
cd "$(dirname "$0")/.." && mkdir -p build

POM=scripts/kafka/pom.xml
JARS=build/kafka
STAMP=$JARS/.complete-$(sha256sum "$POM" | cut -c1-12)

say() { printf '  %s\n' "$*" >&2; }
die() { printf 'kafka: %s\n' "$*" >&2; exit 1; }

install() { # packages
  [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null \
    || die "not installed: install Debian's package(s) $*, or run as root"
  say "installing $*"
  apt-get update -qq || say "the package lists could not be renewed; trying with those that are there"
  DEBIAN_FRONTEND=noninteractive DEBCONF_NOWARNINGS=yes apt-get install -y -qq --no-install-recommends "$@" >/dev/null \
    || die "apt-get could not install $*"
}

# Of two at a time, one fetches and the other finds it there.
exec 9>build/kafka.lock && flock 9
command -v java >/dev/null || install default-jre-headless
[ -e "$STAMP" ] && exit 0
command -v mvn >/dev/null || install maven

say "fetching Kafka's jars (about 45 MB)"
rm -rf "$JARS"
for attempt in 1 2 3; do
  if mvn -q -B -f "$POM" dependency:copy-dependencies -DincludeScope=runtime -DoutputDirectory="$PWD/$JARS" \
    >build/kafka.log 2>&1; then
    touch "$STAMP"
    exit 0
  fi
  say "attempt $attempt failed: $(grep -m 1 ERROR build/kafka.log || tail -n 1 build/kafka.log)"
  sleep "$attempt"
done
die "Maven could not fetch the jars; its log is build/kafka.log"
