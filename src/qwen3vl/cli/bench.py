"""`qwen3vl bench`: how fast a model is here, and how much of the machine that is."""

from __future__ import annotations

import json
import platform
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Annotated, Any

from typer import Option

from qwen3vl.cli.options import ModelOptions, command
from qwen3vl.cli.waiting import Waiting
from qwen3vl.errors import InvalidParams
from qwen3vl.model.editions import EDITIONS
from qwen3vl.settings import check_integer
from qwen3vl.types import SCHEMA_VERSION

if TYPE_CHECKING:
    from qwen3vl.bench.measure import Figure, Measured
    from qwen3vl.kernels.cpu.probe import Peaks
    from qwen3vl.vlm import VLM


@dataclass(frozen=True, slots=True)
class RandomOptions:
    """Random weights instead of a checkpoint."""

    random: Annotated[bool, Option("--random", help="Random weights in an edition's shapes: no download.")] = False
    edition: Annotated[str | None, Option(help=f"With --random: {', '.join(EDITIONS)} [default: 2b].")] = None
    text_layers: Annotated[int | None, Option(help="With --random: fewer decoder layers.")] = None
    vision_layers: Annotated[int | None, Option(help="With --random: fewer vision blocks.")] = None
    shrink: Annotated[bool, Option("--shrink", help="With --random: small in every width, to try the command.")] = False

    def __post_init__(self) -> None:
        for name in ("edition", "text_layers", "vision_layers", "shrink"):
            if getattr(self, name) and not self.random:
                raise InvalidParams(f"--{name.replace('_', '-')} needs --random")


@dataclass(frozen=True, slots=True)
class PlanOptions:
    """What is measured."""

    prompt: Annotated[int, Option(help="Tokens of the prompt that is read and continued.")] = 512
    steps: Annotated[int, Option(help="Tokens that are written behind it.")] = 32
    size: Annotated[str, Option(metavar="WxH", help="Of the picture.")] = "1024x768"
    rounds: Annotated[int, Option(help="The best of so many.")] = 3
    threads: Annotated[int | None, Option(help="[default: the cores this process may use]")] = None

    def __post_init__(self) -> None:
        for name in ("prompt", "steps", "rounds", "threads"):
            check_integer(f"--{name}", getattr(self, name), minimum=1)
        _ = self.picture

    @property
    def picture(self) -> tuple[int, int]:
        width, x, height = self.size.partition("x")
        if not (x and width.isdecimal() and height.isdecimal() and int(width) >= 32 and int(height) >= 32):
            raise InvalidParams(f"--size {self.size!r}: write width x height in pixels, at least 32x32: 1024x768")
        return int(width), int(height)


@command
def bench(
    model: ModelOptions,
    random: RandomOptions,
    plan: PlanOptions,
    as_json: Annotated[bool, Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Measure reading, writing and looking, each with its share of what this machine can do.

    \b
        qwen3vl bench --model my-model --quantize int4
        qwen3vl bench --random --edition 4b --quantize int4

    The machine's peaks (bytes read from memory, operations in float32 and on bytes) are measured in the same run.
    Close other programs first. Without --random, --model is loaded as everywhere.
    """
    if random.random:
        _check_random(model)
    from qwen3vl.bench.measure import Plan, measure

    _set_threads(plan.threads)
    what = Plan(plan.prompt, plan.steps, plan.picture, plan.rounds, model.kv_dtype)  # type: ignore[arg-type]
    with Waiting("Preparing") as bar:
        handle = _handle(model, random, bar)
        try:
            measured = measure(handle, what, bar.stage)
            document = _document(handle, measured)
        finally:
            handle.close()
    print(json.dumps(document, indent=2)) if as_json else _show(document, measured)


def _check_random(model: ModelOptions) -> None:
    for field in fields(ModelOptions):
        if field.name not in ("dtype", "quantize", "kv_dtype") and getattr(model, field.name) != field.default:
            raise InvalidParams(f"--random excludes --{field.name.replace('_', '-')}")


def _handle(model: ModelOptions, random: RandomOptions, bar: Waiting) -> VLM:
    if not random.random:
        return model.load(lambda done, of: bar.stage("Loading weights", done, of))
    from qwen3vl.bench.handle import random_handle
    from qwen3vl.engine.settings import EngineSettings
    from qwen3vl.model.editions import edition

    name = random.edition or "2b"
    config = edition(name, text_layers=random.text_layers, vision_layers=random.vision_layers, shrink=random.shrink)
    return random_handle(
        config,
        f"{name} with random weights",
        dtype=model.dtype,
        quantize=model.quantize,  # type: ignore[arg-type]
        settings=EngineSettings(kv_dtype=model.kv_dtype),  # type: ignore[arg-type]
        progress=lambda done, of: bar.stage("Drawing weights", done, of),
    )


def _set_threads(count: int | None) -> None:
    if count is None:
        return
    import torch

    from qwen3vl.kernels.cpu.library import library

    torch.set_num_threads(count)
    if (kernels := library()) is not None:
        kernels.qwen3vl_set_threads(count)


def _document(handle: VLM, measured: Measured) -> dict[str, Any]:
    from qwen3vl.bench.effort import describe, weights_of

    peaks = measured.peaks
    return {
        "schema_version": SCHEMA_VERSION,
        "model": handle.name,
        "layers": describe(handle.config),
        "weights": weights_of(handle.model),
        "machine": {"cpu": _cpu(), "threads": peaks.threads, "kernels": peaks.isa},
        "peaks": {
            "read_gb_per_s": _short(peaks.read / 1e9),
            "float32_gflop_per_s": _short(peaks.floats / 1e9),
            "int8_gop_per_s": None if peaks.integers is None else _short(peaks.integers / 1e9),
        },
        "prefill": _figure(measured.prefill, peaks),
        "decode": _figure(measured.decode, peaks),
        "vision": _figure(measured.vision, peaks),
        "first_token": _figure(measured.first_token, peaks) | {"parts_s": asdict(measured.timings)},
        "peak_memory_bytes": measured.peak_bytes,
    }


def _figure(figure: Figure, peaks: Peaks) -> dict[str, Any]:
    return {
        "seconds": _short(figure.seconds),
        figure.unit: figure.units,
        f"{figure.unit}_per_s": _short(figure.rate),
        "share_of_peak": _short(figure.share(peaks)),
        "gop": _short((figure.effort.floats + figure.effort.integers) / 1e9),
        "gb_read": _short(figure.effort.bytes_read / 1e9),
    }


def _show(document: dict[str, Any], measured: Measured) -> None:
    peaks, machine, timings = document["peaks"], document["machine"], measured.timings
    print(f"{document['model']}: {document['layers']}, {document['weights']} weights")
    print(f"{machine['cpu']}, {machine['threads']} threads, kernels: {machine['kernels']}")
    whole = "" if peaks["int8_gop_per_s"] is None else f", {peaks['int8_gop_per_s']:g} GOP/s on bytes"
    print(f"peaks: {peaks['read_gb_per_s']:g} GB/s read, {peaks['float32_gflop_per_s']:g} GFLOP/s in float32{whole}\n")
    print(f"{'':12}{'time':>10}  {'rate':>18}  of this machine's peak")
    for figure in measured.figures:
        time = f"{figure.seconds:.2f} s" if figure.seconds >= 1 else f"{1e3 * figure.seconds:.1f} ms"
        rate = "" if figure is measured.first_token else f"{figure.rate:,.1f} {figure.unit}/s"
        print(f"{figure.name:12}{time:>10}  {rate:>18}  {figure.share(measured.peaks):.0%}")
    parts = ", ".join(f"{name} {getattr(timings, name):.2f} s" for name in ("prepare", "vision", "prefill"))
    print(f"\nfirst token: {parts}")
    if measured.peak_bytes:
        print(f"peak memory: {measured.peak_bytes / 1e9:.2f} GB")


def _short(value: float) -> float:
    return float(f"{value:.4g}")


def _cpu() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            return next(line.partition(":")[2].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
