"""The command lines that build the same engine with NVIDIA's own tool."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from pathlib import Path

from pointrend_deploy.bundle.forms import Ops
from pointrend_deploy.engine.graphs import in_form, input_shapes, read_graph
from pointrend_deploy.engine.targets import Target

_PLUGIN_FORM = "import onnx; m = onnx.load({graph}); del m.functions[:]; onnx.save(m, {out})"
_NATIVE_FORM = (
    "import onnx, onnx.inliner as i, onnx.shape_inference as s; "
    "onnx.save(s.infer_shapes(i.inline_local_functions(onnx.load({graph}))), {out})"
)


def command_lines(
    graph: Path,
    target: Target,
    ops: Ops,
    workspace_mib: int,
    sizes: Mapping[str, tuple[int, int, int]],
    library: str | None,
) -> tuple[str, ...]:
    """Return the commands that do what `build` does: make the graph's form, then build.

    Args:
        graph: the bundle's ONNX file.
        target: builder and GPU.
        ops: plugin or native.
        workspace_mib: bound on a layer's scratch memory.
        sizes: smallest, usual and largest value of each dynamic dimension, by name.
        library: the plugin library, for ``ops`` plugin.

    Raises:
        DeployError: the graph cannot be read, or cannot be brought into that form.
    """
    model = read_graph(graph)
    form = in_form(model, ops)
    lines, source = [], str(graph)
    if model.functions:
        source = f"{graph.stem}.{ops}.onnx"
        program = _PLUGIN_FORM if ops == "plugin" else _NATIVE_FORM
        program = program.format(graph=json.dumps(str(graph)), out=json.dumps(source))
        lines.append(f"python -c {shlex.quote(program)}")
    words = ["trtexec" if target.flavour.module == "tensorrt" else "tensorrt_rtx"]
    words += [f"--onnx={source}", f"--saveEngine={graph.stem}.engine"]
    words += ["--noTF32", f"--memPoolSize=workspace:{workspace_mib}"]
    words += ["--profilingVerbosity=detailed", "--skipInference"]
    if target.flavour.module == "tensorrt":
        words += ["--stronglyTyped", "--timingCacheFile=timing.cache"]
    if library is not None:
        words += [f"--staticPlugins={library}"]
    for option, row in (("min", 0), ("opt", 1), ("max", 2)):
        shapes = [
            f"{name}:{'x'.join(str(s if isinstance(s, int) else sizes[s][row]) for s in shape)}"
            for name, shape in input_shapes(form).items()
            if any(isinstance(size, str) for size in shape)
        ]
        if shapes:
            words.append(f"--{option}Shapes={','.join(shapes)}")
    lines.append(shlex.join(words))
    if target.gpu is None:
        capability = f"{target.capability / 10:.1f}"
        lines.append(f"# for every GPU from 8.0 on, where `build` aims at {capability} alone")
    return tuple(lines)
