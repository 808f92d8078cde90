# The images of Earmark. docs/docker.md is the guide to them.
#   docker build -t earmark .                             the server
#   docker build -t earmark-web --target web .            the web page and HTTP
#   docker build -t earmark-client --target client .      the command `earmark` alone
#   docker build -t earmark-trainer --target trainer .    earmark-train, with torch
# Layers are ordered by how often they change: system, locked packages, model, code.
ARG PYTHON_IMAGE=python
# TRAIN=1: if models/ has no model, train one during the build.
ARG TRAIN=0

# The default base image, in a FROM line so that Dependabot updates it. PYTHON_IMAGE replaces it.
FROM python:3.11-slim-bookworm@sha256:a36c24f9cbdf4fd0f52d67f0823eeac19c2028c637cecc392d97f980d4fec56b AS python

# The common base: an unprivileged user, an environment without pip, and one thread per numeric library (Earmark
# runs its own threads and processes in parallel).
FROM ${PYTHON_IMAGE} AS base
ENV PATH=/opt/earmark/bin:$PATH \
    PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 MKL_NUM_THREADS=1
RUN groupadd --gid 10001 earmark \
 && useradd --uid 10001 --gid earmark --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin earmark \
 && python -m venv --without-pip /opt/earmark && rm /opt/earmark/bin/[aA]ctivate*

# The server's dependencies, and the build tools.
FROM base AS deps
ENV PIP_ROOT_USER_ACTION=ignore PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_COMPILE=1
RUN --mount=type=cache,target=/var/cache/apt,sharing=locked --mount=type=cache,target=/var/lib/apt,sharing=locked \
    rm -f /etc/apt/apt.conf.d/docker-clean \
 && apt-get update && apt-get install -y --no-install-recommends binutils
RUN --mount=type=cache,target=/root/.cache/pip --mount=type=bind,source=requirements/build.txt,target=/build.txt \
    python3 -m venv /opt/build && /opt/build/bin/python -m pip install --progress-bar on --require-hashes -r /build.txt
RUN --mount=type=cache,target=/root/.cache/pip --mount=type=bind,source=requirements/server.txt,target=/server.txt \
    --mount=type=bind,source=scripts/slim_packages.sh,target=/slim_packages.sh \
    /opt/build/bin/python -m pip --python /opt/earmark/bin/python install --require-hashes -r /server.txt \
 && /slim_packages.sh /opt/earmark/lib/python3*/site-packages \
 && python -m compileall -q --invalidation-mode unchecked-hash /opt/earmark

# The dependencies of the client, and of the web page.
FROM base AS client-base
ENV PIP_ROOT_USER_ACTION=ignore PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_COMPILE=1
FROM client-base AS client-deps
RUN --mount=type=cache,target=/root/.cache/pip --mount=type=bind,source=requirements/client.txt,target=/client.txt \
    --mount=type=bind,source=scripts/slim_packages.sh,target=/slim_packages.sh \
    /usr/local/bin/python -m pip --python /opt/earmark/bin/python install --require-hashes -r /client.txt \
 && /slim_packages.sh /opt/earmark/lib/python3*/site-packages \
 && python -m compileall -q --invalidation-mode unchecked-hash /opt/earmark
FROM client-base AS web-deps
RUN --mount=type=cache,target=/root/.cache/pip --mount=type=bind,source=requirements/web.txt,target=/web.txt \
    --mount=type=bind,source=scripts/slim_packages.sh,target=/slim_packages.sh \
    /usr/local/bin/python -m pip --python /opt/earmark/bin/python install --require-hashes -r /web.txt \
 && /slim_packages.sh /opt/earmark/lib/python3*/site-packages \
 && python -m compileall -q --invalidation-mode unchecked-hash /opt/earmark

# The server's bill of materials.
FROM deps AS sbom
WORKDIR /source
COPY pyproject.toml scripts/make_sbom.sh ./scripts/
RUN mv scripts/pyproject.toml . && PATH=/opt/build/bin:$PATH scripts/make_sbom.sh /sbom.cdx.json /opt/earmark/bin/python

# Earmark itself, from its wheel: /code for the server, with the client; /client for the client and the page; /training
# for the trainer. With separate folders, a change of the server's code does not cause a new training. The bytecode has no timestamps, so that unchanged code
# yields an unchanged layer.
FROM deps AS code
WORKDIR /source
COPY pyproject.toml hatch_build.py README.md LICENSE NOTICE ./
COPY protos protos
COPY client client
COPY server server
COPY training training
# hadolint ignore=DL3003
RUN /opt/build/bin/hatchling build --target wheel --directory /wheel \
 && /opt/build/bin/uv pip install --python /opt/earmark/bin/python --offline --no-deps --prefix /code /wheel/*.whl \
 && cd /code/lib/python3*/site-packages && rm -f /code/.lock earmark-*.dist-info/*.json earmark-*.dist-info/RECORD \
    earmark_spotter/models/*.md \
 && mkdir -p /training/bin "/training/${PWD#/code}" \
 && mv earmark_spotter/models/default.onnx /training/bundled.onnx \
 && ln -s /opt/earmark/model.onnx earmark_spotter/models/default.onnx \
 && cp -r earmark_spotter earmark_audio "/training/${PWD#/code}" && mv earmark_training "/training/${PWD#/code}" \
 && mv /code/bin/earmark-train /training/bin \
 && python -m compileall -q --invalidation-mode unchecked-hash /code /training \
 && cp -a /code /client && cd "/client/${PWD#/code}" && rm -r earmark_server earmark_spotter /client/bin/earmark-server

# The trainer. TORCH selects the build of torch, as in `uv pip install --torch-backend`: cpu, cu128, rocm6.3 and so on;
# empty: the default of the package index. The image trains a model into /models if there is none; see
# scripts/train_if_needed.sh.
FROM base AS trainer
ARG TORCH=cpu
ARG UV_FIND_LINKS=
RUN --mount=type=cache,target=/var/cache/apt,sharing=locked --mount=type=cache,target=/var/lib/apt,sharing=locked \
    rm -f /etc/apt/apt.conf.d/docker-clean \
 && apt-get update && apt-get install -y --no-install-recommends espeak-ng flite
RUN --mount=type=cache,target=/root/.cache/pip --mount=type=cache,target=/root/.cache/uv \
    --mount=type=bind,source=requirements,target=/requirements --mount=type=bind,from=deps,source=/opt/build,target=/opt/build \
    --mount=type=bind,source=scripts/repair_torchaudio.py,target=/repair_torchaudio.py \
    UV_SYSTEM_CERTS=1 /opt/build/bin/uv pip install --python /opt/earmark/bin/python ${TORCH:+--torch-backend=$TORCH} -r /requirements/torch.txt \
 && /opt/build/bin/python -m pip --python /opt/earmark/bin/python install --no-compile --require-hashes -r /requirements/trainer.txt \
 && python /repair_torchaudio.py
ENV MPLCONFIGDIR=/tmp/matplotlib
# Writable for every user: containers run as the owner of the mounted folders.
RUN install -d -m 1777 /models /corpus /out && install -d /data
COPY --from=code /training /opt/earmark
COPY scripts/train_if_needed.sh /usr/local/bin/train_if_needed
USER 10001:10001
WORKDIR /models
ENTRYPOINT ["train_if_needed"]

# The model of the image: the one in models/, else the bundled one, or with TRAIN=1 one that is trained here from data/.
# Docker builds only the stage that is used, and reads data/ only for that stage.
FROM base AS model-0
COPY server/earmark_spotter/models/default.onnx /opt/earmark/bundled.onnx
COPY server/earmark_spotter/models/MODEL_CARD.md /opt/earmark/
COPY model[s]/*.onnx model[s]/MODEL_CARD.m[d] /models/
RUN --mount=type=bind,source=scripts/train_if_needed.sh,target=/train_if_needed.sh \
    mkdir -p /out && OUT=/out /train_if_needed.sh

FROM scratch AS data
COPY dat[a] /

FROM trainer AS model-1
ARG TRAIN_ARGS=
COPY model[s]/*.onnx model[s]/MODEL_CARD.m[d] /models/
RUN --mount=type=bind,from=data,target=/data OUT=/out TRAIN=1 train_if_needed ${TRAIN_ARGS}

# hadolint ignore=DL3006
FROM model-${TRAIN} AS model

# The model with its training log and report, for export: docker build --target artifacts --output DIR .
FROM scratch AS artifacts
COPY --from=model /out /

# Python's own modules are compiled too: the base image has no bytecode of them, so that every start, and with it every
# health check, would compile them again.
FROM base AS runtime
RUN python -m compileall -q --invalidation-mode unchecked-hash \
    -x '/(curses|dbm|distutils|ensurepip|idlelib|lib2to3|msilib|pydoc_data|site-packages|sqlite3|test|tkinter|turtledemo|unittest|venv|wsgiref)/' \
    /usr/local/lib/python3* \
 && rm -rf /usr/local/lib/python3*/site-packages/* /usr/local/lib/python3*/ensurepip \
 && find /usr/local/bin -not -type d -not -name python -not -name 'python*[0-9]' -delete
COPY LICENSE NOTICE /usr/local/share/doc/earmark/

FROM runtime AS client
COPY --from=client-deps /opt/earmark /opt/earmark
COPY --from=code /client /opt/earmark
USER 10001:10001
WORKDIR /audio
ENTRYPOINT ["earmark"]
CMD ["--help"]
ARG VERSION=1.0.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="Earmark client" \
      org.opencontainers.image.description="Spots keywords in audio with an Earmark server" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"

# The page and HTTP: a client of the service at EARMARK_SERVER. --insecure: the publication of the port decides who can
# reach it; put a proxy with HTTPS in front of it before others do.
FROM runtime AS web
ENV EARMARK_SERVER=localhost:50051
COPY --from=web-deps /opt/earmark /opt/earmark
COPY --from=code /client /opt/earmark
USER 10001:10001
EXPOSE 8080
HEALTHCHECK --interval=30s --timeout=5s --start-period=10s --retries=3 CMD ["python", "-c", "\
from http.client import HTTPConnection; page = HTTPConnection('127.0.0.1', 8080, timeout=4); \
page.request('GET', '/health'); raise SystemExit(page.getresponse().status != 200)"]
ENTRYPOINT ["earmark", "web", "--host", "0.0.0.0", "--insecure"]
ARG VERSION=1.0.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="Earmark web page" \
      org.opencontainers.image.description="A web page and an HTTP API for an Earmark server" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"

FROM runtime AS server
# The server listens on all addresses of the container; the publication of the port decides who can reach it. A server
# with TLS needs EARMARK_INSECURE=false. The drain ends within 10 s, the default timeout of `docker stop`. The health
# check uses the client's environment variables: EARMARK_CA, EARMARK_TOKEN and so on.
ENV EARMARK_HOST=0.0.0.0 EARMARK_PORT=50051 EARMARK_INSECURE=true EARMARK_DRAIN_GRACE_S=8
COPY --from=deps /opt/earmark /opt/earmark
COPY --from=sbom /sbom.cdx.json /usr/local/share/sbom/earmark.cdx.json
COPY --from=model /out/MODEL_CARD.md /usr/local/share/doc/earmark/
COPY --from=model /out/model.onnx /opt/earmark/model.onnx
COPY --from=code /code /opt/earmark
USER 10001:10001
EXPOSE 50051
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s --retries=3 \
    CMD ["/bin/sh", "-c", "exec earmark health --server ${EARMARK_SERVER:-localhost:$EARMARK_PORT}"]
ENTRYPOINT ["earmark-server"]
ARG VERSION=1.0.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="Earmark" \
      org.opencontainers.image.description="A gRPC service that spots keywords in live audio" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
