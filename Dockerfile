# One image for every role: the command (api, worker, maintain, migrate) chooses. docs/how-to/deploy-with-compose.md

# The Python and the Debian that the tests run on. Another by --build-arg: a mirror of it, or a newer one.
ARG PYTHON_IMAGE=python:3.11-slim-bookworm

FROM ${PYTHON_IMAGE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_NO_INPUT=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /build

# pip and setuptools work on this environment and do not stay in it: what runs needs neither.
RUN python -m venv --without-pip /opt/jobyard
ENV PIP_PYTHON=/opt/jobyard/bin/python

# First what seldom changes. Only wheels: the slim image has no compiler, and a build that needs one should say so.
COPY requirements/image.txt requirements/
RUN pip install --only-binary :all: --require-hashes --requirement requirements/image.txt

# The build backend is among the requirements: an isolated build would fetch it anew, past the hashes.
COPY pyproject.toml README.md LICENSE ./
COPY src src
RUN pip install --no-deps --no-build-isolation . && pip uninstall --yes setuptools

FROM ${PYTHON_IMAGE}
LABEL org.opencontainers.image.title="jobyard" \
      org.opencontainers.image.description="A job backend over plain HTTP: api, worker, maintain, migrate" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.licenses="Apache-2.0"

# Owns nothing but its home, where mails are written when there is no mail server.
RUN useradd --uid 10001 --user-group --no-create-home --home-dir /var/lib/jobyard --shell /usr/sbin/nologin jobyard \
    && install --directory --owner=jobyard --group=jobyard /var/lib/jobyard
COPY --from=build /opt/jobyard /opt/jobyard

# Loopback inside a container is reachable from nowhere, so every role listens on all addresses: the API, and with
# the same port the health checks of the others. The bytecode of what is installed was written by the build; a
# handler's own would be written into a tree that is not ours. Unbuffered, a handler's print is in the log at once.
ENV PATH=/opt/jobyard/bin:$PATH \
    HOST=0.0.0.0 \
    PORT=3000 \
    JOBYARD_HEALTH_PORT=3000 \
    JOBYARD_HOME=/var/lib/jobyard \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1

# A number, so that an orchestrator can see that it is not root; the folder is where JOBYARD_APP is imported from.
USER 10001:10001
WORKDIR /jobs
EXPOSE 3000
STOPSIGNAL SIGTERM
ENTRYPOINT ["jobyard"]
CMD ["api"]
