"""A graph in ONNX Runtime with its inner stages marked as outputs besides."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from importlib.metadata import version
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from pointrend_deploy.errors import DeployError
from pointrend_deploy.graph.ancestry import nodes_behind

Array = npt.NDArray[Any]


def run_with_stages(
    graph: onnx.ModelProto, inputs: Mapping[str, Array], stages: Mapping[str, npt.DTypeLike]
) -> dict[str, Array]:
    """One call of a graph.

    Args:
        graph: not changed.
        inputs: by name.
        stages: dtype by name of values that are given beside the outputs; those the graph does not
            compute are left out.

    Returns:
        Its outputs, then the stages, by name.

    Raises:
        DeployError: ONNX Runtime does not run it.
    """
    widened = onnx.ModelProto()
    widened.CopyFrom(graph)
    made = {output for node in graph.graph.node for output in node.output}
    has = {output.name for output in graph.graph.output}
    for name, dtype in stages.items():
        if name in made - has:
            kind = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
            widened.graph.output.append(onnx.helper.make_tensor_value_info(name, kind, None))
    names = [output.name for output in widened.graph.output]
    raw = widened.SerializeToString()
    del widened
    try:
        session = _session(raw)
        del raw
        outputs = session.run(names, dict(inputs))
    except Exception as error:  # its errors share no base class below this one
        raise _does_not_run(error) from error
    return dict(zip(names, outputs, strict=True))


def check_loads(graph: onnx.ModelProto) -> None:
    """Raise DeployError where ONNX Runtime does not load a graph."""
    try:
        _session(graph.SerializeToString())
    except Exception as error:
        raise _does_not_run(error) from error


def _session(raw: bytes) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(raw, options, providers=["CPUExecutionProvider"])


def _does_not_run(error: Exception) -> DeployError:
    return DeployError(
        f"ONNX Runtime {version('onnxruntime')} does not run the exported graph: {error}",
        "please report this with the recipe and the command line",
    )


def cut_at(
    graph: onnx.ModelProto, inputs: Mapping[str, Array], outputs: Collection[str]
) -> onnx.ModelProto:
    """What of a graph lies between some of its values and some of its outputs.

    Args:
        graph: not changed.
        inputs: arrays of the types and shapes of values that become its inputs, by their names.
            They must be all that the outputs depend on.
        outputs: names of outputs to keep.
    """
    cut = onnx.ModelProto()
    cut.CopyFrom(graph)
    for field in ("node", "input", "output", "value_info", "initializer"):
        cut.graph.ClearField(field)
    cut.graph.output.extend(value for value in graph.graph.output if value.name in outputs)
    for name, array in inputs.items():
        kind = onnx.helper.np_dtype_to_tensor_dtype(array.dtype)
        cut.graph.input.append(onnx.helper.make_tensor_value_info(name, kind, array.shape))
    cut.graph.node.extend(nodes_behind(graph.graph.node, outputs, stop=inputs.keys()))
    read = {name for node in cut.graph.node for name in node.input}
    cut.graph.initializer.extend(w for w in graph.graph.initializer if w.name in read)
    return cut
