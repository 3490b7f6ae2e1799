"""What is checked of an FP16 or INT8 graph before a bundle vouches for it, and what is measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from pointrend_deploy.bundle import Bundle
from pointrend_deploy.errors import DeployError, ParityError
from pointrend_deploy.manifest import TensorSpec
from pointrend_deploy.parity.instance_pasted import overlap
from pointrend_deploy.parity.masks import agreement
from pointrend_deploy.parity.matching import match
from pointrend_deploy.progress import Progress
from pointrend_deploy.quantize.simulation import first_line, open_session
from pointrend_deploy.run.instances import Instances
from pointrend_deploy.run.preprocess import from_rgb
from pointrend_deploy.run.runner import BundleRunner, Precision
from pointrend_deploy.run.split import with_masks
from pointrend_deploy.verbs.verification_pictures import verification_picture

if TYPE_CHECKING:
    from onnx import ModelProto

Array = npt.NDArray[Any]

LEAST_FP16_AGREEMENT: Final = 0.99
"""Labels of an FP16 graph that agree less with FP32 on made pictures say that it is broken."""
_MOST_PIXELS: Final = 2**20
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
    """

    pictures: int
    label_agreement: float | None = None
    matched: int | None = None
    only_fp32: int = 0
    only_made: int = 0
    mask_iou: float | None = None

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
        return f"{found} ({self.pictures} generated picture{plural}, simulated in ONNX Runtime)"


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
    from pointrend_deploy.graph.precision import FP16_TYPES, INT8_TYPES, expected_like
    from pointrend_deploy.quantize.islands import check_islands

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
    made: Mapping[str, ModelProto],
    precision: Precision,
    progress: Progress,
) -> Measured:
    """Run the FP32 graphs and the new ones on made pictures.

    Args:
        bundle: opened.
        made: the new graphs, by the file of the FP32 graph each was made from.
        precision: of the new graphs.
        progress: told of each step.

    Raises:
        ParityError: an output of the new graphs is not finite, or of another shape or type, or
            labels of fp16 agree on less than :data:`LEAST_FP16_AGREEMENT`.
        DeployError: ONNX Runtime does not run a graph.
    """
    pictures = _pictures(bundle)
    with progress.step("FP32 in ONNX Runtime"):
        before = {name: bundle.file(name).read_bytes() for name in made}
        theirs = _answers(_InMemory(bundle, before), pictures)
        del before
    with progress.step(f"{precision.upper()} in ONNX Runtime"):
        after = {name: graph.SerializeToString() for name, graph in made.items()}
        runner = _InMemory(bundle, after, precision)
        ours = _answers(runner, pictures)
    if bundle.manifest.recipe.task == "instance":
        return _detections(theirs, ours)
    least = min(agreement(a, b) for a, b in zip(ours, theirs, strict=True))
    if precision == "fp16" and least < LEAST_FP16_AGREEMENT:
        raise ParityError(
            f"the labels of the FP16 graph agree with FP32 on {least:.3%} of the pixels only",
            "an activation is likely beyond FP16's range: leave layers in FP32 with --keep-fp32, "
            "beginning with the last ones",
        )
    return Measured(pictures=len(pictures), label_agreement=least)


def _pictures(bundle: Bundle) -> list[npt.NDArray[np.uint8]]:
    canvas = bundle.manifest.canvas
    height, width = canvas.size_hw
    fitting = min(_MOST_PICTURES, _MOST_PIXELS // (height * width))
    made = [verification_picture(height, width, seed) for seed in range(max(canvas.batch, fitting))]
    return [from_rgb(picture, bundle.manifest) for picture in made]


class _InMemory(BundleRunner):
    """Graphs that are not in the bundle yet, or not of its files, in ONNX Runtime.

    Args:
        bundle: whose inputs and outputs they have.
        graphs: their bytes, by the file of the FP32 graph each stands for.
        precision: of them; None for FP32, whose outputs are not judged.
    """

    name = "onnx"

    def __init__(
        self, bundle: Bundle, graphs: Mapping[str, bytes], precision: Precision | None = None
    ) -> None:
        super().__init__(bundle)
        self._precision = precision
        files = bundle.manifest.graphs_of("fp32")
        self._sessions = [open_session(graphs[name]) for name in files]

    def _infer(self, batch: dict[str, Array]) -> dict[str, Array]:
        manifest = self.bundle.manifest
        outputs = self._run(0, manifest.outputs, batch)
        if len(self._sessions) == 1:
            return outputs
        _, export = manifest.instances

        def masks(inputs: dict[str, Array]) -> Array:
            return self._run(1, export.mask_outputs, inputs)["masks"]

        return with_masks(manifest, outputs, masks)

    def _run(
        self, graph: int, specs: Sequence[TensorSpec], inputs: dict[str, Array]
    ) -> dict[str, Array]:
        names = [spec.name for spec in specs]
        try:
            outputs = dict(zip(names, self._sessions[graph].run(names, inputs), strict=True))
        except Exception as error:  # its errors share no base class below this one
            raise DeployError(
                f"ONNX Runtime {version('onnxruntime')} does not run the graph: {first_line(error)}"
            ) from error
        if self._precision is not None:
            for spec in specs:
                _check_output(spec, outputs[spec.name], self._precision)
        return outputs


def _check_output(spec: TensorSpec, found: Array, precision: Precision) -> None:
    sizes = zip(found.shape, spec.shape, strict=False)
    alike = len(found.shape) == len(spec.shape) and all(a == b or b == -1 for a, b in sizes)
    if not alike or str(found.dtype) != spec.dtype:
        raise ParityError(
            f"output {spec.name} of the {precision} graph is {found.dtype} {list(found.shape)}, "
            f"not {spec.dtype} {list(spec.shape)}",
            "please report this with the bundle's recipe",
        )
    if found.dtype.kind == "f" and not np.isfinite(found).all():
        raise ParityError(
            f"output {spec.name} of the {precision} graph is not finite everywhere",
            "an activation is beyond FP16's range: leave layers in FP32 with --keep-fp32",
        )


def _answers(runner: _InMemory, pictures: Sequence[npt.NDArray[np.uint8]]) -> list[Any]:
    """Labels (H, W), or instances, of each picture."""
    key = "instances" if runner.bundle.manifest.recipe.task == "instance" else "labels"
    return [prediction[key] for prediction in runner.predict_all(pictures)]  # type: ignore[literal-required]


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
