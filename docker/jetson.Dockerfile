# The server with TensorRT on a Jetson Orin with JetPack 6 (L4T r36). Build it on the device, or with buildx for arm64:
#   docker build -f docker/jetson.Dockerfile -t monocoque:jetson .
# The same steps as gpu.Dockerfile on L4T's images: Ubuntu 22.04, Python 3.10, TensorRT 10.3, CUDA 12.6. JetPack 7 uses the
# arm64 server stack, so gpu.Dockerfile. Not run on a Jetson yet: docs/deployment.md.
ARG BUILD_IMAGE=nvcr.io/nvidia/l4t-jetpack:r36.4.0
ARG RUNTIME_IMAGE=nvcr.io/nvidia/l4t-cuda:12.6.11-runtime

FROM ${BUILD_IMAGE} AS build
RUN apt-get update && apt-get install -y --no-install-recommends g++ python3-dev python3-venv
ENV PATH=/usr/local/cuda/bin:$PATH
WORKDIR /src
COPY docker/adopt_tensorrt.sh docker/
RUN python3 -m venv /opt/monocoque && docker/adopt_tensorrt.sh /opt/monocoque
# EXTRAS=video adds PyAV, 104 MB, for cameras that send H.264 or H.265.
ARG EXTRAS
COPY pyproject.toml constraints.txt LICENSE ./
RUN --mount=type=secret,id=pip.conf,target=/etc/pip.conf \
    touch README.md && /opt/monocoque/bin/pip install --no-cache-dir -c constraints.txt ".[tensorrt${EXTRAS:+,$EXTRAS}]" "cuda-bindings<13"
COPY . .
RUN --mount=type=secret,id=pip.conf,target=/etc/pip.conf \
    /opt/monocoque/bin/pip install --no-cache-dir --no-deps --force-reinstall . \
    && docker/trim.sh /opt/monocoque

FROM ${RUNTIME_IMAGE}
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3 \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt /var/log/* \
    && useradd --no-log-init --uid 10001 --no-create-home --shell /usr/sbin/nologin monocoque \
    && usermod -aG video monocoque \
    && install -d -o monocoque /var/cache/monocoque
COPY --from=build /opt/monocoque /opt/monocoque
COPY docker/healthcheck.py /opt/monocoque/
ENV PATH=/opt/monocoque/bin:$PATH \
    LD_LIBRARY_PATH=/opt/monocoque/tensorrt${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH} \
    XDG_CACHE_HOME=/var/cache \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    ORT_DISABLE_TELEMETRY=1 \
    MONOCOQUE_HOST=0.0.0.0 \
    MONOCOQUE_TARGET=jetson-orin
# Its group video, which the runtime finds by this number, opens /dev/nvhost-* and /dev/nvmap.
USER 10001
# Engines compiled for this very device: keep them, or every start compiles again.
VOLUME /var/cache/monocoque
EXPOSE 8001 8002
# A first start compiles the engine for this very module, which takes minutes on an Orin.
HEALTHCHECK --interval=10s --timeout=5s --start-period=900s CMD ["python", "/opt/monocoque/healthcheck.py"]
ENTRYPOINT ["python", "-m", "server"]
CMD ["/bundle"]
