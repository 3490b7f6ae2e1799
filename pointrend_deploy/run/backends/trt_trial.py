"""Fresh engines run on the GPU that they were built for, in a process of their own.

``python -m pointrend_deploy.run.backends.trt_trial JOB``: TensorRT ends the process on some errors,
so `build` tries an engine in another one. JOB is a file with a :class:`Trial`; arrays go through
files too. Whatever TensorRT prints goes to the log of the build.
"""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np

from pointrend_deploy.bundle.manifest import read_manifest
from pointrend_deploy.engine.flavour import Flavour, Module, prepare_import
from pointrend_deploy.engine.process import ended, last_words, python_path, with_words
from pointrend_deploy.errors import DeployError
from pointrend_deploy.run.backends.trt import load_engines, runtime_logger
from pointrend_deploy.run.runner import Array
from pointrend_deploy.run.task import task_of

WORKER: Final = (sys.executable, "-m", "pointrend_deploy.run.backends.trt_trial")
LONGEST_S: Final = 600.0
"""Seconds after which an engine that does not answer is given up."""


class Trial(msgspec.Struct, frozen=True, kw_only=True):
    """Engines to run once. Paths are absolute.

    Attributes:
        module: the builder, whose runtime loads them.
        bundle: folder of the bundle that they were built from.
        engines: files, in the order they run.
        library: plugin library; None for engines without plugins.
        inputs: an .npz file: ``batch.NAME`` is an input of the bundle, ``masks.NAME`` a further
            input of a split layout's mask engine alone.
        outputs: the .npz file to write, with the outputs under the same prefixes.
        failure: the file to write where an engine is refused, a :class:`Failure`.
    """

    module: Module
    bundle: str
    engines: tuple[str, ...]
    library: str | None
    inputs: str
    outputs: str
    failure: str


class Failure(msgspec.Struct, frozen=True):
    """Why an engine did not run."""

    message: str


@dataclass(frozen=True)
class Calls:
    """Arrays of a trial by name: its inputs, or its outputs.

    Attributes:
        batch: of the bundle.
        masks: of one more call of a split layout's mask engine; empty for none.
    """

    batch: dict[str, Array]
    masks: dict[str, Array]

    def write(self, path: Path) -> None:
        """Write the arrays to an .npz file."""
        arrays: dict[str, Any] = {f"batch.{name}": array for name, array in self.batch.items()}
        arrays |= {f"masks.{name}": array for name, array in self.masks.items()}
        np.savez(path, **arrays)

    @classmethod
    def read(cls, path: Path) -> Calls:
        """Read what :meth:`write` wrote."""
        parts: dict[str, dict[str, Array]] = {"batch": {}, "masks": {}}
        with np.load(path, allow_pickle=False) as arrays:
            for key in arrays.files:
                part, _, name = key.partition(".")
                parts[part][name] = arrays[key]
        return cls(**parts)


def main() -> None:
    """Do the trial named on the command line."""
    trial = msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=Trial)
    with tempfile.TemporaryDirectory(prefix="pointrend-") as links:
        keep = prepare_import(trial.module, Path(links))
        try:
            run(importlib.import_module(trial.module), trial)
        except DeployError as error:
            Path(trial.failure).write_bytes(msgspec.json.encode(Failure(error.message)))
        del keep


def run(trt: Any, trial: Trial) -> None:
    """Load the engines, call them, and write their outputs.

    The bundle's batch is run twice and the second answer is kept: from the second call on an engine
    runs as a CUDA graph, and so it will run for users.

    Raises:
        DeployError: TensorRT or CUDA refuses an engine or a call.
    """
    task = task_of(read_manifest(Path(trial.bundle)))
    logger = runtime_logger(trt, _line)
    library = None if trial.library is None else Path(trial.library)
    paths = [Path(path) for path in trial.engines]
    engines = load_engines(trt, logger, library, paths, task.graphs())
    try:
        inputs = Calls.read(Path(trial.inputs))
        for _ in range(2):
            batch = task.infer(engines, inputs.batch)
        masks = engines[-1](inputs.masks) if inputs.masks else {}
        Calls(batch, masks).write(Path(trial.outputs))
    finally:
        for engine in engines:
            engine.close()


def _line(severity: str, message: str) -> str:
    """Return a line as the builder's log has them."""
    letter = {"INTERNAL_ERROR": "F", "ERROR": "E"}.get(severity, "W")
    return f"[{letter}] {message}"


def answers_of(
    engines: Sequence[Path],
    inputs: Calls,
    bundle: Path,
    flavour: Flavour,
    library: Path | None,
    log: Path,
    worker: Sequence[str] = WORKER,
) -> Calls:
    """Run fresh engines on this machine's GPU.

    Args:
        engines: files, in the order they run.
        inputs: of the calls.
        bundle: that they were built from.
        flavour: the builder.
        library: the plugin library they need; None for none.
        log: is appended to.
        worker: the command that runs them; tests give another one.

    Raises:
        DeployError: the GPU or TensorRT refuses an engine, with TensorRT's last words.
    """
    with tempfile.TemporaryDirectory(prefix="pointrend-") as name:
        folder = Path(name)
        trial = Trial(
            module=flavour.module,
            bundle=str(bundle.resolve()),
            engines=tuple(str(path.resolve()) for path in engines),
            library=None if library is None else str(library),
            inputs=str(folder / "inputs.npz"),
            outputs=str(folder / "outputs.npz"),
            failure=str(folder / "failure.json"),
        )
        inputs.write(Path(trial.inputs))
        job = folder / "trial.json"
        job.write_bytes(msgspec.json.encode(trial))
        start = log.stat().st_size if log.is_file() else 0
        why = _run([*worker, str(job)], log)
        if not why and Path(trial.outputs).is_file():
            return Calls.read(Path(trial.outputs))
        if Path(trial.failure).is_file():
            why = msgspec.json.decode(Path(trial.failure).read_bytes(), type=Failure).message
        said = last_words(log, start)
    names = ", ".join(path.name for path in engines)
    raise DeployError(
        with_words(f"{names}: built, but this GPU does not run it: {why or 'no answer'}", said),
        "nothing of it stays in the bundle but the log beside the engines' folders; see "
        "docs/engine.md",
    )


def _run(command: Sequence[str], log: Path) -> str:
    """Run a command to its end; return how it ended, empty where it ended with 0."""
    with open(log, "ab") as out:
        try:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                env={**os.environ, "PYTHONPATH": python_path()},
                timeout=LONGEST_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return f"it did not answer within {LONGEST_S:.0f} s"
    return "" if done.returncode == 0 else f"TensorRT {ended(done.returncode)}"


if __name__ == "__main__":
    main()
