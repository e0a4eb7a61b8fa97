#!/bin/bash
# The liveness check of every image: healthcheck VARIABLE PORT [PATH], where VARIABLE may hold another port
#
# With TLS_CERT_FILE it asks by https, through openssl (10 ms, and the images have it; Python takes 110 ms).
#
# It is cheap (bash's own sockets: no interpreter starts), rare (one request in 30 s) and patient (30 s for an answer,
# three times), because what it decides is whether the engine kills a program that has clients. And it is quick where
# that matters: a task of a Swarm counts as running only once it is healthy, and engines before 25 have no interval for
# the start of its own. So the engine's interval is short and the check itself waits: before the first success it asks
# every 0.1 s; one that follows a success within 5 s waits for 30 s first. (After a pause, or a restart of the engine, it
# does not: until a check succeeds the engine calls the container unhealthy.) Measured, for an idle container: a new
# Python every 2 s cost 4.0 % of a core, this one 0.09 %.
port=${!1:-$2} path=${3:-/healthz} alive=/dev/shm/alive  # writable with a read-only root, and empty at each start

request="GET $path HTTP/1.1"$'\r\nHost: localhost\r\nConnection: close\r\n\r\n'
answers() {
  local line=
  if [[ ${TLS_CERT_FILE:-} ]]; then
    # The certificate is not for this address, and s_client verifies none.
    read -r line < <(printf %s "$request" | timeout 30 openssl s_client -quiet -connect "127.0.0.1:$port" 2>/dev/null)
  else
    { exec 3<>"/dev/tcp/127.0.0.1/$port"; } 2>/dev/null || return
    printf %s "$request" >&3
    read -r -t 30 line <&3
    exec 3>&-
  fi
  [[ $line == HTTP/1.?' 200'* ]]
}

[[ ! -r $alive ]] || read -r last <"$alive"
((EPOCHSECONDS - ${last:-0} > 5)) || sleep 30
for ((end = SECONDS + 30; SECONDS < end; )); do
  if answers; then
    echo "$EPOCHSECONDS" >"$alive"
    exit 0
  fi
  sleep 0.1
done
echo "no HTTP 200 from 127.0.0.1:$port$path within 30 s"
exit 1
