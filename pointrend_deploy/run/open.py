"""Open a bundle with the runner that a user names."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from pointrend_deploy.bundle.folder import Bundle
from pointrend_deploy.bundle.forms import Precision, RunnerName
from pointrend_deploy.errors import DeployError, path_of
from pointrend_deploy.packages import ABSENT, install_hint, problems, require
from pointrend_deploy.run.runner import BundleRunner


def _to_stderr(line: str) -> None:
    print(line, file=sys.stderr)


def open_runner(
    bundle: Bundle | str | Path,
    runner: RunnerName = "auto",
    weights: str | Path | None = None,
    engine: str | None = None,
    precision: Precision | None = None,
    tell: Callable[[str], None] = _to_stderr,
) -> BundleRunner:
    """Open a bundle for running.

    Args:
        bundle: the folder, or an opened bundle.
        runner: ``onnx`` (ONNX Runtime on the CPU), ``torch`` (the reference model), ``tensorrt``
            (an engine that `build` made, on this machine's GPU), or ``auto``: an engine where the
            bundle has one that fits this machine; otherwise ONNX Runtime where it is installed, and
            PyTorch where it is not. With ``weights``, ``auto`` is PyTorch, the only runner that
            reads them; with ``engine`` it is ``tensorrt``.
        weights: for the torch runner, a checkpoint to use in place of the bundle's weights; its
            SHA-256 must be one that the manifest records.
        engine: for the tensorrt runner, the engine's folder under ``engines/``; None for the only
            one that fits this machine.
        precision: of the bundle's graph or engine. None means fp32 to the onnx runner, and any
            precision to the tensorrt runner. ONNX Runtime computes fp16 and int8 graphs with their
            rounding, not at their speed. Which of several engines ``auto`` takes is said in
            :mod:`pointrend_deploy.run.backends.trt_choice`.
        tell: is given one line where ``auto`` has engines to choose from: the runner, engine and
            precision that it took, and where it took no engine, why. Printed to stderr by default.

    Raises:
        DeployError: the bundle is damaged, the runner is not installed or not known, or the
            weights are missing or of another model.
    """
    if not isinstance(bundle, Bundle):
        bundle = Bundle.open(bundle)
    if weights is not None:
        weights = path_of(weights, "weights", "give a checkpoint's file, or None")
    if engine is not None and runner == "auto" and weights is None:
        runner = "tensorrt"
    if engine is not None and runner != "tensorrt":
        raise DeployError(
            f"the runner {runner} runs no engine", "add --runner tensorrt, or leave --engine out"
        )
    if runner == "auto":
        why = ""
        if bundle.manifest.engines and weights is None:
            from pointrend_deploy.run.backends.trt_choice import open_fitting

            fitting, why = open_fitting(bundle, precision)
            if fitting is not None:
                tell(why)
                return fitting
        runner = "onnx" if precision not in (None, "fp32") else _first_installed(weights)
        if why:
            tell(f"auto: runner {runner}, precision {precision or 'fp32'}; no engine, as {why}")
    if runner == "tensorrt":
        if weights is not None:
            raise DeployError("an engine holds its weights", "leave --weights out")
        from pointrend_deploy.run.backends.trt import TrtRunner

        return TrtRunner(bundle, engine, precision)
    if runner == "onnx":
        if weights is not None:
            raise DeployError(
                "the onnx runner takes its weights from "
                f"{bundle.graphs_of(precision or 'fp32')[0]}",
                "leave --weights out",
            )
        from pointrend_deploy.run.backends.onnxrt import OnnxRunner

        return OnnxRunner(bundle, precision or "fp32")
    if precision not in (None, "fp32"):
        raise DeployError(
            f"the {runner} runner computes in FP32, not in {precision}",
            "choose --runner onnx or tensorrt",
        )
    if runner == "torch":
        from pointrend_deploy.run.backends.pytorch import TorchRunner

        return TorchRunner(bundle, weights)
    raise DeployError(f"no runner is called {runner!r}", "choose auto, onnx, torch or tensorrt")


def _first_installed(weights: str | Path | None) -> RunnerName:
    """Resolve ``auto``: ONNX Runtime where it can be used, PyTorch otherwise."""
    if weights is not None:
        require("run --runner torch", "leave --weights out")
        return "torch"
    return require_runner()


def require_runner() -> RunnerName:
    """Return what ``auto`` is on this machine.

    Raises:
        DeployError: neither ONNX Runtime nor PyTorch is installed, or it cannot be imported.
    """
    runner = usual_runner()
    if runner is None:
        raise DeployError(
            "neither ONNX Runtime nor PyTorch is installed, and run needs one of them",
            install_hint("run --runner onnx", problems("run --runner onnx")),
        )
    require(f"run --runner {runner}")
    return runner


def usual_runner() -> RunnerName | None:
    """Return what ``auto`` is here, by what is installed; None where neither of the two is."""
    runners: tuple[RunnerName, ...] = ("onnx", "torch")
    return next(
        (name for name in runners if ABSENT not in problems(f"run --runner {name}").values()), None
    )
