#!/bin/sh
# Removes from an environment what a server never reads: its installer, tests, headers, and the offline half of libraries.
#   docker/trim.sh /opt/monocoque
set -eu
site=$(echo "$1"/lib/python3.*/site-packages)

"$1/bin/pip" uninstall --yes pip
rm -rf "$site"/setuptools* "$site"/pkg_resources
find "$site/numpy" -type d -name tests -prune -exec rm -rf {} +
rm -rf "$site/numpy/_core/include" "$site/numpy/f2py"
rm -rf "$site/onnxruntime/transformers" "$site/onnxruntime/quantization" "$site/onnxruntime/tools"
