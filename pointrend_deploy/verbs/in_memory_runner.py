"""Graphs that no bundle vouches for yet, run as a bundle's own would be."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pointrend_deploy.bundle import Bundle
from pointrend_deploy.errors import DeployError, ParityError
from pointrend_deploy.manifest import TensorSpec
from pointrend_deploy.quantize.simulation import first_line, open_session
from pointrend_deploy.run.runner import BundleRunner, Precision
from pointrend_deploy.run.split import with_masks

if TYPE_CHECKING:
    from onnx import ModelProto

Array = npt.NDArray[Any]


class InMemoryRunner(BundleRunner):
    """Graphs with a bundle's inputs and outputs in ONNX Runtime.

    Args:
        bundle: opened.
        graphs: by the file of the FP32 graph each stands for; unchanged when this returns.
        stages: names of values of the first graph that are kept besides.
        precision: of the graphs; their outputs are checked where it is not fp32.

    Attributes:
        stage_names: as given.
        stages: of every call, what ``stages`` asked for.

    Raises:
        DeployError: ONNX Runtime does not load a graph.
    """

    name = "onnx"

    def __init__(
        self,
        bundle: Bundle,
        graphs: Mapping[str, ModelProto],
        stages: Collection[str] = (),
        precision: Precision = "fp32",
    ) -> None:
        super().__init__(bundle)
        self.precision = precision
        self.stage_names = tuple(stages)
        self.stages: list[dict[str, Array]] = []
        first, *masks = bundle.manifest.graphs_of("fp32")
        self._sessions = [open_session(_with_outputs(graphs[first], stages))]
        self._sessions += [open_session(graphs[name].SerializeToString()) for name in masks]

    def close(self) -> None:
        """Let go of the sessions and their memory; no call after it."""
        self._sessions.clear()

    def _infer(self, batch: dict[str, Array]) -> dict[str, Array]:
        manifest = self.bundle.manifest
        outputs = self._run(0, manifest.outputs, batch, self.stage_names)
        self.stages.append({name: outputs[name] for name in self.stage_names})
        outputs = {name: outputs[name] for name in manifest.output_names}
        if len(self._sessions) == 1:
            return outputs
        _, export = manifest.instances

        def masks(inputs: dict[str, Array]) -> Array:
            return self._run(1, export.mask_outputs, inputs)["masks"]

        return with_masks(manifest, outputs, masks)

    def _run(
        self,
        graph: int,
        specs: Sequence[TensorSpec],
        inputs: dict[str, Array],
        stages: Sequence[str] = (),
    ) -> dict[str, Array]:
        names = list(dict.fromkeys([*(spec.name for spec in specs), *stages]))
        try:
            outputs = dict(zip(names, self._sessions[graph].run(names, inputs), strict=True))
        except Exception as error:  # its errors share no base class below this one
            raise DeployError(
                f"ONNX Runtime {version('onnxruntime')} does not run the {self.precision} graph: "
                f"{first_line(error)}",
                "if memory ran out, use a bundle with a smaller --size or --batch",
            ) from error
        if self.precision != "fp32":
            for spec in specs:
                _check(spec, outputs[spec.name], self.precision)
        return outputs


def _with_outputs(graph: ModelProto, names: Collection[str]) -> bytes:
    """A graph's bytes with more outputs."""
    import onnx

    count = len(graph.graph.output)
    has = {value.name for value in graph.graph.output}
    known = [v for v in graph.graph.value_info if v.name in set(names) - has]
    graph.graph.output.extend(onnx.ValueInfoProto.FromString(v.SerializeToString()) for v in known)
    raw: bytes = graph.SerializeToString()
    del graph.graph.output[count:]
    return raw


def _check(spec: TensorSpec, found: Array, precision: Precision) -> None:
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
