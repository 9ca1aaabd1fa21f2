"""Options that ``lietoolkit plan`` and ``lietoolkit train`` share, each declared once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Objective = Annotated[str, typer.Option(help="lm, sft or dpo")]
Sources = Annotated[
    Path | None, typer.Option(help="a folder: each data file or text folder in it is a source")
]
Targets = Annotated[
    list[str] | None, typer.Option(help="FILE, or NAME=FILE[:WEIGHT] several times")
]
Split = Annotated[
    list[str] | None, typer.Option(help="NAME of a source to give in two halves, if that is better")
]
Constraints = Annotated[list[str] | None, typer.Option(help="'a before b', 'a first' or 'a last'")]
OptimizerName = Annotated[str, typer.Option(help="sgd, momentum or adamw")]
Planner = Annotated[str, typer.Option(help="auto, tournament, search or from-end")]
Budget = Annotated[float, typer.Option(help="training runs that trying orders may cost")]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda")]

# What these mean where ``train`` knows the option by TRL's name as well.
MODEL = "course, smollm2-135m, a folder or a hub name"
SCHEDULE = "constant, linear or cosine"
BATCH_SIZE = "rows in a batch"
MAX_LENGTH = "context in tokens"
TRUST_REMOTE_CODE = "let the model run its own code"
