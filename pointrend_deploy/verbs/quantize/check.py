"""Check and measure an FP16 or INT8 graph before it is written into a bundle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy.typing as npt

from pointrend_deploy.bundle.forms import Precision
from pointrend_deploy.errors import DeployError, ParityError
from pointrend_deploy.onnx_session import first_line
from pointrend_deploy.parity.noise import ENTRY_DB, StageSums
from pointrend_deploy.parity.record.precisions import StageNoise
from pointrend_deploy.progress import Progress
from pointrend_deploy.run.backends.onnxrt import InMemoryRunner
from pointrend_deploy.verbs.quantize.reference import Reference
from pointrend_deploy.verbs.quantize.span import (
    ActivationRangeError,
    Span,
    below_message,
    beyond_error,
    outside_note,
    span_of,
)
from pointrend_deploy.verbs.quantize.task import Agreement, task_of

if TYPE_CHECKING:
    from onnx import ModelProto

Array = npt.NDArray[Any]

LEAST_FP16_SNR_DB: Final = 20.0
"""Least signal-to-noise ratio, in dB, of a stage of a sound FP16 graph: a tenth of the signal.

Sound graphs have 35 dB and more. Labels cannot show whether a graph is sound: where two classes are
nearly tied, as on pictures unlike those of the training, rounding alone changes them.
"""
LOW_INT8_SNR_DB: Final = 10.0
"""Below this signal-to-noise ratio, in dB, an INT8 graph deserves a note. The demonstration models
have 18 to 20 dB with fitting ranges, and 3 dB with ranges from blank and padded pictures; a
ResNet-101 of random weights has 4 dB with any."""


@dataclass(frozen=True)
class Measured:
    """An FP16 or INT8 graph compared with the FP32 graph, in ONNX Runtime on generated pictures.

    Attributes:
        agreement: how far labels or detections agree.
        worst: the stage with the most noise, of the pyramid and the coarse logits; None if no stage
            differs.
        span: how its values lie in FP16's range; None if that was not measured.
        outside: of an INT8 graph with much noise, what was found beyond the calibrated ranges.
    """

    agreement: Agreement
    worst: StageNoise | None = None
    span: Span | None = None
    outside: str = ""

    def line(self) -> str:
        """Describe the comparison in one line for the terminal."""
        found = self.agreement.line()
        if self.worst is not None and self.worst.snr_db is not None:
            found += f"; SNR {self.worst.snr_db:.0f} dB at the noisiest stage, {self.worst.stage}"
        count = self.agreement.pictures
        plural = "s" if count > 1 else ""
        return f"{found} ({count} generated picture{plural}, simulated in ONNX Runtime)"

    def notes(self) -> tuple[str, ...]:
        """Return warnings about noise or poor agreement; they name no cause but a measured one."""
        if self.worst is not None and (self.worst.snr_db or 0.0) < LOW_INT8_SNR_DB:
            return (
                f"the noise at {self.worst.stage} is a third of the signal or more"
                f"{self.outside}; quantize --sensitivity measures which blocks it comes from",
            )
        if self.worst is not None and (self.worst.snr_db or 0.0) < ENTRY_DB:
            return ()
        note = self.agreement.note()
        return (note,) if note else ()


def check_graph(fp32: ModelProto, made: ModelProto, precision: Precision) -> None:
    """Check a finished graph as a file: types, inputs, outputs, and what must be FP32.

    Args:
        fp32: the FP32 graph it was made from.
        made: the graph to check.
        precision: precision of ``made``.

    Raises:
        DeployError: naming what is wrong.
    """
    import onnx

    from pointrend_deploy.graph.contract import check_contract
    from pointrend_deploy.quantize.check import FP16_TYPES, INT8_TYPES, check_islands, expected_like

    try:
        onnx.checker.check_model(made, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise DeployError(
            f"the {precision} graph is not sound ONNX: {first_line(error)}",
            "please report this with the bundle's recipe",
        ) from error
    types = FP16_TYPES if precision == "fp16" else INT8_TYPES
    opset = next(entry.version for entry in made.opset_import if entry.domain in ("", "ai.onnx"))
    check_contract(made, expected_like(fp32, types, opset if precision == "int8" else 18))
    check_islands(made)


def compared(
    reference: Reference, made: Mapping[str, ModelProto], precision: Precision, progress: Progress
) -> Measured:
    """Run the new graphs on the pictures of a reference and compare them with it.

    Args:
        reference: what the FP32 graphs compute.
        made: the new graphs, by the file name of the FP32 graph each was made from.
        precision: precision of the new graphs.
        progress: receives each step.

    Raises:
        ActivationRangeError: activations are FP16 and beyond its range, or a stage is too noisy and
            an activation there is too small for FP16.
        ParityError: an output of the new graphs is not finite, or has another shape or type; or a
            stage has values that are not finite or, in FP16, an SNR below
            :data:`LEAST_FP16_SNR_DB`.
        DeployError: ONNX Runtime does not run a graph.
    """
    span = span_of(reference, made)
    if span.beyond:
        raise beyond_error(reference, span.beyond, precision)
    bundle = reference.bundle
    task = task_of(bundle.manifest)
    first = made[bundle.manifest.graphs_of("fp32")[0]]
    computed = {name for node in first.graph.node for name in node.output}
    known = reference.stages[0] if reference.stages else {}
    stages = [name for name in task.stages if name in known and name in computed]
    with progress.step(f"{precision.upper()} in ONNX Runtime"):
        runner = InMemoryRunner(bundle, made, stages, precision)
        ours = [task.predicted(found) for found in runner.predict_all(reference.pictures)]
    theirs = [{name: each[name] for name in stages} for each in reference.stages]
    worst = _noisiest(theirs, runner.stages, precision, span)
    agreement = task.agreement(reference.answers, ours, reference.explained)
    outside = ""
    if precision == "int8" and worst is not None and (worst.snr_db or 0.0) < LOW_INT8_SNR_DB:
        outside = outside_note(reference, made)
    return Measured(agreement, worst, span, outside)


def _noisiest(
    theirs: Sequence[Mapping[str, Array]],
    ours: Sequence[Mapping[str, Array]],
    precision: Precision,
    span: Span,
) -> StageNoise | None:
    """Return the stage with the lowest SNR; raise ParityError if one is too noisy or not finite.

    Raises:
        ActivationRangeError: where whole activations are too small for FP16, in its place.
    """
    sums = StageSums()
    for before, after in zip(theirs, ours, strict=True):
        sums.add(before, after)
    stages = sums.stages()
    for stage in stages:
        too_noisy = stage.snr_db is not None and stage.snr_db < LEAST_FP16_SNR_DB
        if stage.problem or (precision == "fp16" and too_noisy):
            what = f"stage {stage.stage} of the {precision} graph has " + (
                stage.problem or f"an SNR of {stage.snr_db:.1f} dB"
            )
            if span.below:
                own = tuple(each for each in span.below if each.value == stage.stage) or span.below
                raise ActivationRangeError(f"{what}; {below_message(own)}", own)
            raise ParityError(
                what,
                "no activation leaves FP16's range on these pictures, and nothing else was "
                "measured: keep layers up to that stage in FP32 with --keep-fp32 PATTERN, or "
                "deploy FP32",
            )
    known = [stage for stage in stages if stage.snr_db is not None]
    return min(known, key=lambda stage: stage.snr_db or 0.0, default=None)
