"""`qwen3vl train small`: the recipe of the small model that comes with the package."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Argument, Exit, Option

from qwen3vl.cli.failures import INTERRUPTED
from qwen3vl.cli.options import command
from qwen3vl.cli.output import tell
from qwen3vl.cli.waiting import Waiting


@command
def small(
    out: Annotated[Path, Argument(metavar="OUT", help="A folder for all stages; an earlier call's is gone on with.")],
    scale: Annotated[float, Option(help="Multiplies the steps of every stage that has not begun.", min=0.0)] = 1.0,
    workers: Annotated[int, Option(help="Processes that draw the pictures; 0: this one.")] = 1,
    device: Annotated[str, Option(help="auto (CUDA where there is one), cpu, cuda, ...")] = "auto",
    export: Annotated[
        bool, Option("--export", help="Only write the newest weights of a call that runs or was stopped as OUT/model.")
    ] = False,
) -> None:
    """Train the small model that comes with the package, from nothing, in stages.

    \b
        qwen3vl train small out/small-model
        qwen3vl eval synthetic --model out/small-model/model

    First a tokenizer, then the tower learns to see, then the whole model to answer, easy questions first. Call it again
    after Ctrl-C, a crash or a power cut: it goes on exactly. The result is OUT/model, in bfloat16. On CPUs a process a
    core is fastest: torchrun --nproc-per-node 2 --no-python qwen3vl train small OUT.
    Exit codes: 0 done, 1 the work failed, 2 wrong usage, 130 stopped by Ctrl-C.
    """
    from qwen3vl.model.devices import best_device, parse_device
    from qwen3vl.train import recipe
    from qwen3vl.train.distributed import joined
    from qwen3vl.train.logs import TerminalLog

    if export:
        print(f"{out / 'model'}: from {recipe.export(out)}")
        return
    with joined(best_device() if device == "auto" else parse_device(device)) as ranks:
        means = recipe.Means(scale=scale, workers=workers, device=device, logs=[TerminalLog()], ranks=ranks)
        if ranks.is_main and not (out / "new" / "model.safetensors").exists():
            with Waiting("Drawing texts") as bar:
                recipe.begin(out, bar.stage)
        for stage in recipe.STAGES:
            if ranks.is_main:
                tell(f"stage {stage.name}")
            if not recipe.through(out, stage, means):
                if ranks.is_main:
                    print(f"{out}: stopped; the same command goes on, --export writes what there is")
                raise Exit(INTERRUPTED)
        if ranks.is_main:
            recipe.export(out)
            print(f"{out / 'model'}: done")
