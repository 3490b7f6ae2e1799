"""Module to ONNX: trace, name, attach or inline the bodies, tidy, and check the contract."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import msgspec
import onnx
import torch

import pointrend_deploy
from pointrend_deploy import atomic
from pointrend_deploy.graph.contract import Expected, check_contract
from pointrend_deploy.graph.options import GraphOptions
from pointrend_deploy.graph.passes.bodies import attach_bodies, inline_bodies
from pointrend_deploy.graph.passes.names import name_by_module
from pointrend_deploy.graph.passes.outputs import keep_outputs
from pointrend_deploy.graph.passes.tidy import tidy
from pointrend_deploy.graph.traceable import DeployGraph
from pointrend_deploy.model.architectures import SemanticModel


def export_graph(model: SemanticModel, options: GraphOptions) -> onnx.ModelProto:
    """The deployable graph of a model.

    Nothing is computed at the graph's size: tracing runs on shapes alone. The same model and
    options give the same bytes.

    Args:
        model: the reference, in eval mode, float32.
        options: grid, batch, outputs and the like.

    Raises:
        DeployError: the options do not fit the recipe, or the graph breaks the contract.
    """
    options.check(model.recipe.input.size_divisibility)
    promised = expected(model, options)
    whole = msgspec.structs.replace(options, outputs=tuple({*options.outputs, "stages"}))
    wrapper = DeployGraph(model, whole).eval()
    proto = trace(
        wrapper,
        example_inputs(options),
        list(promised.inputs),
        list(output_shapes(model, whole)),
        options.opset,
    )
    return finish(proto, module_names(wrapper, model), promised)


def finish(
    proto: onnx.ModelProto, modules: Mapping[str, str], promised: Expected
) -> onnx.ModelProto:
    """The passes over a traced graph, and the check of what it promises.

    Args:
        proto: of :func:`trace`.
        modules: paths in the traced wrapper -> paths in the reference.
        promised: outputs to keep, ops and the like.

    Raises:
        DeployError: the graph breaks the contract.
    """
    proto = name_by_module(proto, modules)
    proto = keep_outputs(proto, list(promised.outputs))
    proto = attach_bodies(proto)
    if promised.ops == "native":
        proto = inline_bodies(proto)
    proto = tidy(proto, pointrend_deploy.__version__)
    check_contract(proto, promised)
    return proto


def write_graph(proto: onnx.ModelProto, path: str | Path) -> None:
    """Write a graph as one file, whole or not at all.

    Raises:
        DeployError: the disk refuses.
    """
    atomic.write_bytes(path, proto.SerializeToString(deterministic=True))


def example_inputs(options: GraphOptions) -> tuple[torch.Tensor, ...]:
    """Inputs of the right shapes and types, without memory behind them where that can be."""
    height, width = options.padded_hw
    if options.preprocess == "in-graph":
        image = torch.zeros(options.batch, height, width, 3, dtype=torch.uint8)
        return image, torch.tensor([[height, width]] * options.batch)
    return (torch.zeros(1).expand(options.batch, 3, height, width),)


def output_shapes(
    model: SemanticModel, options: GraphOptions
) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Name -> (dtype, shape) of every output, in order, found on shapes alone."""
    mode = torch._subclasses.FakeTensorMode(allow_non_fake_inputs=True)
    with mode, torch.no_grad():
        outputs = DeployGraph(model, options).eval()(
            *map(mode.from_tensor, example_inputs(options))
        )
    return {
        name: (str(value.dtype).removeprefix("torch."), tuple(value.shape))
        for name, value in outputs.items()
    }


def expected(model: SemanticModel, options: GraphOptions) -> Expected:
    """What the contract checks an export of this model against."""
    height, width = options.padded_hw
    inputs: dict[str, tuple[str, tuple[int, ...]]] = {
        "image": ("float32", (options.batch, 3, height, width))
    }
    if options.preprocess == "in-graph":
        inputs = {
            "image": ("uint8", (options.batch, height, width, 3)),
            "extent": ("int64", (options.batch, 2)),
        }
    return Expected(
        inputs=inputs,
        outputs=output_shapes(model, options),
        opset=options.opset,
        ops=options.ops,
    )


def trace(
    module: torch.nn.Module,
    inputs: tuple[torch.Tensor, ...],
    input_names: Sequence[str],
    output_names: Sequence[str],
    opset: int = 18,
    dynamic_shapes: Sequence[object] | None = None,
) -> onnx.ModelProto:
    """ONNX of a module as torch's dynamo exporter and optimizer give it.

    Sizes are those of ``inputs`` but for the ones named in ``dynamic_shapes``, as torch.export
    takes it. The optimizer (onnxscript's) folds constants and batch normalisations into
    convolutions, and drops what no output needs.
    """
    with torch.no_grad(), _quiet():
        program = torch.onnx.export(
            module,
            inputs,
            input_names=list(input_names),
            output_names=list(output_names),
            opset_version=opset,
            dynamo=True,
            optimize=True,
            verbose=False,
            dynamic_shapes=None if dynamic_shapes is None else tuple(dynamic_shapes),
        )
    if program is None:
        raise RuntimeError("torch.onnx.export gave no program")
    return program.model_proto


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporter: its progress and warnings speak of its insides, not of the user's."""
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
    """Paths in the wrapper -> paths in the reference, for modules that are in both.

    The point head, which the wrapper holds in a form of its own, has the reference's path too; so
    has what the subdivision computes outside its steps: the head's products before sampling.
    """
    reference = {id(module): name for name, module in model.named_modules()}
    names = {
        path: reference[id(module)]
        for path, module in wrapper.named_modules(remove_duplicate=False)
        if id(module) in reference
    }
    point_head = getattr(model, "point_head", None)
    head = "" if point_head is None else reference[id(point_head)]
    for path, _ in wrapper.named_modules(remove_duplicate=False):
        if head and path.startswith("subdivision") and path.endswith(".head"):
            names.setdefault(path, head)
    if head:
        names.setdefault("subdivision", head)
    return names
