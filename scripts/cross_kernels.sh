#!/usr/bin/env bash
# The CPU kernels built for 64-bit Arm and run under qemu: they must give the bits that they give here.
# Needs g++-aarch64-linux-gnu and qemu-user. JOBS=1 compiles one file at a time; BUILD=FOLDER keeps what was built.
set -euo pipefail
cd "$(dirname "$0")/.."
build=${BUILD:-$(mktemp -d)}
mkdir -p "$build"

make_for() { # make_for NAME COMPILER PROCESSOR
  cmake -S . -B "$build/$1" -DCMAKE_SYSTEM_NAME=Linux -DCMAKE_SYSTEM_PROCESSOR="$3" -DCMAKE_CXX_COMPILER="$2" \
    >"$build/$1.log" && cmake --build "$build/$1" -j "${JOBS:-2}" >>"$build/$1.log" || { cat "$build/$1.log"; exit 1; }
  "$2" -std=c++17 -O1 -Isrc/qwen3vl/kernels/cpu/csrc scripts/digest_kernels.cpp -o "$build/$1/digest" \
    -L"$build/$1" -lqwen3vl_cpu -Wl,-rpath,"$build/$1"
}

make_for here g++ "$(uname -m)"
make_for arm aarch64-linux-gnu-g++ aarch64
"$build/here/digest" plain >"$build/expected"
for isa in plain neon; do
  qemu-aarch64 -cpu max -L /usr/aarch64-linux-gnu "$build/arm/digest" "$isa" | diff "$build/expected" - || exit 1
  echo "$isa on 64-bit Arm: the same bits"
done
if qemu-aarch64 -cpu cortex-a53 -L /usr/aarch64-linux-gnu "$build/arm/digest" neon; then
  echo "neon was taken on a processor without its dot products" && exit 1
fi
echo "neon is refused where dot products are missing"
