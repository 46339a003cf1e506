#!/bin/sh
# Installs the Debian packages that some checks need, where that is possible, and says what is left out elsewhere.
set -eu

missing=""
for pair in prometheus:prometheus chromium:chromium buildah:buildah debootstrap:debootstrap node:nodejs npm:npm \
    c++:g++ cmake:cmake protoc:protobuf-compiler grpc_cpp_plugin:protobuf-compiler-grpc; do
    command -v "${pair%%:*}" >/dev/null 2>&1 || missing="$missing ${pair##*:}"
done
# libraries that the C++ client is built with
[ -e /usr/include/grpcpp/grpcpp.h ] || missing="$missing libgrpc++-dev libprotobuf-dev"
[ -n "$missing" ] || exit 0

if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
    echo "── installing$missing ──────────────────────────────────"
    # RUNLEVEL=1: the packages' services are not started, only their programs are used.
    export DEBIAN_FRONTEND=noninteractive RUNLEVEL=1
    if apt-get update -qq && apt-get install -y -qq --no-install-recommends $missing >/dev/null; then
        exit 0
    fi
fi
echo "Not installed:$missing. The checks that need them are skipped, and say so."
