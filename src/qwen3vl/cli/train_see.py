"""`qwen3vl train see`: the tower of a new model learns to see before the model learns to answer."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from typer import Argument, Exit, Option

from qwen3vl.cli.failures import INTERRUPTED
from qwen3vl.cli.options import command
from qwen3vl.errors import InvalidParams
from qwen3vl.types import SCHEMA_VERSION


@command
def see(
    out: Annotated[Path, Argument(metavar="OUT", help="A new or empty folder for states, logs and the result.")],
    model: Annotated[str | None, Option(help="Folder, or name on the hub.")] = None,
    steps: Annotated[int | None, Option(help="Optimizer steps.")] = None,
    tokens: Annotated[int, Option(help="Merged tokens (32 x 32 pixels each) of a step's pictures.")] = 256,
    lr: Annotated[float, Option(help="Highest learning rate, of tower and mergers.")] = 3e-3,
    limit: Annotated[
        int | None, Option(help="Draw the first so many pictures only, and show them again and again [no limit].")
    ] = None,
    evaluate_every: Annotated[int, Option(help="Steps; 0: at the end only.")] = 0,
    evaluate_on: Annotated[int, Option(help="Held-out pictures.")] = 256,
    save_every: Annotated[int, Option(help="Steps; 0: at the end only.")] = 1000,
    workers: Annotated[int, Option(help="Processes that draw the pictures; 0: this one.")] = 0,
    precision: Annotated[str, Option(help="auto (bfloat16 on CUDA, else float32), float32 or bfloat16.")] = "auto",
    seed: Annotated[int, Option(help="Of the pictures.")] = 0,
    device: Annotated[str, Option(help="auto (CUDA where there is one), cpu, cuda, ...")] = "auto",
    resume: Annotated[bool, Option("--resume", help="Go on from the last saved state in OUT.")] = False,
    as_json: Annotated[bool, Option("--json", help="Print one JSON document at the end.")] = False,
) -> None:
    """Teach the vision tower of a new model to see, before the model learns to answer.

    \b
        qwen3vl train new my-model --size tiny
        qwen3vl train see seen --model my-model --steps 4000
        qwen3vl train run synthetic:all --model seen/model --out run --lr 1e-3 --steps 20000

    Lines of text and scenes of things are drawn, and for every 32 x 32 pixels the tower is told what lies there: which
    characters, which things, in which colours. Models learn to answer much faster afterwards. Only vision tower and
    main merger train; a released model needs none of this. OUT/model is the result; Ctrl-C saves.
    Exit codes: 0 done, 1 the work failed, 2 wrong usage, 130 stopped by Ctrl-C.
    """
    from qwen3vl.train.logs import TerminalLog
    from qwen3vl.train.sight_run import SightRun, sight_settings
    from qwen3vl.train.sight_run import see as train

    if resume:
        if model is not None or steps is not None:
            raise InvalidParams("--resume takes everything from OUT: leave --model and --steps out")
        run = SightRun.of_folder(out)
    else:
        if model is None or steps is None:
            raise InvalidParams("give --model and --steps")
        settings = sight_settings(
            steps=steps,
            tokens=tokens,
            lr=lr,
            precision=precision,
            seed=seed,
            workers=workers,
            evaluate_every=evaluate_every,
            save_every=save_every,
        )
        run = SightRun(model=model, out=out, settings=settings, limit=limit, evaluate_on=evaluate_on, device=device)
    progress, finished = train(run, go_on=resume, logs=[TerminalLog()])
    if as_json:
        document = {"schema_version": SCHEMA_VERSION, "finished": finished, "out": str(out), **asdict(progress)}
        print(json.dumps(document, indent=2))
    elif finished:
        print(f"{out / 'model'}: done in {progress.step} steps, {progress.seconds:,.0f} s")
    else:
        print(f"{out}: saved behind step {progress.step}; go on with: qwen3vl train see {out} --resume")
    if not finished:
        raise Exit(INTERRUPTED)
