"""The FP32 graphs' answers, stages and extents of values on generated pictures, computed once."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pointrend_deploy.bundle.folder import Bundle
from pointrend_deploy.pictures.canvas import from_rgb
from pointrend_deploy.pictures.generated import verification_picture
from pointrend_deploy.progress import Progress
from pointrend_deploy.run.backends.onnxrt import InMemoryRunner
from pointrend_deploy.verbs.quantize.task import Answer, task_of

if TYPE_CHECKING:
    from onnx import ModelProto

Array = npt.NDArray[Any]

_MOST_PIXELS = 2**19
_MOST_PICTURES = 3


@dataclass(frozen=True)
class Reference:
    """What the FP32 graphs compute on generated pictures.

    Attributes:
        bundle: the bundle they are of.
        fp32: the FP32 graphs by file name.
        pictures: the pictures, at the canvas' size.
        answers: the answer for each picture.
        stages: by call of the first graph, the arrays of the task's stages by name.
        explained: by call of the first graph, the values that explain differing answers.
        largest: by file name and value that could be FP16, its largest absolute number; values
            of a graph that never ran are missing.
    """

    bundle: Bundle
    fp32: Mapping[str, ModelProto]
    pictures: list[npt.NDArray[np.uint8]]
    answers: list[Answer]
    stages: list[dict[str, Array]]
    explained: list[list[Array]]
    largest: Mapping[str, Mapping[str, float]]

    def shares(
        self, bounds: Mapping[str, Mapping[str, float]]
    ) -> dict[str, dict[str, tuple[int, int]]]:
        """Run the graphs once more and count elements that reach a bound.

        Args:
            bounds: by file name and value, the least absolute number that counts.

        Returns:
            By file name and value, the elements that reach it, and all elements.
        """
        from pointrend_deploy.quantize.extent import Extents, counting

        extents, graphs, counts = Extents(), dict(self.fp32), {}
        for file, wanted in bounds.items():
            graphs[file], counts[file] = counting(self.fp32[file], wanted)
        with closing(
            InMemoryRunner(self.bundle, graphs, further=counts, seen=extents.add)
        ) as runner:
            for _ in runner.predict_all(self.pictures):
                pass
        return extents.shares


def reference_of(
    bundle: Bundle,
    fp32: Mapping[str, ModelProto],
    progress: Progress,
) -> Reference:
    """Run the FP32 graphs on generated pictures.

    Args:
        bundle: the bundle they are of.
        fp32: the FP32 graphs by file name.
        progress: receives the step.

    Raises:
        DeployError: ONNX Runtime does not run a graph.
    """
    from pointrend_deploy.quantize.extent import Extents, measuring, observed
    from pointrend_deploy.quantize.islands import node_types

    task = task_of(bundle.manifest)
    first = bundle.manifest.graphs_of("fp32")[0]
    computed = {name for node in fp32[first].graph.node for name in node.output}
    stages = [name for name in task.stages if name in computed]
    explaining = task.explaining(fp32[first])
    extents = Extents()
    graphs, counts = {}, {}
    for file, graph in fp32.items():
        names = observed(graph, node_types(graph))
        graphs[file], counts[file] = measuring(graph, names)
    pictures = _pictures(bundle)
    with progress.step("FP32 in ONNX Runtime"):
        runner = InMemoryRunner(
            bundle, graphs, dict.fromkeys((*stages, *explaining)), further=counts, seen=extents.add
        )
        answers = [task.predicted(found) for found in runner.predict_all(pictures)]
        runner.close()
    kept = [{name: each[name] for name in stages} for each in runner.stages]
    explained = [[each[name] for name in explaining] for each in runner.stages]
    return Reference(bundle, fp32, pictures, answers, kept, explained, extents.largest)


def _pictures(bundle: Bundle) -> list[npt.NDArray[np.uint8]]:
    """Generate pictures of the canvas' size: a batch, or up to three if they are small."""
    canvas = bundle.manifest.canvas
    height, width = canvas.size_hw
    fitting = min(_MOST_PICTURES, _MOST_PIXELS // (height * width))
    made = [verification_picture(height, width, seed) for seed in range(max(canvas.batch, fitting))]
    return [from_rgb(picture, bundle.manifest) for picture in made]
