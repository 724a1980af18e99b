#!/usr/bin/env bash
# All comparisons with other libraries, one after the other, on a machine that does nothing else: peers.sh DIR [EDITION]
# DIR needs 25 GB for the 2B (50 GB for the 4B). On two cores with AVX2 the 2B takes about an hour and a half: building
# llama.cpp 10 minutes, files 8, transformers in float32 8 and in bfloat16 (emulated there) 20, llama.cpp 12 each, OpenVINO 8.
set -euo pipefail
dir=$1 edition=${2:-2b}
cd "$(dirname "$0")/.."
python=.venv/bin/python
common=(--dir "$dir/models" --edition "$edition")
mkdir -p "$dir/models" "$dir/results"
[ -x "$dir/llama/build/bin/llama-bench" ] || bash benchmarks/build_llama_cpp.sh "$dir/llama"
[ -d "$dir/openvino" ] || $python -m pip install --quiet --no-deps --target "$dir/openvino" openvino openvino-genai openvino-tokenizers

run() { # run NAME SCRIPT ARGUMENTS: the table on the screen, the same as JSON in results/
  echo "== $1"
  $python "benchmarks/$2" "${common[@]}" "${@:3}" --json | tee "$dir/results/$edition-$1.json"
}

for weights in int4 int8; do
  model="$dir/models/$edition-$weights"
  [ -d "$model" ] || { [ -d "$dir/models/$edition" ] ||
    $python -m qwen3vl random-checkpoint --edition "$edition" --out "$dir/models/$edition"; $python -m qwen3vl quantize "$dir/models/$edition" --to "$weights" --out "$model"; }
  $python -m qwen3vl bench --model "$model" --json | tee "$dir/results/$edition-bench-$weights.json"
done
run transformers-float32 peers_transformers.py --ours int4 int8 --theirs float32
run transformers-bfloat16 peers_transformers.py --ours int4 --theirs bfloat16 --rounds 1
run llama-q4_0 peers_llama_cpp.py --llama "$dir/llama" --ours int4 --theirs q4_0
run llama-q8_0 peers_llama_cpp.py --llama "$dir/llama" --ours int8 --theirs q8_0
run openvino-q4_0 peers_openvino.py --llama "$dir/llama" --openvino "$dir/openvino" --ours int4
