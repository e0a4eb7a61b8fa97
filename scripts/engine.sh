#!/usr/bin/env bash
# Make sure that a Docker engine answers and is a Swarm manager. Safe to run again; touches nothing that is there.
set -euo pipefail

STATE=${OFA_STATE_DIR:-/var/lib/openfactory-dev}
RUN=/var/run

say() { printf '  %s\n' "$*" >&2; }
die() { printf 'engine: %s\n' "$*" >&2; exit 1; }

answers() { command -v docker >/dev/null && timeout 20 docker info --format '{{.ServerVersion}}' >/dev/null 2>&1; }

require_root() { [ "$(id -u)" = 0 ] || die "no Docker engine answers (or this user may not use it): start it, join the group 'docker', or run as root"; }

install_engine() {
  if command -v dockerd >/dev/null && command -v docker >/dev/null && command -v iptables >/dev/null; then return; fi
  require_root
  command -v apt-get >/dev/null || die "no Docker engine is installed, and this script knows only Debian's packages: install one"
  say "installing the Docker engine (docker.io, iptables)"
  apt-get update -qq || say "the package lists could not be renewed; trying with those that are there"
  DEBIAN_FRONTEND=noninteractive DEBCONF_NOWARNINGS=yes apt-get install -y -qq --no-install-recommends docker.io iptables >/dev/null \
    || die "apt-get could not install docker.io and iptables"
}

# A pid file that an engine left behind stops the next one, also when its number now belongs to another program.
drop_stale_pid() { # file, program
  local pid
  [ -s "$1" ] || return 0
  pid=$(cat "$1")
  if [ "$(cat "/proc/$pid/comm" 2>/dev/null)" != "$2" ]; then rm -f "$1"; fi
}

start_engine() {
  require_root
  mkdir -p "$STATE"
  drop_stale_pid "$RUN/docker.pid" dockerd
  drop_stale_pid "$RUN/docker/containerd/containerd.pid" containerd
  if [ -s "$RUN/docker.pid" ]; then
    say "dockerd runs already and does not answer yet"
  else
    say "starting dockerd (log: $STATE/dockerd.log)"
    setsid nohup dockerd >"$STATE/dockerd.log" 2>&1 </dev/null &
  fi
  # With the services of an old Swarm to take up again, a first answer can take much longer than the usual 2 s.
  for _ in $(seq 120); do
    if answers; then return; fi
    sleep 0.5
  done
  tail -n 5 "$STATE/dockerd.log" >&2 || true
  die "dockerd did not answer within 60 s; its log is $STATE/dockerd.log"
}

swarm_state() { docker info --format '{{.Swarm.LocalNodeState}} {{.Swarm.ControlAvailable}}'; }

join_swarm() {
  # An engine that was just started may still be taking up the Swarm that it knew.
  for _ in $(seq 60); do
    case "$(swarm_state)" in pending*) sleep 0.5 ;; *) break ;; esac
  done
  case "$(swarm_state)" in
    "active true") ;;
    "active false") die "this engine is a Swarm worker: run this on a manager node" ;;
    inactive*)
      say "making this engine a Swarm of one node"
      docker swarm init --advertise-addr "${OFA_ADVERTISE_ADDR:-127.0.0.1}" >/dev/null ;;
    *) die "the engine's Swarm state is '$(swarm_state)': repair it, or give it up with 'docker swarm leave --force'" ;;
  esac
}

await_leader() { # the calls that need a leader fail for some seconds after a start
  for _ in $(seq 60); do
    if docker node ls -q >/dev/null 2>&1; then return; fi
    sleep 0.5
  done
  die "the Swarm has no leader: $(docker node ls 2>&1 | head -n 1)"
}

if ! answers; then
  install_engine
  answers || start_engine
fi
join_swarm
await_leader
say "engine $(docker info --format '{{.ServerVersion}}'), Swarm of $(docker info --format '{{.Swarm.Nodes}}') node(s)"
