"""What is checked of an FP16 or INT8 graph before a bundle vouches for it, and what is measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from pointrend_deploy.bundle.folder import Bundle
from pointrend_deploy.bundle.forms import Precision
from pointrend_deploy.errors import DeployError, ParityError
from pointrend_deploy.onnx_session import first_line
from pointrend_deploy.parity.instance.masks import overlap
from pointrend_deploy.parity.instance.matching import match
from pointrend_deploy.parity.noise import ENTRY_DB, StageSums
from pointrend_deploy.parity.record.precisions import StageNoise
from pointrend_deploy.parity.scores.labels import agreement
from pointrend_deploy.pictures.canvas import from_rgb
from pointrend_deploy.pictures.generated import verification_picture
from pointrend_deploy.progress import Progress
from pointrend_deploy.run.backends.onnxrt import InMemoryRunner
from pointrend_deploy.run.instance.instances import Instances

if TYPE_CHECKING:
    from onnx import ModelProto

Array = npt.NDArray[Any]

LEAST_FP16_SNR_DB: Final = 20.0
"""A stage of an FP16 graph with noise above a tenth of the signal says that the graph is broken.

Sound ones have 35 dB and more. Labels cannot say it: where two classes are nearly tied, as on
pictures unlike any the network has learnt, rounding alone changes them.
"""
LOW_INT8_SNR_DB: Final = 10.0
"""Below this INT8 deserves a note. The demonstration models have 18 to 20 dB with fitting ranges,
and 3 dB where blank and padded pictures drew them down; a ResNet-101 of random weights has 4 dB
with any."""
FEW_LABELS: Final = 0.99
"""Below this share of equal labels a graph without noise deserves a note."""
_STAGES: Final = ("p2", "p3", "p4", "p5", "p6", "coarse")
"""Values that come before anything is decided, so that they can be compared one by one."""
_MOST_PIXELS: Final = 2**19
_MOST_PICTURES: Final = 3


@dataclass(frozen=True)
class Measured:
    """An FP16 or INT8 graph beside the FP32 one in ONNX Runtime, on made pictures.

    Attributes:
        pictures: how many.
        label_agreement: least share of a picture's pixels whose labels agree; None of an instance
            bundle.
        matched: detections of both graphs that are one another's, in all pictures; None of a
            semantic bundle.
        only_fp32: detections of the FP32 graph alone.
        only_made: detections of the new graph alone.
        mask_iou: mean IoU of the matched detections' masks; None where there are none.
        worst: the stage with the most noise, of the pyramid and the coarse logits; None where
            nothing differs.
    """

    pictures: int
    label_agreement: float | None = None
    matched: int | None = None
    only_fp32: int = 0
    only_made: int = 0
    mask_iou: float | None = None
    worst: StageNoise | None = None

    def line(self) -> str:
        """What was found, for the terminal."""
        if self.label_agreement is not None:
            found = f"labels agree with FP32 on {self.label_agreement:.3%} of the pixels"
        else:
            total = (self.matched or 0) + self.only_fp32
            found = f"{self.matched} of FP32's {total} detections matched, {self.only_made} more"
            if self.mask_iou is not None:
                found += f", masks' IoU {self.mask_iou:.4f}"
        plural = "s" if self.pictures > 1 else ""
        if self.worst is not None and self.worst.snr_db is not None:
            found += f"; SNR {self.worst.snr_db:.0f} dB at the noisiest stage, {self.worst.stage}"
        return f"{found} ({self.pictures} generated picture{plural}, simulated in ONNX Runtime)"

    def notes(self) -> tuple[str, ...]:
        """What the user should know of it."""
        if self.worst is not None and (self.worst.snr_db or 0.0) < LOW_INT8_SNR_DB:
            return (
                f"the noise at {self.worst.stage} is a third of the signal or more: the ranges may "
                "not fit (calibrate on pictures of the model's own kind, or try another --method); "
                "--sensitivity tells the blocks it comes from",
            )
        if self.label_agreement is None or self.label_agreement >= FEW_LABELS:
            return ()
        if self.worst is not None and (self.worst.snr_db or 0.0) < ENTRY_DB:
            return ()
        return (
            "few labels agree though no stage is noisy: on generated pictures the best two classes "
            "of this model are often nearly tied; compare on pictures of its own kind",
        )


def check_graph(fp32: ModelProto, made: ModelProto, precision: Precision) -> None:
    """Check a finished graph as a file: types, promises, and that what decides is FP32.

    Args:
        fp32: the graph it was made from.
        made: the graph.
        precision: of ``made``.

    Raises:
        DeployError: naming what is broken.
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
    """Run the FP32 graphs and the new ones on made pictures.

    Args:
        bundle: opened.
        fp32: its FP32 graphs by file.
        made: the new graphs, by the file of the FP32 graph each was made from.
        precision: of the new graphs.
        progress: told of each step.

    Raises:
        ParityError: an output of the new graphs is not finite, or of another shape or type; or a
            stage of fp16 has values that are not finite, or an SNR below
            :data:`LEAST_FP16_SNR_DB`.
        DeployError: ONNX Runtime does not run a graph.
    """
    pictures = _pictures(bundle)
    with progress.step("FP32 in ONNX Runtime"):
        reference = InMemoryRunner(bundle, fp32, _stages(bundle, fp32, made))
        theirs = _answers(reference, pictures)
        reference.close()
    with progress.step(f"{precision.upper()} in ONNX Runtime"):
        runner = InMemoryRunner(bundle, made, reference.stage_names, precision)
        ours = _answers(runner, pictures)
    worst = _noisiest(reference.stages, runner.stages, precision)
    if bundle.manifest.recipe.task == "instance":
        return replace(_detections(theirs, ours), worst=worst)
    least = min(agreement(a, b) for a, b in zip(ours, theirs, strict=True))
    return Measured(pictures=len(pictures), label_agreement=least, worst=worst)


def _stages(
    bundle: Bundle, fp32: Mapping[str, ModelProto], made: Mapping[str, ModelProto]
) -> tuple[str, ...]:
    """Stages that the first graph computes in both precisions; masks come after decisions."""
    first = bundle.manifest.graphs_of("fp32")[0]
    known = [
        {name for node in graph.graph.node for name in node.output}
        for graph in (fp32[first], made[first])
    ]
    wanted = _STAGES[:-1] if bundle.manifest.recipe.task == "instance" else _STAGES
    return tuple(name for name in wanted if all(name in names for names in known))


def _noisiest(
    theirs: Sequence[Mapping[str, Array]],
    ours: Sequence[Mapping[str, Array]],
    precision: Precision,
) -> StageNoise | None:
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
                "an activation is beyond FP16's range: leave layers in FP32 with --keep-fp32",
            )
    known = [stage for stage in stages if stage.snr_db is not None]
    return min(known, key=lambda stage: stage.snr_db or 0.0, default=None)


def _pictures(bundle: Bundle) -> list[npt.NDArray[np.uint8]]:
    canvas = bundle.manifest.canvas
    height, width = canvas.size_hw
    fitting = min(_MOST_PICTURES, _MOST_PIXELS // (height * width))
    made = [verification_picture(height, width, seed) for seed in range(max(canvas.batch, fitting))]
    return [from_rgb(picture, bundle.manifest) for picture in made]


def _answers(runner: InMemoryRunner, pictures: Sequence[npt.NDArray[np.uint8]]) -> list[Any]:
    """Labels (H, W), or instances, of each picture."""
    key = runner.task.keys[0]
    return [prediction[key] for prediction in runner.predict_all(pictures)]


def _detections(theirs: Sequence[Instances], ours: Sequence[Instances]) -> Measured:
    matched = only_fp32 = only_made = 0
    ious: list[float] = []
    for a, b in zip(theirs, ours, strict=True):
        pairs = match(a.boxes, a.classes, a.scores, b.boxes, b.classes, b.scores)
        matched += len(pairs.pairs)
        only_fp32 += len(pairs.only_a)
        only_made += len(pairs.only_b)
        for left, right in pairs.pairs:
            both, union = overlap(a.patches[left], b.patches[right])
            if union:
                ious.append(both / union)
    return Measured(
        pictures=len(ours),
        matched=matched,
        only_fp32=only_fp32,
        only_made=only_made,
        mask_iou=float(np.mean(ious)) if ious else None,
    )
