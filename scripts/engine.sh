#!/usr/bin/env bash
# Make sure that a Docker engine answers and is a Swarm manager. Safe to run again; touches nothing that is there.
set -euo pipefail

STATE=${OFA_STATE_DIR:-/var/lib/openfactory-dev}

say() { printf '  %s\n' "$*" >&2; }
die() { printf 'engine: %s\n' "$*" >&2; exit 1; }

answers() { timeout 20 docker info --format '{{.ServerVersion}}' >/dev/null 2>&1; }

install_engine() {
  if command -v dockerd >/dev/null && command -v docker >/dev/null && command -v iptables >/dev/null; then return; fi
  [ "$(id -u)" = 0 ] || die "no Docker engine answers and none is installed: run as root, or start one yourself"
  command -v apt-get >/dev/null || die "no Docker engine answers: install one (this script knows only Debian's packages)"
  say "installing the Docker engine (docker.io, iptables)"
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends docker.io iptables >/dev/null
}

start_engine() {
  [ "$(id -u)" = 0 ] || die "no Docker engine answers: start it, or run as root so that this script can"
  mkdir -p "$STATE"
  # A pid file whose process is gone stops dockerd from starting; one whose process lives is left alone.
  local pid_file=/var/run/docker.pid
  if [ -s "$pid_file" ] && ! kill -0 "$(cat "$pid_file")" 2>/dev/null; then rm -f "$pid_file"; fi
  say "starting dockerd (log: $STATE/dockerd.log)"
  setsid nohup dockerd >"$STATE/dockerd.log" 2>&1 </dev/null &
  for _ in $(seq 60); do
    if answers; then return; fi
    sleep 0.5
  done
  tail -n 5 "$STATE/dockerd.log" >&2
  die "dockerd did not answer within 30 s; its log is $STATE/dockerd.log"
}

join_swarm() {
  local state
  state=$(docker info --format '{{.Swarm.LocalNodeState}} {{.Swarm.ControlAvailable}}')
  case "$state" in
    "active true") ;;
    "active false") die "this engine is a Swarm worker: run this on a manager node" ;;
    inactive*)
      say "making this engine a Swarm of one node"
      docker swarm init --advertise-addr "${OFA_ADVERTISE_ADDR:-127.0.0.1}" >/dev/null ;;
    *) die "the engine's Swarm state is '$state': repair it, or leave it with 'docker swarm leave --force'" ;;
  esac
}

if ! answers; then
  install_engine
  answers || start_engine
fi
join_swarm
say "engine $(docker info --format '{{.ServerVersion}}'), Swarm of $(docker info --format '{{.Swarm.Nodes}}') node(s)"
