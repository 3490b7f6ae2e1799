"""The application object, and the arguments that several verbs share.

Help is plain text without boxes: in its boxes typer 0.29 shows the type ``<bool>`` beside every
flag and breaks words where a column is narrow.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer
from typer.core import TyperCommand

from pointrend_deploy.cli.usage import refuse_repeated
from pointrend_deploy.errors import DeployError, UsageError

if TYPE_CHECKING:
    from pointrend_deploy.graph.options import Output

app = typer.Typer(
    name="pointrend-deploy",
    help="Take PointRend models from a PyTorch checkpoint to a verified, deployable bundle.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def option(
    text: str,
    metavar: str | None = None,
    default: str | None = None,
    min: float | None = None,
    max: float | None = None,
) -> Any:
    """Declare an option with a value.

    Args:
        text: help text.
        metavar: what help shows for the value; None for the choices of a Literal.
        default: what help shows as the default; None for the default itself.
        min: least value of a number.
        max: largest value of a number.
    """
    shown = default or True
    return typer.Option(metavar=metavar, help=text, show_default=shown, min=min, max=max)


def flag(name: str, text: str) -> Any:
    """Declare a flag, such as ``--force``, which has no value."""
    return typer.Option(name, help=text)


class Verb(TyperCommand):
    """A command whose help shows the metavar of an option, such as ``--batch N``.

    typer 0.29 shows the Python type instead (``<int range>``, ``<list[str]>``). Of arguments, only
    paths may be given several times; they show ``<path>``.
    """

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        for param in self.params:
            if param.param_type_name == "option" and param.metavar is not None:
                vars(param)["display_type"] = lambda ctx, shown=param.metavar: shown
            elif param.param_type_name == "argument" and param.nargs != 1:
                vars(param)["display_type"] = lambda ctx: "<path>"

    def parse_args(self, ctx: Any, args: list[str]) -> Any:
        """Parse the arguments; an option with one value is refused where it is given twice."""
        refuse_repeated(self.params, args)
        return super().parse_args(ctx, args)


BundlePath = Annotated[Path, typer.Argument(help="Bundle folder, as written by `export --out`.")]
WeightsFile = Annotated[
    Path | None,
    option(
        "Checkpoint for PyTorch, for a bundle exported with --no-weights. Its SHA-256 must "
        "match the bundle's record.",
        metavar="FILE",
        default="weights.safetensors in the bundle",
    ),
]
EngineName = Annotated[
    str | None,
    option(
        "With --runner tensorrt or auto: name of the engine's folder in BUNDLE/engines.",
        metavar="NAME",
        default="one that fits this machine",
    ),
]


def parse_size(text: str) -> tuple[int, int]:
    """Read a size in pixels, height first: ``1024x2048``, ``1024X2048`` or ``1024,2048``.

    One number alone is a square: ``1024`` -> (1024, 1024). Whether a size is too large for an
    export is checked there.

    Raises:
        UsageError: the text has another form, or a side of 0.
    """
    match = re.fullmatch(r"(\d{1,9})(?:\s*[xX,]\s*(\d{1,9}))?", text.strip())
    sides = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    if not all(sides):
        raise UsageError(
            f"--size {text} is not HEIGHTxWIDTH in pixels",
            "such as --size 1024x2048, or --size 1024 for 1024x1024",
        )
    return sides


def parse_outputs(text: str) -> tuple[Output, ...]:
    """Split ``"labels,logits"`` into ("labels", "logits"); ExportOptions checks the names."""
    return cast("tuple[Output, ...]", tuple(name.strip() for name in text.split(",")))


def parse_names(text: str) -> tuple[str, ...]:
    """Split ``"fp32, fp16"`` into ("fp32", "fp16"); the verb checks the names."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


def say(error: DeployError) -> None:
    """Print an error and its hint on stderr."""
    print(f"error: {error.message}", file=sys.stderr)
    if error.hint:
        print(f"hint: {error.hint}", file=sys.stderr)
