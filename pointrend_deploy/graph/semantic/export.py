"""The semantic model to ONNX: what the graph takes and gives, and the export itself."""

from __future__ import annotations

import msgspec
import onnx
import torch

from pointrend_deploy.graph.contract import Expected
from pointrend_deploy.graph.options import GraphOptions
from pointrend_deploy.graph.semantic.traceable import DeployGraph
from pointrend_deploy.graph.trace import finish, module_names, trace
from pointrend_deploy.model.semantic.model import SemanticModel


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
