"""This package against OpenVINO GenAI, text only: its GGUF reader takes Qwen3, not Qwen3-VL.

    pip install --no-deps --target OPENVINO openvino openvino-genai openvino-tokenizers       once
    bash benchmarks/build_llama_cpp.sh LLAMA                                                  once
    python benchmarks/peers_openvino.py --dir DIR --llama LLAMA --openvino OPENVINO
    python benchmarks/peers_openvino.py ... --text-layers 4 --vision-layers 4 --rounds 1      to try it

The decoder of the random checkpoint is written as a Qwen3 (the same matrices; positions are not MRoPE's), converted and
quantised by llama.cpp's tools, and read by OpenVINO, which takes seconds to minutes that are not counted.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import peers_llama_cpp
import torch
from peers_setup import Figures, checkpoint, compare, ours, parser, picture_file, watched
from safetensors.torch import save_file

from qwen3vl.config import ModelConfig
from qwen3vl.model.checkpoint import find_tensors
from qwen3vl.model.safetensors_file import read_into


def text_checkpoint(folder: Path) -> Path:
    """The decoder as a Qwen3ForCausalLM."""
    out = folder.with_name(f"{folder.name}-text")
    if (out / "config.json").exists():
        return out
    out.mkdir()
    text, tied = ModelConfig.from_folder(folder).text, ModelConfig.from_folder(folder).tie_word_embeddings
    tensors = {}
    for name, stored in find_tensors(folder).items():
        if name.startswith("model.language_model.") or name == "lm_head.weight":
            tensor = torch.empty(stored.shape, dtype=stored.dtype)
            read_into(stored, tensor)
            tensors[name.replace("language_model.", "")] = tensor
    save_file(tensors, out / "model.safetensors", metadata={"format": "pt"})
    for path in folder.glob("*token*"):
        shutil.copy(path, out)
    for name in ("merges.txt", "vocab.json"):
        if (folder / name).exists():
            shutil.copy(folder / name, out)
    config = {
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        "rope_theta": text.rope.theta,
        "tie_word_embeddings": tied,
        "hidden_act": "silu",
        "attention_bias": False,
        "torch_dtype": "bfloat16",
    }
    same = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
    for field in (*same, "num_key_value_heads", "head_dim", "rms_norm_eps", "max_position_embeddings"):
        config[field] = getattr(text, field)
    (out / "config.json").write_text(json.dumps(config, indent=2))
    return out


def gguf(args: argparse.Namespace, folder: Path, kind: str) -> Path:
    whole, made = (folder.with_name(f"{folder.name}-{name}.gguf") for name in ("f16", kind))
    if not made.exists():
        if not whole.exists():
            peers_llama_cpp.convert(args, folder, whole, "f16")
        tool = args.llama / "build/bin/llama-quantize"
        subprocess.run([tool, "--pure", whole, made, kind, str(args.threads)], check=True, stdout=sys.stderr)
    return made


def theirs(args: argparse.Namespace, path: Path) -> Callable[[], Figures]:
    words = [sys.executable, __file__, "--dir", args.dir, "--worker", path, "--openvino", args.openvino]
    words += ["--threads", args.threads, "--prompt", args.prompt, "--steps", args.steps, "--llama", args.llama]

    def run() -> Figures:
        out, peak = watched([str(word) for word in words])
        return {**json.loads(out.splitlines()[-1]), "peak GB": peak / 1e9}

    return run


def work(args: argparse.Namespace) -> Figures:
    sys.path.insert(0, str(args.openvino))
    os.environ["OMP_NUM_THREADS"] = str(args.threads)
    import numpy as np
    import openvino
    import openvino_genai

    pipe = openvino_genai.LLMPipeline(str(args.worker), "CPU", INFERENCE_NUM_THREADS=args.threads)
    other, prompt = (  # it keeps prefixes: the first prompt must not be the measured one
        openvino_genai.TokenizedInputs(openvino.Tensor(ids), openvino.Tensor(np.ones_like(ids)))
        for ids in np.random.default_rng(0).integers(0, 100_000, (2, 1, args.prompt))
    )
    config = pipe.get_generation_config()
    config.eos_token_id, config.stop_token_ids = 151645, {151645}  # it takes -1 from the file, and then refuses it
    config.ignore_eos, config.do_sample, config.max_new_tokens = True, False, 2
    pipe.generate(other, config)  # compiles
    config.max_new_tokens = args.steps
    metrics = pipe.generate(prompt, config).perf_metrics
    first, each = metrics.get_ttft().mean / 1e3, metrics.get_tpot().mean / 1e3
    return {"prefill tok/s": args.prompt / first, "decode tok/s": 1 / each}


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--llama", type=Path, required=True, help="the folder of build_llama_cpp.sh")
    options.add_argument("--openvino", type=Path, required=True, help="where its packages were installed")
    options.add_argument("--theirs", nargs="+", default=["q4_0"])
    options.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    args = options.parse_args()
    if args.worker:
        print(json.dumps(work(args)))
        return
    folder = checkpoint(args)
    picture_file(args)
    sides = {f"ours {weights}": ours(args, folder, weights) for weights in args.ours}
    text = text_checkpoint(folder)
    sides |= {f"OpenVINO {kind}": theirs(args, gguf(args, text, kind)) for kind in args.theirs}
    compare(args, sides)


if __name__ == "__main__":
    main()
