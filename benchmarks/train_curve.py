"""A small model learns two or three tasks from nothing: held-out accuracy over time, as PNG, SVG and JSON.

    python benchmarks/train_curve.py --minutes 20 --out out/curve
    python benchmarks/train_curve.py --minutes 20 --see 0.4 --tasks count,read_word --size small --out out/curve

For a share of the time (`--see`) the tower learns alone (`qwen3vl train see`), then all of it learns the tasks. The
rate of steps is measured first, so that the run with its schedule (warm-up, stable, decay) lasts as long as asked;
states are saved on the way and evaluated afterwards, so that training time is training time. What is measured on is
the held-out side: fonts, words, layouts and themes that training never shows.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib
import torch

import qwen3vl
from qwen3vl.model.devices import best_device
from qwen3vl.train.evaluation import TaskResult, evaluate
from qwen3vl.train.run import TrainRun, train
from qwen3vl.train.settings import TrainSettings
from qwen3vl.train.sight_run import SightRun, see, sight_settings
from qwen3vl.train.small import make_small
from qwen3vl.train.state import saved_states

matplotlib.use("agg")
from matplotlib import pyplot

CALIBRATION = 12  # steps; the first third warms up and is not counted
SIGHT_TOKENS = 512  # merged tokens to a step of the tower
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00")  # Okabe and Ito's


def main() -> None:
    given = arguments()
    started, out = time.perf_counter(), Path(given.out)
    out.mkdir(parents=True, exist_ok=True)
    new = out / "new"
    if not new.exists():
        for note in make_small(new, given.size, seed=given.seed):
            print("note:", note)
    seen, looking = (see_first(given, new, out / "see"), given.see * given.minutes * 60) if given.see else (new, 0.0)
    steps = steps_for(given, seen, out)
    shutil.rmtree(out / "run", ignore_errors=True)
    run = training(given, seen, out / "run", steps)
    print(f"{steps} steps, a state every {run.settings.save_every}")
    train(run)
    points = [measured(given, new, 0.0), *(measured(given, state, looking) for state in saved_states(run.out))]
    document = {
        "schema_version": 1,
        "tasks": given.tasks.split(","),
        "size": given.size,
        "steps": steps,
        "tokens_per_batch": given.tokens,
        "share_of_seeing": given.see,
        "learning_rate": given.lr,
        "seed": given.seed,
        "side": "heldout",
        "count": given.count,
        "threads": torch.get_num_threads(),
        "device": str(best_device()),
        "points": points,
        "seconds_in_all": round(time.perf_counter() - started, 1),
    }
    (out / "curve.json").write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    draw(document, out)
    if not given.keep:
        shutil.rmtree(run.out / "checkpoints")
    print(f"written: {out / 'curve.json'}, curve.png, curve.svg; the model: {run.out / 'model'}")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--tasks", default="first_color,first_shape,first_count,first_place", help="names behind commas"
    )
    parser.add_argument("--minutes", type=float, default=20.0, help="of training")
    parser.add_argument("--see", type=float, default=0.0, help="share of the time in which the tower learns alone")
    parser.add_argument("--points", type=int, default=10, help="evaluations, beside that before the first step")
    parser.add_argument("--count", type=int, default=200, help="held-out samples of each task")
    parser.add_argument("--size", default="tiny", help="tiny, small or medium")
    parser.add_argument("--tokens", type=int, default=1024, help="a step")
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--workers", type=int, default=0, help="processes that draw the samples")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", action="store_true", help="keep all saved states")
    parser.add_argument("--out", default="out/curve")
    return parser.parse_args()


def training(given: argparse.Namespace, new: Path, out: Path, steps: int) -> TrainRun:
    settings = TrainSettings(
        language_lr=given.lr,
        mergers_lr=given.lr,
        vision_lr=given.lr,
        steps=steps,
        tokens_per_batch=given.tokens,
        schedule="wsd",
        warmup=min(0.1, 200 / steps),
        decay=0.25,
        weight_decay=0.05,
        beta2=0.98,
        seed=given.seed,
        workers=given.workers,
        save_every=max(1, steps // given.points),
        keep=0,
    )
    return TrainRun(data=(f"synthetic:{given.tasks}",), model=str(new), out=out, settings=settings)


def steps_for(given: argparse.Namespace, new: Path, out: Path) -> int:
    """As many as fit into the minutes, by the speed of a few."""
    trial = out / "trial"
    shutil.rmtree(trial, ignore_errors=True)
    run = training(given, new, trial, CALIBRATION)
    clock = StepClock()
    train(replace(run, settings=replace(run.settings, save_every=0)), logs=[clock])
    shutil.rmtree(trial)
    return max(given.points, round(given.minutes * (1 - given.see) * 60 / clock.seconds))


def see_first(given: argparse.Namespace, new: Path, out: Path) -> Path:
    """-> the folder of a model whose tower learnt alone for its share of the time."""
    shutil.rmtree(out, ignore_errors=True)
    clock = StepClock()
    see(sight(given, new, out / "trial", CALIBRATION), logs=[clock])
    steps = max(1, round(given.minutes * given.see * 60 / clock.seconds))
    print(f"the tower: {steps} steps")
    see(sight(given, new, out / "run", steps), logs=[StepClock()])
    return out / "run" / "model"


def sight(given: argparse.Namespace, new: Path, out: Path, steps: int) -> SightRun:
    settings = sight_settings(
        steps=steps, tokens=SIGHT_TOKENS, lr=given.lr, seed=given.seed, workers=given.workers, save_every=0
    )
    return SightRun(model=str(new), out=out, settings=settings)


class StepClock:
    """A log that knows how long a step takes, once warm."""

    def __init__(self) -> None:
        self._seconds: list[float] = []

    @property
    def seconds(self) -> float:
        warm = self._seconds[CALIBRATION // 3 :]
        return sum(warm) / len(warm)

    def step(self, report: Any) -> None:
        self._seconds.append(report.seconds)

    def begin(self, run: Any) -> None:
        pass

    def evaluated(self, progress: Any, values: Any) -> None:
        print("  ".join(f"{name} {value:.3f}" for name, value in values.items()))

    def note(self, text: str) -> None:
        print(text)

    def close(self) -> None:
        pass


def measured(given: argparse.Namespace, state: Path, before: float) -> dict[str, Any]:
    """One point of the curve: what the held-out side says; `before`: seconds in which the tower learnt alone."""
    path = state / "training" / "progress.json"
    progress = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    model = qwen3vl.load(state)
    results = list(evaluate(model, given.tasks.split(","), count=given.count, seed=given.seed))
    model.close()
    point = {key: progress.get(key, 0) for key in ("step", "conversations", "tokens", "seconds")}
    point["seconds"] += before
    print(f"{point['seconds']:7.0f} s  " + "  ".join(f"{r.task} {shown(r)}" for r in results), flush=True)
    return {**point, "tasks": {r.task: r.as_json() for r in results}}


def shown(result: TaskResult) -> str:
    first = result.values[0]
    return f"{first.name} -" if first.value is None else f"{first.name} {first.value:.3f}"


def draw(document: dict[str, Any], out: Path) -> None:
    """Share of right answers, or 1 - error, over minutes, with 95 % intervals."""
    figure, axes = pyplot.subplots(figsize=(7.2, 4.2), dpi=150)
    for task, colour in zip(document["tasks"], COLOURS, strict=False):
        name = next(iter(document["points"][0]["tasks"][task]["metrics"]))
        curve = [point["tasks"][task]["metrics"][name] for point in document["points"]]
        flip = name in ("character_error", "word_error")
        minutes = [point["seconds"] / 60 for point in document["points"]]
        values, low, high = ([1 - m[key] if flip else m[key] for m in curve] for key in ("value", "low", "high"))
        label = (f"{task}: " + (f"1 - {name}" if flip else name)).replace("_", " ")
        axes.plot(minutes, values, color=colour, marker="o", markersize=3.5, label=label)
        axes.fill_between(minutes, low, high, color=colour, alpha=0.15, linewidth=0)
    axes.legend(loc="upper left", frameon=False, fontsize=8)
    axes.set_ylim(0, 1.02)
    axes.set_xlim(0, None)
    axes.set_xlabel("minutes of training")
    axes.set_ylabel(f"held-out side, {document['count']} samples a task")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="0.9")
    figure.tight_layout()
    for ending in ("png", "svg"):
        figure.savefig(out / f"curve.{ending}", bbox_inches="tight")
    pyplot.close(figure)


if __name__ == "__main__":
    main()
