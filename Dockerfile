# Two images from one file: `operator` (no torch) and `job` (torch with its CUDA libraries).
# Dependencies come first and from the locks, so that a change of our code rebuilds one small layer in seconds.
# Nothing is compiled: all dependencies are wheels.
ARG PYTHON=docker.io/library/python:3.11-slim-bookworm

FROM ${PYTHON} AS base
ENV PATH=/opt/lmft/bin:$PATH \
    PYTHONPATH=/app \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1
# The official image ships its standard library uncompiled, and the root file system is read-only in the pod: compiling
# it here saves a second at each start, for 12 MB. By content rather than by time, so that layers are reproducible.
RUN python3 -m venv /opt/lmft \
    && python3 -m compileall -q --invalidation-mode unchecked-hash -x '/(test|idlelib|lib2to3|tkinter|turtledemo)/' \
      "$(python3 -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')"
LABEL org.opencontainers.image.source="https://github.com/lmfinetune/lmfinetune" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.vendor="LMFineTune"


FROM base AS operator
COPY requirements/operator.txt /app/requirements.txt
RUN --mount=type=cache,target=/root/.cache/pip \
    /opt/lmft/bin/pip install --quiet --require-hashes -r /app/requirements.txt
COPY api/lmft_api /app/lmft_api
COPY operator/lmft_operator /app/lmft_operator
RUN python -m compileall -q --invalidation-mode unchecked-hash /app
# The numeric user has no name, and libraries ask for one.
ENV HOME=/tmp \
    USER=lmft
LABEL org.opencontainers.image.title="lmfinetune-operator" \
      org.opencontainers.image.description="Watches LMFineTune resources and runs their Jobs"
USER 65532:65532
WORKDIR /tmp
ENTRYPOINT ["python", "-P", "-m", "lmft_operator.main"]


FROM base AS job
COPY requirements/job.txt /app/requirements.txt
RUN --mount=type=cache,target=/root/.cache/pip \
    /opt/lmft/bin/pip install --quiet --require-hashes -r /app/requirements.txt \
    && mkdir /cache && chown 65532:65532 /cache
COPY api/lmft_api /app/lmft_api
COPY client/lmft /app/lmft
COPY jobimage/lmft_job /app/lmft_job
RUN python -m compileall -q --invalidation-mode unchecked-hash /app
# An image with classes of its own puts them into /opt/lmft/user. Nothing is imported from the folder that a process stands
# in (-P), which is /tmp; the variable of the same effect is not set, for it would reach users' own scripts too.
# Caches lie in one folder that the pod makes writable. transformers' own progress callback is switched off, for it posts
# within the training step; ours reports from a thread of its own. The tokenizers use all cores: nothing forks after them.
ENV HOME=/tmp \
    USER=lmft \
    XDG_CACHE_HOME=/cache \
    HF_HOME=/cache/huggingface \
    TORCHINDUCTOR_CACHE_DIR=/cache/inductor \
    TRITON_CACHE_DIR=/cache/triton \
    HF_HUB_DISABLE_TELEMETRY=1 \
    DO_NOT_TRACK=1 \
    TOKENIZERS_PARALLELISM=true \
    PYTHONPATH=/app:/opt/lmft/user \
    DISABLE_KUBEFLOW_INTEGRATION=TRUE
LABEL org.opencontainers.image.title="lmfinetune-job" \
      org.opencontainers.image.description="Preprocesses, trains, evaluates and reports one LMFineTune run"
USER 65532:65532
WORKDIR /tmp
ENTRYPOINT ["python", "-P", "-m", "lmft_job.pod"]
