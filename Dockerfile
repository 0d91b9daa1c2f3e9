# Hermes in a container: the package, the standard library, nothing else.
ARG PYTHON_IMAGE=python:3.13-slim
FROM ${PYTHON_IMAGE}
ARG PYTHON_IMAGE

LABEL org.opencontainers.image.title="hermes" \
      org.opencontainers.image.description="A sidecar gateway for Ollama in pure standard-library Python" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.base.name="docker.io/library/${PYTHON_IMAGE}"

COPY hermes/ /app/hermes/
# The sources never change in an image, so the compiled files carry their hash and nobody compares it: the same bytes
# each time, and nothing to write on a read-only root. The modes are those of the checkout, which may be private.
RUN python3 -m compileall -q --invalidation-mode unchecked-hash /app/hermes && chmod -R a+rX /app

# A number, because Kubernetes cannot tell that a name is not root.
USER 65532:65532

# The port is said once: the health check reads it from the variable. Loopback inside a container reaches nobody. Whether
# the port is published to one machine or to the world only whoever runs the image knows, so HERMES_SERVER_OPEN is his to
# set, or clients to configure; until then Hermes refuses to start, and says so.
ENV PYTHONPATH=/app \
    HERMES_SERVER_LISTEN=0.0.0.0:11435
EXPOSE 11435
STOPSIGNAL SIGTERM

# Python, because there is no curl in the image. /livez never asks Ollama. Whether TLS is on the file may say, so what is not understood as HTTP is
# tried as HTTPS; whose certificate it is does not matter to a process that asks itself how it is.
HEALTHCHECK --interval=10s --timeout=5s --start-period=5s \
    CMD ["python3", "-I", "-S", "-c", "import http.client as h, os, ssl, sys\nport = int(os.environ['HERMES_SERVER_LISTEN'].rpartition(':')[2])\nways = h.HTTPConnection('127.0.0.1', port, timeout=2), h.HTTPSConnection('127.0.0.1', port, timeout=2, context=ssl._create_unverified_context())\nfor c in reversed(ways) if os.environ.get('HERMES_SERVER_TLS_CERT') else ways:\n try: c.request('GET', '/livez'); sys.exit(c.getresponse().status != 200)\n except (OSError, h.HTTPException): pass\nsys.exit(1)"]

ENTRYPOINT ["python3", "-m", "hermes"]
CMD ["serve"]
