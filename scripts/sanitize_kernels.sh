#!/usr/bin/env bash
# The CPU kernels under the compiler's sanitizers; needs g++ and, for the tests, .venv (make test).
#   sanitize_kernels.sh [PYTEST ARGUMENTS]   their tests with AddressSanitizer and UndefinedBehaviorSanitizer: torch's
#                                            tensors come from the same allocator, so what goes beyond one is found
#   sanitize_kernels.sh threads              products from several threads with ThreadSanitizer
# JOBS=1 compiles one file at a time; BUILD=FOLDER keeps what was built; PYTHON is another than .venv's.
set -euo pipefail
cd "$(dirname "$0")/.."
build=${BUILD:-$(mktemp -d)}
quick="-fno-var-tracking -fno-var-tracking-assignments"  # debuggers know fewer variables; minutes less for templates
mkdir -p "$build"
python=${PYTHON:-.venv/bin/python}

compile() { # compile FLAGS
  cmake -S . -B "$build" -DCMAKE_BUILD_TYPE=None -DCMAKE_CXX_COMPILER=g++ -DCMAKE_CXX_FLAGS="$1" >"$build/log" &&
    cmake --build "$build" -j "${JOBS:-2}" >>"$build/log" || {
    cat "$build/log"
    exit 1
  }
}

if [ "${1:-}" = threads ]; then
  compile "-fsanitize=thread -g -O1 $quick"
  g++ -std=c++17 -fsanitize=thread -g -O1 -Isrc/qwen3vl/kernels/cpu/csrc scripts/race_kernels.cpp \
    -o "$build/race" -L"$build" -lqwen3vl_cpu -Wl,-rpath,"$build"
  TSAN_OPTIONS=halt_on_error=1 exec "$build/race"
fi
compile "-fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer -g -O1 $quick"
if [ $# -eq 0 ]; then
  set -- tests/unit/test_cpu_*.py
fi
# Python and torch never free all they have: leaks are not looked for. The runtimes must be loaded first.
export QWEN3VL_SANITIZED=$build/libqwen3vl_cpu.so
LD_PRELOAD=$(for name in asan ubsan stdc++; do g++ -print-file-name="lib$name.so"; done | paste -sd ' ')
export LD_PRELOAD ASAN_OPTIONS=detect_leaks=0:abort_on_error=1 UBSAN_OPTIONS=print_stacktrace=1
exec "$python" -m pytest -q -p tests.sanitized -p no:cacheprovider "$@"
