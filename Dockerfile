# The image of every role: coordinator, worker, view and the command line. Build: docker build -t kafka-orchestrator .
FROM python:3.13-slim AS build
WORKDIR /src
COPY . .
RUN pip wheel --no-cache-dir --wheel-dir /wheels .

FROM python:3.13-slim
# The wheels that were just built are all that pip sees.
# hadolint ignore=DL3013
RUN --mount=type=bind,from=build,source=/wheels,target=/wheels \
    pip install --no-cache-dir --no-index --find-links /wheels kafka-orchestrator \
    && useradd --uid 10001 --create-home orchestrator \
    && install --directory --owner orchestrator /app /data
# Sets of workflow code must iterate in the same order in every process; logs must not wait in a buffer.
ENV PYTHONHASHSEED=0 PYTHONUNBUFFERED=1
USER 10001
# Modules are imported from here: mount or copy your own.
WORKDIR /app
# What a coordinator or a view keeps on disk. It can always be made again from Kafka.
VOLUME /data
ENTRYPOINT ["orchestrator"]
CMD ["--help"]
