# The server on a CPU, x86-64 or arm64:
#   docker build -f docker/cpu.Dockerfile -t monocoque:cpu .
# Any Debian or Ubuntu whose Python is 3.10 or newer serves as BASE_IMAGE, a debootstrapped one too (docker/try_image.py).
# A private package index goes in as a secret: --secret id=pip.conf,src=$HOME/.config/pip/pip.conf
ARG BASE_IMAGE=debian:trixie-slim

FROM ${BASE_IMAGE} AS base
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3 \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt /var/log/*

FROM base AS build
RUN apt-get update && apt-get install -y --no-install-recommends python3-venv
WORKDIR /src
# Dependencies have a layer of their own: the code changes more often.
# EXTRAS=video adds PyAV, 104 MB, for cameras that send H.264 or H.265.
ARG EXTRAS
COPY pyproject.toml constraints.txt LICENSE ./
RUN --mount=type=secret,id=pip.conf,target=/etc/pip.conf \
    python3 -m venv /opt/monocoque \
    && touch README.md \
    && /opt/monocoque/bin/pip install --no-cache-dir -c constraints.txt ".${EXTRAS:+[$EXTRAS]}"
COPY . .
RUN --mount=type=secret,id=pip.conf,target=/etc/pip.conf \
    /opt/monocoque/bin/pip install --no-cache-dir --no-deps --force-reinstall . \
    && docker/trim.sh /opt/monocoque

FROM base
RUN useradd --no-log-init --uid 10001 --no-create-home --shell /usr/sbin/nologin monocoque \
    && install -d -o monocoque /var/cache/monocoque
COPY --from=build /opt/monocoque /opt/monocoque
COPY docker/healthcheck.py /opt/monocoque/
# ONNX Runtime 1.29 and newer reports usage to its maker unless it is told not to.
ENV PATH=/opt/monocoque/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    ORT_DISABLE_TELEMETRY=1 \
    MONOCOQUE_HOST=0.0.0.0
USER 10001
EXPOSE 8001 8002
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s CMD ["python", "/opt/monocoque/healthcheck.py"]
ENTRYPOINT ["python", "-m", "server"]
CMD ["/bundle"]
