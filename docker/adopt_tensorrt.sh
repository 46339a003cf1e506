#!/bin/sh
# Copies the system's TensorRT (Python module and shared libraries) into a virtual environment, so that the environment
# can be moved to an image that has none, and so that pip finds tensorrt installed and downloads no other version.
#   docker/adopt_tensorrt.sh /opt/monocoque
set -eu
venv=$1
site=$(echo "$venv"/lib/python3.*/site-packages)

module=$(python3 -c 'import importlib.util as u; s = u.find_spec("tensorrt"); print(s.submodule_search_locations[0] if s else "")')
if [ -z "$module" ]; then
    echo "python3 of this image has no module tensorrt: choose a BUILD_IMAGE with TensorRT's Python bindings" >&2
    exit 1
fi
cp -r "$module" "$site"/
if ! cp -r "${module%/*}"/tensorrt-*.dist-info "$site"/; then
    echo "no tensorrt-*.dist-info beside $module: pip could not tell its version" >&2
    exit 1
fi

# One file per soname. The unversioned names are for linkers, and would be second copies of gigabytes.
mkdir -p "$venv/tensorrt"
ldconfig -p | awk '/lib(nvinfer|nvonnxparser)[a-z0-9_]*\.so\.[0-9]/ { print $NF }' | while read -r library; do
    cp -L "$library" "$venv/tensorrt/"
done
if [ -z "$(ls "$venv/tensorrt")" ]; then
    echo "ldconfig knows no libnvinfer.so: choose a BUILD_IMAGE with TensorRT" >&2
    exit 1
fi
