# One file, one target for each program. `make images` builds them all; by hand:
#
#   make wheels                                              # the libraries, with hashes, into build/wheels
#   docker build --target reconciler -t me/reconciler .      # likewise routing-layer, demo-ksqldb, ...
#
# Libraries come from build/wheels, so the image needs neither an index nor a compiler, and the same file builds where
# no image can be pulled (BASE is then a local image; scripts/base_image.sh makes one). It uses nothing that the
# engine's classic builder lacks.
ARG BASE=python:3.11-slim

FROM ${BASE} AS libraries
COPY build/wheels /wheels
COPY requirements-runtime.lock /wheels/
RUN python3 -m pip install --no-cache-dir --no-index --find-links /wheels --require-hashes --no-compile \
      --target /opt/openfactory/lib -r /wheels/requirements-runtime.lock \
 && python3 -m compileall -q -j 0 --invalidation-mode unchecked-hash /opt/openfactory/lib

FROM ${BASE} AS demo-libraries
COPY build/wheels /wheels
COPY requirements-demo.lock /wheels/
RUN python3 -m pip install --no-cache-dir --no-index --find-links /wheels --require-hashes --no-compile \
      --target /opt/openfactory/lib -r /wheels/requirements-demo.lock \
 && python3 -m compileall -q -j 0 --invalidation-mode unchecked-hash /opt/openfactory/lib

FROM ${BASE} AS runtime
ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PYTHONPATH=/opt/openfactory/lib:/opt/openfactory/app
RUN useradd --system --uid 10001 --home-dir /nonexistent --shell /usr/sbin/nologin openfactory
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

# ---- the routing layer
FROM runtime AS routing-layer
# Memory of a crowd of clients that has left goes back to the system (see routing_layer/memory.py).
ENV PYTHONMALLOC=malloc
COPY --from=libraries /opt/openfactory/lib /opt/openfactory/lib
COPY openfactory_common ./openfactory_common
COPY routing_layer ./routing_layer
RUN python3 -m compileall -q --invalidation-mode unchecked-hash .
USER openfactory
EXPOSE 5555
HEALTHCHECK --interval=1s --timeout=120s --retries=3 CMD ["healthcheck", "ROUTING_LAYER_PORT", "5555"]
ENTRYPOINT ["python3", "-m", "routing_layer"]

# ---- development servers: an embedded ksqlDB, the services behind the router, a simulated factory
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

FROM demo AS demo-group-service
EXPOSE 8000
HEALTHCHECK --interval=1s --timeout=120s --retries=3 CMD ["healthcheck", "PORT", "8000"]
ENTRYPOINT ["python3", "-m", "demo.group_service"]

FROM demo AS demo-state-api
EXPOSE 5555
HEALTHCHECK --interval=1s --timeout=120s --retries=3 CMD ["healthcheck", "PORT", "5555"]
ENTRYPOINT ["python3", "-m", "demo.state_api"]

FROM demo AS demo-factory
ENTRYPOINT ["python3", "-m", "demo.factory"]
