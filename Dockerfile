# Builds with docker, podman or buildah; docs/docker.md says how, and what was measured.
# By digest, of all platforms, and in a line that Dependabot reads. make image BASE_IMAGE=… puts another in its place.
FROM docker.io/library/python:3.11-slim@sha256:9c900dea9e8fb7e16277c179b555cc72d29a352dbc33cff48ad5a0412fd5bfc7 AS python

# What is installed, in an environment of its own that the images copy: pip and its cache stay behind.
FROM python AS dependencies
RUN python3 -m venv /opt/pip && python3 -m venv --without-pip /opt/venv
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
COPY requirements/image.txt /tmp/image.txt
RUN /opt/pip/bin/pip --python /opt/venv/bin/python install --no-deps --require-hashes --requirement /tmp/image.txt
# torch is not in the lock: its CPU build is another file than the registry's CUDA build, under the same version, and lies on
# PyTorch's own index. uv knows that index by the name of the backend; TORCH_INDEX_URL names a mirror of it, and
# TORCH_BACKEND=pip takes what pip is configured for. Its other dependencies are in the lock.
COPY requirements/build.txt requirements/torch.txt /tmp/
RUN /opt/pip/bin/pip install --require-hashes --requirement /tmp/build.txt
ARG TORCH_BACKEND=cpu
ARG TORCH_INDEX_URL=
RUN if [ -n "${TORCH_INDEX_URL}" ] || [ "${TORCH_BACKEND}" = pip ]; then \
        /opt/pip/bin/pip --python /opt/venv/bin/python install \
            ${TORCH_INDEX_URL:+--index-url "${TORCH_INDEX_URL}"} --requirement /tmp/torch.txt; \
    else \
        /opt/pip/bin/uv pip install --no-cache --python /opt/venv/bin/python --torch-backend "${TORCH_BACKEND}" \
            --requirement /tmp/torch.txt; \
    fi \
    && /opt/pip/bin/pip --python /opt/venv/bin/python check
# What torch brings for those who build on it, about 190 MB; importing it needs one program of bin/.
RUN torch="$(echo /opt/venv/lib/python3*/site-packages/torch)" \
    && rm -rf "$torch/include" "$torch/share" "$torch/test" \
    && find "$torch/bin" -type f ! -name torch_shm_manager -delete

# The model of the image that carries one, made by no more of the app than that takes, so that another change of the
# code makes no other model. A model inside the package is not of the Hub, and needs nothing here.
FROM dependencies AS model
WORKDIR /opt/model
COPY clip_app/engines clip_app/engines
COPY clip_app/hub clip_app/hub
COPY clip_app/__init__.py clip_app/checkpoint.py clip_app/errors.py clip_app/machine.py clip_app/models.py \
    clip_app/preparation.py clip_app/preprocessing.py clip_app/results.py clip_app/settings.py clip_app/source.py \
    clip_app/telemetry.py clip_app/tokenizer.py clip_app/
ARG MODEL=openai/clip-vit-base-patch32
RUN mkdir /cache clip_app-0.dist-info && printf 'Name: clip_app\nVersion: 0\n' >clip_app-0.dist-info/METADATA \
    && HF_HOME=/cache CLIP_APP_MODEL="${MODEL}" /opt/venv/bin/python -m clip_app.preparation

# The app lies beside its dependencies, so that a change of it is a layer of megabytes.
FROM dependencies AS package
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY clip_app clip_app
RUN /opt/pip/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /wheels . \
    && /opt/pip/bin/pip --python /opt/venv/bin/python install --no-deps --target /opt/app /wheels/*.whl

FROM python AS base
# A base image brings a pip of its own; nothing here installs anything any more.
RUN groupadd --gid 10001 clip_app \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin clip_app \
    && install --directory --owner 10001 --group 10001 --mode 2775 /cache \
    && rm -rf /usr/local/bin/pip* /usr/local/lib/python3*/site-packages/pip* /usr/local/lib/python3*/ensurepip
COPY --from=dependencies /opt/venv /opt/venv
COPY --from=package /opt/app /opt/app
ENV PATH=/opt/app/bin:/opt/venv/bin:$PATH \
    PYTHONPATH=/opt/app \
    PYTHONDONTWRITEBYTECODE=1 \
    HF_HOME=/cache \
    CLIP_APP_HOST=0.0.0.0
EXPOSE 7860
# Ready, not merely alive: the first start may fetch the model. There is no curl.
HEALTHCHECK --interval=30s --timeout=5s --start-period=10m --retries=3 CMD ["python3", "-I", "-S", "-c", \
    "import os, urllib.request as r; e = os.environ; r.build_opener(r.ProxyHandler({})).open(f'http://127.0.0.1:{e.get(\"CLIP_APP_PORT\") or e.get(\"PORT\") or 7860}/readyz', timeout=4)"]
ENTRYPOINT ["clip-app"]
CMD ["serve"]
ARG VERSION=0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="clip_app" \
      org.opencontainers.image.description="See what is in a picture with CLIP: a page, an API and metrics, on a CPU" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"

# Takes its model from the volume at /cache, and fetches it into there where it is missing.
FROM base AS runtime
VOLUME ["/cache"]
USER 10001:10001

# Carries its model: for hosts without a volume. Written by root, so that the app cannot change its files. Label
# embeddings are of one precision, and which one serves depends on the CPU that the image will run on.
FROM base AS with-model
ARG MODEL=openai/clip-vit-base-patch32
ENV CLIP_APP_MODEL=${MODEL} \
    HF_HUB_OFFLINE=1
COPY --from=model /cache /cache
RUN CLIP_APP_PRECISION=float32 clip-app prefetch && CLIP_APP_PRECISION=bfloat16 clip-app prefetch
USER 10001:10001
