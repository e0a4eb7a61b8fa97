# One file, one target for each program; the routing layer is the last and so the default:
#
#   docker build -t openfactory/routing-layer .
#   docker build -t openfactory/reconciler --target reconciler .        # likewise demo-ksqldb, demo-factory, ...
#
# Libraries come from the index, each with the hash that the lock file names. If build/wheels is there (`make wheels`
# fills it, `make images` uses it), they come from it alone: no network is needed, and after a change of a lock file
# `make wheels` renews it. The file builds where no image can be pulled (BASE is then a local image, which
# scripts/base_image.sh makes) and uses nothing that the engine's classic builder lacks.
ARG BASE=python:3.11-slim

FROM ${BASE} AS libraries
# The pattern matches nothing where the folder is missing; a plain name would then be an error.
COPY requirements-runtime.lock build/wheel[s] /wheels/
RUN if ls /wheels/*.whl >/dev/null 2>&1; then from="--no-index --find-links /wheels"; fi \
 && python3 -m pip install --no-cache-dir ${from:-} --only-binary :all: --require-hashes --no-compile \
      --target /opt/openfactory/lib -r /wheels/requirements-runtime.lock \
 && python3 -m compileall -q -j 0 --invalidation-mode unchecked-hash /opt/openfactory/lib

FROM ${BASE} AS demo-libraries
# The pattern matches nothing where the folder is missing; a plain name would then be an error.
COPY requirements-demo.lock build/wheel[s] /wheels/
RUN if ls /wheels/*.whl >/dev/null 2>&1; then from="--no-index --find-links /wheels"; fi \
 && python3 -m pip install --no-cache-dir ${from:-} --only-binary :all: --require-hashes --no-compile \
      --target /opt/openfactory/lib -r /wheels/requirements-demo.lock \
 && python3 -m compileall -q -j 0 --invalidation-mode unchecked-hash /opt/openfactory/lib

FROM ${BASE} AS group-libraries
COPY requirements-group-service.lock build/wheel[s] /wheels/
RUN if ls /wheels/*.whl >/dev/null 2>&1; then from="--no-index --find-links /wheels"; fi \
 && python3 -m pip install --no-cache-dir ${from:-} --only-binary :all: --require-hashes --no-compile \
      --target /opt/openfactory/lib -r /wheels/requirements-group-service.lock \
 && python3 -m compileall -q -j 0 --invalidation-mode unchecked-hash /opt/openfactory/lib

FROM ${BASE} AS runtime
ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PYTHONPATH=/opt/openfactory/lib:/opt/openfactory/app
# The check of a server with TLS needs openssl, which Debian's ca-certificates bring.
RUN useradd --system --uid 10001 --home-dir /nonexistent --shell /usr/sbin/nologin openfactory && openssl version
# Why the interval is not the time between two questions, and the limit of time is that long: see the script.
COPY scripts/healthcheck.sh /usr/local/bin/healthcheck
WORKDIR /opt/openfactory/app

# ---- the operator
FROM runtime AS reconciler
COPY --from=libraries /opt/openfactory/lib /opt/openfactory/lib
COPY openfactory_common ./openfactory_common
COPY reconciler ./reconciler
COPY routing_layer ./routing_layer
RUN python3 -m compileall -q --invalidation-mode unchecked-hash . \
 && printf '#!/bin/sh\nexec python3 -m reconciler "$@"\n' >/usr/local/bin/reconciler && chmod 755 /usr/local/bin/reconciler
USER openfactory
EXPOSE 8080
HEALTHCHECK --interval=1s --timeout=120s --retries=3 CMD ["healthcheck", "RECONCILER_PORT", "8080"]
ENTRYPOINT ["python3", "-m", "reconciler"]

# ---- the services behind the routing layer
FROM runtime AS group-service
COPY --from=group-libraries /opt/openfactory/lib /opt/openfactory/lib
COPY openfactory_common ./openfactory_common
COPY group_service ./group_service
RUN python3 -m compileall -q --invalidation-mode unchecked-hash .
USER openfactory
EXPOSE 8000
HEALTHCHECK --interval=1s --timeout=120s --retries=3 CMD ["healthcheck", "PORT", "8000"]
ENTRYPOINT ["python3", "-m", "group_service"]

# The same for a plant without Kafka: the demo's.
FROM group-service AS demo-group-service
ENV SOURCE=ksqldb

FROM runtime AS state-api
COPY --from=libraries /opt/openfactory/lib /opt/openfactory/lib
COPY openfactory_common ./openfactory_common
COPY state_api ./state_api
RUN python3 -m compileall -q --invalidation-mode unchecked-hash .
USER openfactory
EXPOSE 5555
HEALTHCHECK --interval=1s --timeout=120s --retries=3 CMD ["healthcheck", "PORT", "5555"]
ENTRYPOINT ["python3", "-m", "state_api"]

# ---- development servers: an embedded ksqlDB, a simulated factory
FROM runtime AS demo
COPY --from=demo-libraries /opt/openfactory/lib /opt/openfactory/lib
COPY openfactory_common ./openfactory_common
COPY demo ./demo
RUN python3 -m compileall -q --invalidation-mode unchecked-hash . && install -d -o openfactory /data
USER openfactory

FROM demo AS demo-ksqldb
EXPOSE 8088
HEALTHCHECK --interval=1s --timeout=120s --retries=3 CMD ["healthcheck", "PORT", "8088", "/info"]
ENTRYPOINT ["python3", "-m", "demo.ksqldb"]

FROM demo AS demo-factory
ENTRYPOINT ["python3", "-m", "demo.factory"]

# ---- the routing layer
FROM runtime AS routing-layer
COPY --from=libraries /opt/openfactory/lib /opt/openfactory/lib
COPY openfactory_common ./openfactory_common
COPY routing_layer ./routing_layer
RUN python3 -m compileall -q --invalidation-mode unchecked-hash .
USER openfactory
EXPOSE 5555
HEALTHCHECK --interval=1s --timeout=120s --retries=3 CMD ["healthcheck", "ROUTING_LAYER_PORT", "5555"]
ENTRYPOINT ["python3", "-m", "routing_layer"]
