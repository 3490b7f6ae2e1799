"""Check and measure an FP16 or INT8 graph before it is written into a bundle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from pointrend_deploy.bundle.folder import Bundle
from pointrend_deploy.bundle.forms import Precision
from pointrend_deploy.errors import DeployError, ParityError
from pointrend_deploy.onnx_session import first_line
from pointrend_deploy.parity.noise import ENTRY_DB, StageSums
from pointrend_deploy.parity.record.precisions import StageNoise
from pointrend_deploy.pictures.canvas import from_rgb
from pointrend_deploy.pictures.generated import verification_picture
from pointrend_deploy.progress import Progress
from pointrend_deploy.run.backends.onnxrt import InMemoryRunner
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
_MOST_PIXELS: Final = 2**19
_MOST_PICTURES: Final = 3


@dataclass(frozen=True)
class Measured:
    """An FP16 or INT8 graph compared with the FP32 graph, in ONNX Runtime on generated pictures.

    Attributes:
        agreement: how far labels or detections agree.
        worst: the stage with the most noise, of the pyramid and the coarse logits; None if no stage
            differs.
    """

    agreement: Agreement
    worst: StageNoise | None = None

    def line(self) -> str:
        """Describe the comparison in one line for the terminal."""
        found = self.agreement.line()
        if self.worst is not None and self.worst.snr_db is not None:
            found += f"; SNR {self.worst.snr_db:.0f} dB at the noisiest stage, {self.worst.stage}"
        count = self.agreement.pictures
        plural = "s" if count > 1 else ""
        return f"{found} ({count} generated picture{plural}, simulated in ONNX Runtime)"

    def notes(self) -> tuple[str, ...]:
        """Return warnings about noise or poor agreement."""
        if self.worst is not None and (self.worst.snr_db or 0.0) < LOW_INT8_SNR_DB:
            return (
                f"the noise at {self.worst.stage} is a third of the signal or more: the ranges may "
                "not fit (calibrate on pictures like those the model was trained on, or try "
                "another --method); --sensitivity shows which blocks it comes from",
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


def measure(
    bundle: Bundle,
    fp32: Mapping[str, ModelProto],
    made: Mapping[str, ModelProto],
    precision: Precision,
    progress: Progress,
) -> Measured:
    """Run the FP32 graphs and the new graphs on generated pictures and compare them.

    Args:
        bundle: the bundle the graphs are for.
        fp32: its FP32 graphs by file name.
        made: the new graphs, by the file name of the FP32 graph each was made from.
        precision: precision of the new graphs.
        progress: receives each step.

    Raises:
        ParityError: an output of the new graphs is not finite, or has another shape or type; or a
            stage has values that are not finite or, in FP16, an SNR below
            :data:`LEAST_FP16_SNR_DB`.
        DeployError: ONNX Runtime does not run a graph.
    """
    task = task_of(bundle.manifest)
    pictures = _pictures(bundle)
    with progress.step("FP32 in ONNX Runtime"):
        reference = InMemoryRunner(bundle, fp32, _computed(task.stages, bundle, fp32, made))
        theirs = [task.predicted(found) for found in reference.predict_all(pictures)]
        reference.close()
    with progress.step(f"{precision.upper()} in ONNX Runtime"):
        runner = InMemoryRunner(bundle, made, reference.stage_names, precision)
        ours = [task.predicted(found) for found in runner.predict_all(pictures)]
    worst = _noisiest(reference.stages, runner.stages, precision)
    return Measured(task.agreement(theirs, ours), worst)


def _computed(
    stages: Sequence[str],
    bundle: Bundle,
    fp32: Mapping[str, ModelProto],
    made: Mapping[str, ModelProto],
) -> tuple[str, ...]:
    """Return the stages that the first graph computes in both precisions."""
    first = bundle.graphs_of("fp32")[0]
    known = [
        {name for node in graph.graph.node for name in node.output}
        for graph in (fp32[first], made[first])
    ]
    return tuple(name for name in stages if all(name in names for names in known))


def _noisiest(
    theirs: Sequence[Mapping[str, Array]],
    ours: Sequence[Mapping[str, Array]],
    precision: Precision,
) -> StageNoise | None:
    """Return the stage with the lowest SNR; raise ParityError if one is too noisy or not finite."""
    sums = StageSums()
    for before, after in zip(theirs, ours, strict=True):
        sums.add(before, after)
    stages = sums.stages()
    for stage in stages:
        too_noisy = stage.snr_db is not None and stage.snr_db < LEAST_FP16_SNR_DB
        if stage.problem or (precision == "fp16" and too_noisy):
            raise ParityError(
                f"stage {stage.stage} of the {precision} graph has "
                + (stage.problem or f"an SNR of {stage.snr_db:.1f} dB"),
                "an activation is out of FP16's range: keep layers in FP32 with --keep-fp32",
            )
    known = [stage for stage in stages if stage.snr_db is not None]
    return min(known, key=lambda stage: stage.snr_db or 0.0, default=None)


def _pictures(bundle: Bundle) -> list[npt.NDArray[np.uint8]]:
    """Generate pictures of the canvas' size: a batch, or up to three if they are small."""
    canvas = bundle.manifest.canvas
    height, width = canvas.size_hw
    fitting = min(_MOST_PICTURES, _MOST_PIXELS // (height * width))
    made = [verification_picture(height, width, seed) for seed in range(max(canvas.batch, fitting))]
    return [from_rgb(picture, bundle.manifest) for picture in made]
