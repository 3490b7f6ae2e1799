"""What must be true of a parsed network: a parser that bends a graph says nothing."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from pointrend_deploy.engine.job import Job
from pointrend_deploy.errors import DeployError


def check_creators(trt: Any, job: Job) -> None:
    """Every plugin the graph needs is registered.

    Raises:
        DeployError: naming those that are not.
    """
    known = {
        (creator.name, creator.plugin_version, creator.plugin_namespace)
        for creator in trt.get_plugin_registry().all_creators
    }
    missing = [p.name for p in job.plugins if (p.name, p.version, p.namespace) not in known]
    if missing:
        raise DeployError(
            f"the plugin library {job.library} gives {trt.__name__} no {' and no '.join(missing)}",
            "it is older than the bundle, or does not load: build it again with "
            "scripts/build_plugins.sh",
        )


def check_parsed(parser: Any, parsed: bool, builder: str) -> None:
    """The parser took the whole graph.

    Raises:
        DeployError: what it said, node by node.
    """
    if parsed and parser.num_errors == 0:
        return
    said = []
    for index in range(parser.num_errors):
        error = parser.get_error(index)
        where = f"node {error.node_name()} ({error.node_operator()}): " if error.node_name() else ""
        said.append(f"{where}{' '.join(error.desc().split())}")
    raise DeployError(
        f"{builder} does not take the graph: {'; '.join(said[:3]) or 'it does not say why'}",
        "export the bundle again; a bundle of an exporter other than this one may not build",
    )


def check_network(trt: Any, network: Any, job: Job) -> int:
    """The parsed network is the graph that was given.

    Returns:
        The number of plugin layers.

    Raises:
        DeployError: a custom node that is no plugin or a plugin that was not asked for, a sampler
            that is not bilinear, a TopK of another size, coordinates or scores to choose by that
            are not FP32.
    """
    layers = list(_layers(network))
    plugins = [layer for layer in layers if layer.type.name.startswith("PLUGIN")]
    pairs = len(job.custom) + job.standard_plugins
    if len(plugins) != pairs:
        raise DeployError(
            f"{len(plugins)} layers of the parsed network are plugins where {pairs} are expected",
            "a function body or a standard op was taken in place of a plugin, or the reverse",
        )
    names = {_node_name(layer) for layer in plugins}
    if lost := [name for name in job.custom if name not in names]:
        raise DeployError(f"node {lost[0]} did not become a plugin layer")
    samplers = [layer for layer in layers if layer.type == trt.LayerType.GRID_SAMPLE]
    if len(samplers) != job.grid_samples:
        raise DeployError(
            f"{len(samplers)} sampling layers where the graph has {job.grid_samples} GridSample"
        )
    for layer in samplers:
        layer.__class__ = trt.IGridSampleLayer
        if layer.interpolation_mode != trt.InterpolationMode.LINEAR:
            raise DeployError(
                f"{layer.name} samples with {layer.interpolation_mode.name}, not bilinearly",
                "build with --ops plugin, whose sampler does not depend on the parser",
            )
        for index in range(2):  # both of one type, and coordinates in FP16 are pixels wrong
            _check_float32(trt, layer, index, "samples")
    for layer in layers:
        if layer.type == trt.LayerType.TOPK:
            _check_topk(trt, layer, job)
    return len(plugins)


def _check_topk(trt: Any, layer: Any, job: Job) -> None:
    wanted = job.topk.get(_node_name(layer))
    if wanted is None:  # an ArgMax
        return
    _check_float32(trt, layer, 0, "selects")
    layer.__class__ = trt.ITopKLayer
    axis = layer.axes.bit_length() - 1
    found = tuple(layer.get_output(0).shape)[axis]
    if found not in (wanted, -1):
        raise DeployError(f"{layer.name} selects {found} where the graph selects {wanted}")


def _check_float32(trt: Any, layer: Any, index: int, verb: str) -> None:
    found = layer.get_input(index).dtype
    if found != trt.DataType.FLOAT:
        raise DeployError(
            f"{layer.name} {verb} by {found.name} values, where FP32 alone is exact enough",
            "quantize the bundle again",
        )


def _layers(network: Any) -> Iterator[Any]:
    for index in range(network.num_layers):
        yield network.get_layer(index)


def _node_name(layer: Any) -> str:
    """The ONNX node a layer came from."""
    found = re.search(r"\[ONNX Layer: ([^\]]*)\]", str(layer.metadata))
    return found[1] if found else str(layer.name)
