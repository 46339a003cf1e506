# The server with TensorRT on an NVIDIA GPU, x86-64 or an arm64 server. Needs NVIDIA's Container Toolkit to run:
#   docker build -f docker/gpu.Dockerfile -t monocoque:gpu .
# BUILD_IMAGE has TensorRT, its Python module and a CUDA compiler (for PyCUDA, which has no wheels). RUNTIME_IMAGE is the
# same Ubuntu and CUDA without compilers; what TensorRT needs is copied over. Not run on a GPU yet: docs/deployment.md.
ARG BUILD_IMAGE=nvcr.io/nvidia/tensorrt:25.10-py3
ARG RUNTIME_IMAGE=nvcr.io/nvidia/cuda:13.0.1-runtime-ubuntu24.04

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
    touch README.md && /opt/monocoque/bin/pip install --no-cache-dir -c constraints.txt ".[tensorrt${EXTRAS:+,$EXTRAS}]"
COPY . .
RUN --mount=type=secret,id=pip.conf,target=/etc/pip.conf \
    /opt/monocoque/bin/pip install --no-cache-dir --no-deps --force-reinstall . \
    && docker/trim.sh /opt/monocoque

FROM ${RUNTIME_IMAGE}
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3 \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt /var/log/* \
    && useradd --no-log-init --uid 10001 --no-create-home --shell /usr/sbin/nologin monocoque \
    && install -d -o monocoque /var/cache/monocoque
COPY --from=build /opt/monocoque /opt/monocoque
COPY docker/healthcheck.py /opt/monocoque/
ENV PATH=/opt/monocoque/bin:$PATH \
    LD_LIBRARY_PATH=/opt/monocoque/tensorrt${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH} \
    XDG_CACHE_HOME=/var/cache \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    ORT_DISABLE_TELEMETRY=1 \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    MONOCOQUE_HOST=0.0.0.0 \
    MONOCOQUE_TARGET=gpu
USER 10001
# Engines compiled for this very device: keep them, or every start compiles again.
VOLUME /var/cache/monocoque
EXPOSE 8001 8002
# A first start may compile the engine for this very GPU, which takes minutes.
HEALTHCHECK --interval=10s --timeout=5s --start-period=600s CMD ["python", "/opt/monocoque/healthcheck.py"]
ENTRYPOINT ["python", "-m", "server"]
CMD ["/bundle"]
