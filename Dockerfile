# A worker in a container; see docker-compose.yml for a broker and workers together.
#
#   docker build --tag ftq .
#   docker build --tag ftq --build-arg TORCH="torch==2.13.0 --index-url URL-OF-A-TORCH-BUILD" .
#
# The driver comes from the host (nvidia-container-toolkit); torch's wheels bring CUDA themselves,
# so that a plain Python image is enough.
FROM python:3.11-slim

# The user of the container. It has to be able to read the fleet key, a file of mode 0600.
ARG UID=1000
# What pip installs as torch, options included; the version is that of constraints.txt.
ARG TORCH="torch"

ENV PYTHONUNBUFFERED=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    FTQ_HOME=/var/lib/ftq/home \
    FTQ_STORAGE=/var/lib/ftq/storage \
    HF_HOME=/var/lib/ftq/huggingface

# The folders exist with the right owner, so that new volumes get that owner too.
RUN useradd --uid "${UID}" --home-dir /var/lib/ftq --create-home ftq \
 && install -d -o ftq -g ftq "${FTQ_HOME}" "${FTQ_STORAGE}" "${HF_HOME}"

WORKDIR /opt/ftq
# torch first: its layer stays when the code changes.
COPY constraints.txt ./
RUN pip install --constraint constraints.txt ${TORCH}
COPY pyproject.toml README.md LICENSE CHANGELOG.md ./
COPY client ./client
COPY shared ./shared
COPY worker ./worker
RUN pip install --constraint constraints.txt ".[worker]"

USER ftq
WORKDIR /var/lib/ftq
# `ftq worker` becomes the supervisor, process 1: it handles SIGTERM and reaps orphans.
ENTRYPOINT ["ftq"]
CMD ["worker"]
