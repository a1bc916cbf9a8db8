# instapipe on the CPU. From the top of the repository:
#   docker build -f docker/cpu.Dockerfile -t instapipe:cpu [--build-arg TORCH_INDEX=URL] .
# How to run it: docker/README.md
FROM debian:bookworm-slim

# The package index to take torch and torchvision from: one with CPU builds makes the image several gigabytes smaller.
# Empty: pip's own.
ARG TORCH_INDEX=""

RUN apt-get update \
    && apt-get install --yes --no-install-recommends python3 python3-venv ca-certificates \
    && rm -rf /var/lib/apt/lists/*
RUN useradd --create-home --uid 1000 instapipe \
    && mkdir /cache /work \
    && chown instapipe:instapipe /cache /work

COPY constraints.txt /source/constraints.txt
RUN python3 -m venv /opt/instapipe \
    && /opt/instapipe/bin/pip install --no-cache-dir ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} \
        --constraint /source/constraints.txt torch torchvision

COPY pyproject.toml setup.py README.md LICENSE /source/
COPY instapipe /source/instapipe
COPY weights /source/weights
COPY configs /source/configs
RUN /opt/instapipe/bin/pip install --no-cache-dir --constraint /source/constraints.txt "/source[fast]" \
    && rm -rf /source

# Only /cache is written to (and /work, which is the user's): the root file system may be read-only.
ENV PATH=/opt/instapipe/bin:/usr/local/bin:/usr/bin:/bin
ENV INSTAPIPE_CACHE=/cache/instapipe
ENV HOME=/cache
ENV PYTHONDONTWRITEBYTECODE=1
VOLUME /cache
WORKDIR /work
USER instapipe
ENTRYPOINT ["instapipe"]
CMD ["--help"]
