"""Fresh engines on this machine's GPU, held against their graphs before `build` records them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pointrend_deploy.bundle.folder import Bundle
from pointrend_deploy.bundle.forms import Precision
from pointrend_deploy.bundle.manifest import Manifest
from pointrend_deploy.bundle.records import EngineRun
from pointrend_deploy.engine.flavour import Flavour
from pointrend_deploy.onnx_session import runtime_version
from pointrend_deploy.parity.engine_comparison import EngineComparison, Sides
from pointrend_deploy.parity.instance.engine import compare_detections
from pointrend_deploy.parity.semantic.engine import compare_labels
from pointrend_deploy.pictures.canvas import Fitted, batch_of
from pointrend_deploy.pictures.generated import verification_batch
from pointrend_deploy.progress import Progress
from pointrend_deploy.run.backends.onnxrt import OnnxRunner
from pointrend_deploy.run.backends.trt_trial import WORKER, Calls, answers_of
from pointrend_deploy.wording import count_of

Array = npt.NDArray[Any]
_QUARTERS: Final = ((0, 0), (0, 1), (1, 0), (1, 1))


@dataclass(frozen=True)
class Expected:
    """What the graphs of one precision answer in ONNX Runtime.

    Attributes:
        bundle: that they are of.
        pictures: on the canvas, one batch at most.
        generated: whether they are generated ones.
        inputs: of the bundle; and of a further call of a split layout's mask graph, which has
            given boxes, where nothing was detected.
        answers: outputs of the same calls.
        fp32: outputs of the FP32 graphs; None where the precision is FP32.
    """

    bundle: Bundle
    pictures: Sequence[Fitted]
    generated: bool
    inputs: Calls
    answers: Calls
    fp32: Mapping[str, Array] | None


@dataclass(frozen=True)
class Checked:
    """Engines that ran here and answer as their graphs do."""

    record: EngineRun
    line: str
    note: str


def expected_answers(
    bundle: Bundle, precision: Precision, verify_on: str | Path | None, progress: Progress
) -> Expected:
    """Run the graphs of a precision in ONNX Runtime on one batch.

    Args:
        bundle: the bundle.
        precision: of the graphs.
        verify_on: a picture or a folder of pictures; None for generated ones.
        progress: receives each step.

    Raises:
        DeployError: a picture cannot be read, or ONNX Runtime does not run a graph.
    """
    manifest = bundle.manifest
    pictures = verification_batch(manifest, verify_on)
    batch = batch_of(pictures, manifest)
    fp32 = None
    if precision != "fp32":
        with progress.step("FP32 graph in ONNX Runtime"):
            fp32 = OnnxRunner(bundle).infer(batch)
    with progress.step(f"{precision.upper()} graph in ONNX Runtime"):
        runner = OnnxRunner(bundle, precision)
        found = runner.infer(batch)
        given = _given_boxes(manifest, pictures[0], found)
        masks = runner.calls[-1](given) if given else {}
    inputs, answers = Calls(batch, given), Calls(found, masks)
    return Expected(bundle, pictures, verify_on is None, inputs, answers, fp32)


def _given_boxes(
    manifest: Manifest, picture: Fitted, found: Mapping[str, Array]
) -> dict[str, Array]:
    """Return inputs of a split layout's mask graph where its detector found nothing.

    They are the quarters of the first picture, each of another class. The mask graph would not run
    otherwise. Empty where there is no mask graph, or a detection.
    """
    export = manifest.instance
    if export is None or not export.mask_inputs or found["num_detections"].any():
        return {}
    height, width = (side / 2 for side in picture.fitted_hw)
    corners = _QUARTERS[: export.detections]
    boxes = [(x * width, y * height, (x + 1) * width, (y + 1) * height) for y, x in corners]
    classes = np.arange(len(corners)) % manifest.instances[0].num_classes
    rows: dict[str, Any] = {"boxes": boxes, "classes": classes}
    return {
        spec.name: np.asarray(rows[spec.name], spec.dtype)
        if spec.shape[0] == -1
        else found[spec.name][:1]
        for spec in export.mask_inputs
    }


def check_engines(
    expected: Expected,
    engines: Sequence[Path],
    flavour: Flavour,
    library: Path | None,
    log: Path,
    progress: Progress,
    worker: Sequence[str] = WORKER,
) -> Checked:
    """Run engines on this machine's GPU and compare their answers with their graphs'.

    Args:
        expected: of the graphs that they were built from.
        engines: files, in the order they run.
        flavour: the builder.
        library: the plugin library they need; None for none.
        log: is appended to.
        progress: receives the step.
        worker: see :func:`pointrend_deploy.run.backends.trt_trial.answers_of`.

    Raises:
        DeployError: the GPU or TensorRT refuses an engine.
        ParityError: an engine ran and answers otherwise than its graph.
    """
    manifest = expected.bundle.manifest
    names = ", ".join(path.name for path in engines)
    with progress.step(f"running {names}"):
        path = expected.bundle.path
        found = answers_of(engines, expected.inputs, path, flavour, library, log, worker)
    comparison = _compared(expected, found)
    comparison.raise_if_failed(names)
    count = len(expected.pictures)
    record = EngineRun(
        pictures=count,
        answers="labels" if manifest.instance is None else "detections",
        compared=comparison.number,
        agreement=comparison.agreement,
        mask_iou=comparison.mask_iou,
        onnxruntime=runtime_version(),
    )
    pictures = count_of(count, "generated picture" if expected.generated else "picture")
    line = f"ran on this GPU beside its graph in ONNX Runtime: {comparison.line()} ({pictures})"
    return Checked(record, line, comparison.note)


def _compared(expected: Expected, found: Calls) -> EngineComparison:
    manifest = expected.bundle.manifest
    sides = Sides(expected.pictures, expected.answers.batch, found.batch, expected.fp32)
    if manifest.instance is None:
        return compare_labels(manifest, sides)
    rois = (expected.answers.masks["masks"], found.masks["masks"]) if found.masks else None
    return compare_detections(manifest, sides, rois)
