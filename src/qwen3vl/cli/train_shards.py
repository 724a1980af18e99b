"""`qwen3vl train shards`: generated samples written ahead."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, cast

from typer import Argument, Option

from qwen3vl.cli.options import command
from qwen3vl.cli.waiting import Waiting
from qwen3vl.settings import check_choice, check_integer
from qwen3vl.types import SCHEMA_VERSION


@command
def shards(
    tasks: Annotated[str, Argument(metavar="TASKS", help="all, or names with weights: count,locate=3.")],
    out: Annotated[Path, Option(help="Folder; one that was begun is gone on with.")],
    count: Annotated[int, Option(help="Samples.")],
    side: Annotated[str, Option(help="train, or heldout: what is never trained on.")] = "train",
    seed: Annotated[int, Option(help="Same seed, same samples.")] = 0,
    workers: Annotated[int, Option(help="Processes that draw; the samples are the same.")] = 0,
    per_shard: Annotated[int, Option(help="Samples in a file.")] = 1000,
    as_json: Annotated[bool, Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Draw samples ahead, so that training does not wait for them: qwen3vl train run shards:OUT ...

    Exit codes: 0 done, 1 the work failed, 2 wrong usage.
    """
    check_choice("--side", side, ("train", "heldout"))
    for name, value, least in (("--count", count, 1), ("--per-shard", per_shard, 1), ("--workers", workers, 0)):
        check_integer(name, value, minimum=least)
    from qwen3vl.train.data_specs import parse_mix
    from qwen3vl.train.synthetic.sample import Side
    from qwen3vl.train.synthetic.shards import write_shards
    from qwen3vl.train.synthetic.stream import Mix

    mix = Mix.of(parse_mix(tasks), cast(Side, side), seed)
    with Waiting("Drawing samples") as bar:
        bar.stage("Drawing samples", 0, count)
        write_shards(
            out,
            mix,
            count,
            per_shard=per_shard,
            workers=workers,
            progress=lambda done, total: bar.stage("Drawing samples", done, total),
        )
    if as_json:
        print(json.dumps({"schema_version": SCHEMA_VERSION, "folder": str(out), "samples": count}, indent=2))
        return
    print(f"{out}: {count:,} samples; train with: qwen3vl train run shards:{out} ...")
