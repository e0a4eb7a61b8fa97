#!/usr/bin/env bash
# Build the images that are not there yet and print a line NAME=image for each.
#
# A tag is a hash of what goes into the image, so an unchanged tree builds nothing, and a service whose image changed
# is a service whose spec changed.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf '  %s\n' "$*" >&2; }
hash_of() { find "$@" -type f ! -name '*.pyc' ! -path '*/__pycache__/*' -print0 | LC_ALL=C sort -z | xargs -0 sha256sum; }

# BuildKit where it is there (newer engines drop the classic builder), by the engine's own builder, which sees its images.
kit=0
if docker buildx version >/dev/null 2>&1; then kit=1; fi

base=$(scripts/base_image.sh)
base_id=$(docker image inspect -f '{{.Id}}' "$base" 2>/dev/null || echo "$base")

build() { # variable, target, sources...
  local variable=$1 target=$2 tag image
  shift 2
  tag=$( { echo "$base_id"; hash_of Dockerfile scripts/healthcheck.sh "$@"; } | sha256sum | cut -c1-12)
  image="openfactory/$target:$tag"
  if ! docker image inspect "$image" >/dev/null 2>&1; then
    make -s wheels >&2
    say "building $image"
    DOCKER_BUILDKIT=$kit BUILDX_BUILDER=default docker build -q --build-arg BASE="$base" --target "$target" -t "$image" . >build/docker.log 2>&1 \
      || { tail -n 30 build/docker.log >&2; exit 1; }
  fi
  echo "$variable=$image"
}

common=openfactory_common
demo=(requirements-demo.lock "$common" demo)
mkdir -p build
build RECONCILER_IMAGE reconciler requirements-runtime.lock "$common" reconciler routing_layer
build ROUTING_LAYER_IMAGE routing-layer requirements-runtime.lock "$common" routing_layer
build KSQLDB_IMAGE demo-ksqldb "${demo[@]}"
build GROUP_SERVICE_IMAGE group-service requirements-group-service.lock "$common" group_service
build FASTAPI_GROUP_IMAGE demo-group-service requirements-group-service.lock "$common" group_service
build STATE_API_IMAGE state-api requirements-runtime.lock "$common" state_api
build FACTORY_IMAGE demo-factory "${demo[@]}"
