"""Module to ONNX: trace, name, attach or inline the bodies, tidy, and check the contract."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence

import onnx
import torch

from pointrend_deploy.graph.contract import Expected, check_contract
from pointrend_deploy.graph.passes.bodies import attach_bodies, inline_bodies
from pointrend_deploy.graph.passes.names import name_by_module
from pointrend_deploy.graph.passes.optimize import optimize
from pointrend_deploy.graph.passes.tidy import tidy
from pointrend_deploy.graph.slices import keep_outputs
from pointrend_deploy.version import __version__


def finish(
    proto: onnx.ModelProto, modules: Mapping[str, str], promised: Expected
) -> onnx.ModelProto:
    """Apply the passes to a traced graph and check it against its contract.

    Args:
        proto: from :func:`trace`.
        modules: paths of modules in the traced wrapper -> their paths in the reference.
        promised: the contract: outputs to keep, ops and more.

    Raises:
        DeployError: the graph breaks the contract.
    """
    proto = name_by_module(proto, modules)
    proto = keep_outputs(proto, list(promised.outputs))
    proto = attach_bodies(proto)
    if promised.ops == "native":
        proto = inline_bodies(proto)
    proto = tidy(proto, __version__)
    check_contract(proto, promised)
    return proto


def trace(
    module: torch.nn.Module,
    inputs: tuple[torch.Tensor, ...],
    input_names: Sequence[str],
    output_names: Sequence[str],
    opset: int = 18,
    dynamic_shapes: Sequence[object] | None = None,
) -> onnx.ModelProto:
    """Trace a module to ONNX with torch's dynamo exporter, and simplify it (passes/optimize.py).

    Args:
        module: in eval mode.
        inputs: example inputs; their sizes are those of the graph.
        input_names: one for each input.
        output_names: one for each output of ``module``.
        opset: of the graph.
        dynamic_shapes: sizes that stay open, in the form torch.export takes; None for none.
    """
    with torch.no_grad(), _quiet():
        program = torch.onnx.export(
            module,
            inputs,
            input_names=list(input_names),
            output_names=list(output_names),
            opset_version=opset,
            dynamo=True,
            optimize=False,
            verbose=False,
            dynamic_shapes=None if dynamic_shapes is None else tuple(dynamic_shapes),
        )
        if program is None:
            raise RuntimeError("torch.onnx.export gave no program")
        optimize(program.model)
        # Two outputs of one value were one until now, under the name of the last.
        for value, name in zip(program.model.graph.outputs, output_names, strict=True):
            value.name = name
    return program.model_proto


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporter, whose progress and warnings are about torch, not the user's model."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def module_names(wrapper: torch.nn.Module, model: torch.nn.Module) -> dict[str, str]:
    """Map paths in the wrapper to paths in the reference, for modules that are in both.

    The wrapper has the point head in a form of its own; it gets the reference's path all the same,
    and so does a layer of it that has the name of one of the reference's.
    So does what the subdivision computes outside its steps: the head's products before sampling.
    """
    reference = {id(module): name for name, module in model.named_modules()}
    names = {
        path: reference[id(module)]
        for path, module in wrapper.named_modules(remove_duplicate=False)
        if id(module) in reference
    }
    point_head = getattr(model, "point_head", None)
    head = "" if point_head is None else reference[id(point_head)]
    inside = {"", *(name.removeprefix(head) for name in reference.values())}
    for path, _ in wrapper.named_modules(remove_duplicate=False):
        _, found, layer = path.partition(".head")
        if head and path.startswith("subdivision") and found and layer in inside:
            names.setdefault(path, head + layer)
    if head:
        names.setdefault("subdivision", head)
    return names
