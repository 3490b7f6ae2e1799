"""What the command lines share: those that compose scenes, and those that train on them."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from pointrend_deploy.errors import DeployError
from scripts.demo_training.material import Material, load_material
from scripts.unpack_demo import unpack

FIRST_EVALUATION_SEED: Final = 1_000_000
"""Training scenes have the seeds 0.., validation scenes 2,000,000.."""

EVALUATION_SCENES: Final = 36


@contextmanager
def errors_on_stderr() -> Iterator[None]:
    """Turn a DeployError into ``error:`` and ``hint:`` on stderr and exit code 1."""
    try:
        yield
    except DeployError as error:
        print(f"error: {error.message}\nhint: {error.hint}", file=sys.stderr)
        raise SystemExit(1) from error


def parser_of(
    program: str | None, *, required: bool = True, out: str = "folder to write into"
) -> argparse.ArgumentParser:
    """Make a parser with the folders that every program here takes.

    Args:
        program: docstring of the program; its first line becomes the description.
        required: whether the folders have to be given.
        out: help of ``--out``.
    """
    parser = argparse.ArgumentParser(description=(program or "").splitlines()[0])
    parser.add_argument("--photos", type=Path, required=required, help="folder of photographs")
    parser.add_argument("--objects", type=Path, required=required, help="folder of cut-outs")
    parser.add_argument("--out", type=Path, required=required, help=out)
    return parser


def make_evaluation_scenes(
    program: str | None, write: Callable[[range, Material, Path], None]
) -> None:
    """Run a program that composes the held-out scenes of a demonstration model.

    Args:
        program: docstring of the program.
        write: composes the scenes of some seeds and writes them into a folder. The material is
            the ``test`` split.
    """
    parser = parser_of(program)
    parser.add_argument("--scenes", type=int, default=EVALUATION_SCENES)
    args = parser.parse_args()
    with errors_on_stderr():
        seeds = range(FIRST_EVALUATION_SEED, FIRST_EVALUATION_SEED + args.scenes)
        write(seeds, load_material(args.photos, args.objects, "test"), args.out)


def train_or_evaluate(
    parser: argparse.ArgumentParser,
    train: Callable[[argparse.Namespace], None],
    measure: Callable[[], bytes],
) -> None:
    """Run a training program, or with ``--evaluate`` only score what is shipped.

    Args:
        parser: of the program, with its own options but for ``--evaluate``.
        train: gets the parsed options; --photos, --objects and --out are all given.
        measure: returns the figures of the shipped weights, for stdout.
    """
    parser.add_argument("--evaluate", action="store_true", help="score what is shipped, and stop")
    args = parser.parse_args()
    if not args.evaluate and None in (args.photos, args.objects, args.out):
        parser.error("training needs --photos, --objects and --out")
    with errors_on_stderr():
        unpack()
        if args.evaluate:
            sys.stdout.buffer.write(measure())
        else:
            train(args)
