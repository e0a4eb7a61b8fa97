#!/usr/bin/env bash
# Make sure that a Docker engine answers and is a Swarm manager. Safe to run again; touches nothing that is there.
#
# ENGINE=trixie (or sid, or any other suite of Debian) takes the engine of that suite instead of the installed one, with
# its own images and Swarm. Its programs run here without a container, with the suite's own libraries.
set -euo pipefail

STATE=${OFA_STATE_DIR:-/var/lib/openfactory-dev}
RUN=/var/run
SUITE=${ENGINE:-}
OPTIONS=()

say() { printf '  %s\n' "$*" >&2; }
die() { printf 'engine: %s\n' "$*" >&2; exit 1; }

answers() { command -v docker >/dev/null && timeout 20 docker version --format '{{.Server.Version}}' >/dev/null 2>&1; }

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

# The programs of another suite find their loader and libraries by absolute paths that are written into copies of them.
install_suite() { # suite
  local root=$STATE/engines/$1 program copy mirror
  OPTIONS=(--data-root "$STATE/engines/$1-data")
  [ -e "$root/engine-bin/.complete" ] && return
  require_root
  command -v apt-get >/dev/null || die "ENGINE=$1 needs a Debian machine"
  say "installing the Docker engine of Debian $1 into $root (2 minutes)"
  DEBIAN_FRONTEND=noninteractive DEBCONF_NOWARNINGS=yes apt-get install -y -qq --no-install-recommends debootstrap patchelf iptables >/dev/null \
    || die "apt-get could not install debootstrap, patchelf and iptables"
  mirror=$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' | head -n 1)
  rm -rf "$root" && mkdir -p "$STATE/engines"
  debootstrap --variant=minbase --include=docker.io,docker-cli "$1" "$root" "$mirror" >"$STATE/engines/$1.log" 2>&1 \
    || { tail -n 3 "$STATE/engines/$1.log" >&2; die "debootstrap of $1 failed; its log is $STATE/engines/$1.log"; }
  mkdir "$root/engine-bin"
  for program in dockerd containerd containerd-shim-runc-v2 runc docker-proxy docker-init docker; do
    copy=$root/engine-bin/$program
    cp "$(find "$root/usr/bin" "$root/usr/sbin" "$root/usr/libexec" -name "$program" ! -type d | head -n 1)" "$copy"
    # (The initial program of containers is a static one.)
    if patchelf --print-interpreter "$copy" >/dev/null 2>&1; then
      patchelf --force-rpath --set-rpath "$root/usr/lib/$(uname -m)-linux-gnu" \
        --set-interpreter "$root$(patchelf --print-interpreter "$copy")" "$copy"
    fi
  done
  touch "$root/engine-bin/.complete"
}

# Two engines on one machine would share the default socket, and iptables: the other one is for its owner to stop.
require_version() { # the engine that answers is the one that was asked for
  local there wanted
  there=$(docker version --format '{{.Server.Version}}')
  wanted=$("$STATE/engines/$SUITE/engine-bin/dockerd" --version | sed 's/Docker version \([^,]*\).*/\1/')
  [ "$there" = "$wanted" ] || die "ENGINE=$SUITE is $wanted, but engine $there answers already: stop that one first"
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
    setsid nohup dockerd "${OPTIONS[@]}" >"$STATE/dockerd.log" 2>&1 </dev/null &
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

if [ -n "$SUITE" ]; then
  install_suite "$SUITE"
  export PATH=$STATE/engines/$SUITE/engine-bin:$PATH
fi
if ! answers; then
  install_engine
  answers || start_engine
fi
[ -z "$SUITE" ] || require_version
join_swarm
await_leader
say "engine $(docker info --format '{{.ServerVersion}}'), Swarm of $(docker info --format '{{.Swarm.Nodes}}') node(s)"
