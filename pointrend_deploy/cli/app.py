"""The command line's root, and the arguments its verbs share."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, cast

import typer

from pointrend_deploy.errors import DeployError

if TYPE_CHECKING:
    from pointrend_deploy.verbs.export.options import Output

app = typer.Typer(
    name="pointrend-deploy",
    help="PointRend, from a PyTorch checkpoint to a verified deployable bundle.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

BundlePath = Annotated[Path, typer.Argument(help="The folder that `export --out` wrote.")]
WeightsFile = Annotated[
    Path | None,
    typer.Option(help="Weights of a bundle exported with --no-weights (checked by hash)."),
]

EngineName = Annotated[
    str | None, typer.Option(help="Folder under engines/, where several fit this machine.")
]


def parse_size(text: str) -> tuple[int, int]:
    """``"1024x2048"`` -> (1024, 2048): height, then width."""
    match = re.fullmatch(r"(\d{1,5})x(\d{1,5})", text.strip().lower())
    if not match or not all(map(int, match.groups())):
        raise typer.BadParameter(f"{text!r} is not HEIGHTxWIDTH, such as 1024x2048")
    return int(match[1]), int(match[2])


def parse_outputs(text: str) -> tuple[Output, ...]:
    """``"labels,logits"`` -> ("labels", "logits"); whether they make sense is checked later."""
    return cast("tuple[Output, ...]", tuple(name.strip() for name in text.split(",")))


Precision = Literal["fp32", "fp16", "int8"]


def parse_names(text: str) -> tuple[str, ...]:
    """``"max, mse"`` -> ("max", "mse"); whether they make sense is checked later."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


def say(error: DeployError) -> None:
    """Print an error and its hint on stderr."""
    print(f"error: {error.message}", file=sys.stderr)
    if error.hint:
        print(f"hint: {error.hint}", file=sys.stderr)
