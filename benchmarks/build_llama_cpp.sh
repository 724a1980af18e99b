#!/usr/bin/env bash
# llama.cpp from the sources in llama-cpp-python's sdist, for this machine: build_llama_cpp.sh DIR
# Leaves DIR/build/bin/{llama-bench,llama-mtmd-cli,llama-quantize}, DIR/source and, for its converter, DIR/site.
# Needs cmake, g++ and pip; takes about ten minutes on two cores.
set -euo pipefail
dir=$1
mkdir -p "$dir"
version=0.3.36 # llama.cpp 0c1e570
pip=${PIP:-"$(dirname "$0")/../.venv/bin/python -m pip --disable-pip-version-check --quiet"}
if [ ! -d "$dir/source" ]; then
  $pip download --no-deps --no-binary :all: "llama-cpp-python==$version" -d "$dir"
  tar xzf "$dir/llama_cpp_python-$version.tar.gz" -C "$dir"
  mv "$dir/llama_cpp_python-$version/vendor/llama.cpp" "$dir/source"
fi
$pip install --no-deps --target "$dir/site" gguf sentencepiece
cmake -S "$dir/source" -B "$dir/build" -DCMAKE_BUILD_TYPE=Release -DGGML_NATIVE=ON -DBUILD_SHARED_LIBS=OFF \
  -DLLAMA_CURL=OFF -DLLAMA_OPENSSL=OFF -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_SERVER=OFF \
  -DLLAMA_BUILD_UI=OFF >"$dir/configure.log"
cmake --build "$dir/build" -j "${JOBS:-2}" --target llama-bench llama-mtmd-cli llama-quantize >"$dir/build.log"
