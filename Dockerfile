# Three images from one definition:
#   docker build --target publisher --tag enrollstream-publisher .     (also: consumer, sandbox)
# BASE_IMAGE is any image with Python 3.11 or newer and pip, so that a mirror or a hardened base of your own serves too.
ARG BASE_IMAGE=python:3.11-slim

FROM ${BASE_IMAGE} AS build
COPY requirements/runtime.txt /tmp/runtime.txt
# Exactly the locked files, wheels only: nothing is compiled, and pip itself does not reach the final image's environment.
RUN python3 -m venv --without-pip /opt/venv \
 && python3 -m pip --python /opt/venv/bin/python3 install --no-cache-dir --disable-pip-version-check \
      --require-hashes --only-binary=:all: -r /tmp/runtime.txt
COPY schemas /app/schemas
COPY services /app/services
# The root file system may be read-only at run time, so bytecode is written now.
RUN /opt/venv/bin/python3 -m compileall -q /app

FROM ${BASE_IMAGE} AS runtime
COPY --from=build /opt/venv /opt/venv
COPY --from=build /app /app
WORKDIR /app
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 HOST=0.0.0.0
# A number, not a name: Kubernetes' runAsNonRoot cannot look names up.
USER 10001:10001
STOPSIGNAL SIGTERM
# Liveness only. Whether it may get traffic is /readyz, which an orchestrator asks for itself.
HEALTHCHECK --interval=10s --timeout=4s --start-period=20s --retries=3 CMD ["python", "-c", \
  "import http.client, os; c = http.client.HTTPConnection('127.0.0.1', int(os.environ['PORT']), timeout=3); c.request('GET', os.environ['HEALTH_PATH']); raise SystemExit(c.getresponse().status != 200)"]

FROM runtime AS sandbox
ENV PORT=8082 HEALTH_PATH=/_sandbox/health
EXPOSE 8082
ENTRYPOINT ["python", "-m", "services.sandbox"]

FROM runtime AS consumer
ENV PORT=8081 HEALTH_PATH=/healthz
EXPOSE 8081
ENTRYPOINT ["python", "-m", "services.consumer"]

FROM runtime AS publisher
ENV PORT=8080 HEALTH_PATH=/healthz
EXPOSE 8080
ENTRYPOINT ["python", "-m", "services.publisher"]
