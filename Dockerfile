# Twinlens on a CPU. docs/deploying.md says how to run it; Dockerfile.gpu is the same for an NVIDIA GPU.
#
#   docker build -t twinlens .
#   docker run --rm -v twinlens:/data twinlens python -m server keys create --client shop --scope search,read,write
#   docker run --read-only --tmpfs /tmp --cap-drop ALL --security-opt no-new-privileges \
#       -p 8000:8000 -v twinlens:/data --stop-timeout 45 twinlens
#
# The second line makes a key and prints it; without one the server does not start, since others can reach it.
#
# Python 3.11 on Debian 12, because the versions in constraints.txt were tested with it. deploy/pin_images.py writes the
# digest of the base into this line, and a newer one when the base has been mended.
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS build
ENV PYTHONDONTWRITEBYTECODE=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /app

# Dependencies in a layer of their own, so that a change of code does not fetch them again; in an environment without pip.
COPY pyproject.toml constraints.txt ./
RUN python -c "import tomllib; extras = tomllib.load(open('pyproject.toml', 'rb'))['project']['optional-dependencies']; \
print(*(one for extra in ('server', 'cpu') for one in extras[extra] if not one.startswith('twinlens[')), sep='\n')" \
        > /tmp/requirements.txt \
    && python -m venv --without-pip /opt/twinlens \
    && pip --python /opt/twinlens/bin/python install --no-compile --only-binary :all: \
        --constraint constraints.txt --requirement /tmp/requirements.txt \
    && /opt/twinlens/bin/python -m compileall -q -j 0 --invalidation-mode unchecked-hash /opt/twinlens/lib

# The byte code of unchecked hashes is used whatever the times of the files are, and is the same in every build.
COPY server/ server/
RUN /opt/twinlens/bin/python -m compileall -q -j 0 --invalidation-mode unchecked-hash server

FROM ${BASE}
ENV PATH=/opt/twinlens/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1
WORKDIR /app

# PostgreSQL refuses to run as root; as this user, its data stay in the volume. All else belongs to root, and this user
# can change none of it.
RUN useradd --user-group --no-create-home --uid 10001 --home-dir /data --shell /usr/sbin/nologin twinlens \
    && install --directory --owner=twinlens --group=twinlens --mode=0755 /data

COPY --from=build /opt/twinlens /opt/twinlens
COPY pyproject.toml LICENSE ./
COPY models/ models/
COPY --from=build /app/server server/

# By its number, so that an orchestrator sees that it is not root.
USER 10001:10001
VOLUME /data

# A container is reached from outside itself, so it listens on every address, and callers need a key.
ENV TWINLENS_DATA=/data \
    TWINLENS_HOST=0.0.0.0 \
    TWINLENS_PORT=8000 \
    TWINLENS_DEVICE=cpu

EXPOSE 8000

HEALTHCHECK --interval=15s --timeout=6s --start-period=120s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as u; u.urlopen(f\"http://127.0.0.1:{os.environ['TWINLENS_PORT']}/health/ready\", timeout=5)"]

# The exec form: Python is process 1 and gets SIGTERM itself. Give it time to finish: docker stop --time 45.
STOPSIGNAL SIGTERM
CMD ["python", "-m", "server"]

# Last, since they are other ones for each build: --build-arg REVISION="$(git rev-parse HEAD)" --build-arg CREATED="$(date -u +%FT%TZ)"
ARG VERSION=0.1.0
ARG REVISION=unknown
ARG CREATED=unknown
LABEL org.opencontainers.image.title="Twinlens" \
      org.opencontainers.image.description="Search by image for product catalogues: a picture always finds itself." \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}"
