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

on() { # on PROCESSOR ARGUMENT: the digests of a 64-bit Arm processor
  qemu-aarch64 -cpu "$1" -L /usr/aarch64-linux-gnu "$build/arm/digest" "$2"
}

chosen() { # chosen PROCESSOR NAME: it must take this instruction set by itself
  [ "$(on "$1" chosen)" = "$2" ] || { echo "$1 does not choose $2" && exit 1; }
}

for isa in avx2 avx512; do # what this machine has
  status=0
  "$build/here/digest" "$isa" >"$build/$isa" || status=$?
  [ "$status" = 2 ] && continue
  [ "$status" = 0 ] && diff "$build/expected" "$build/$isa" && echo "$isa here: the same bits" || exit 1
done
for isa in plain neon; do
  on max "$isa" | diff "$build/expected" - || exit 1
  echo "$isa on 64-bit Arm: the same bits"
done
chosen max neon
# A processor without dot products; a crash must not pass for a refusal, whose status is 2.
chosen cortex-a53 plain
on cortex-a53 plain | diff "$build/expected" - || exit 1
status=0
on cortex-a53 neon || status=$?
[ "$status" = 2 ] || { echo "neon without dot products: status $status, not 2" && exit 1; }
echo "without dot products: plain, the same bits; neon is refused"
