"""Make the graphs of one precision and check them; where they fail, say which layers to keep."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from pointrend_deploy.bundle.folder import Bundle
from pointrend_deploy.bundle.records import QuantizedRecord
from pointrend_deploy.errors import DeployError, UsageError
from pointrend_deploy.progress import Progress, Silent
from pointrend_deploy.verbs.quantize.check import Measured, check_graph, compared
from pointrend_deploy.verbs.quantize.graphs import QuantizedGraphs
from pointrend_deploy.verbs.quantize.options import QuantizeOptions
from pointrend_deploy.verbs.quantize.reference import Reference, reference_of
from pointrend_deploy.verbs.quantize.span import ActivationRangeError

if TYPE_CHECKING:
    from onnx import ModelProto

    from pointrend_deploy.quantize.retype import WeightRangeError


def checked_graphs(
    bundle: Bundle,
    fp32: Mapping[str, ModelProto],
    options: QuantizeOptions,
    progress: Progress,
) -> tuple[QuantizedGraphs, Measured]:
    """Make the graphs of one precision, check them as files and compare them with FP32.

    Args:
        bundle: the bundle they are for.
        fp32: its FP32 graphs by file name.
        options: options of `quantize`.
        progress: receives each step.

    Returns:
        The graphs, and how they compare with FP32 on generated pictures.

    Raises:
        UsageError: options contradict each other, or a pattern matches nothing.
        DeployError: a graph cannot be made or is not sound. Where weights or activations leave
            FP16's range, the hint names layers with which the graph was made and passed.
        ParityError: a graph's outputs are not usable.
    """
    from pointrend_deploy.quantize.retype import WeightRangeError

    reference: Reference | None = None
    leave_out: frozenset[str] = frozenset()
    try:
        found = made_graphs(bundle, fp32, options, progress)
        leave_out = found.leave_out
        with progress.step("checking the graph"):
            for name, graph in found.graphs.items():
                check_graph(fp32[name], graph, options.precision)
        reference = reference_of(bundle, fp32, progress)
        return found, compared(reference, found.graphs, options.precision, progress)
    except (ActivationRangeError, WeightRangeError) as error:
        problem = error
    if reference is None:
        reference = reference_of(bundle, fp32, progress)
    with progress.step("looking for layers to keep in FP32"):
        hint = _advice(problem, reference, options, leave_out)
    raise DeployError(problem.message, hint) from problem


def made_graphs(
    bundle: Bundle,
    fp32: Mapping[str, ModelProto],
    options: QuantizeOptions,
    progress: Progress,
) -> QuantizedGraphs:
    """Make the graphs of one precision. Raises as :func:`checked_graphs` does."""
    if options.precision == "fp16":
        with progress.step("making the FP16 graph"):
            return _half(bundle, fp32, options)
    from pointrend_deploy.verbs.quantize.int8 import int8_graphs

    return int8_graphs(bundle, options, fp32, progress)


def _advice(
    problem: ActivationRangeError | WeightRangeError,
    reference: Reference,
    options: QuantizeOptions,
    leave_out: frozenset[str],
) -> str:
    """Find layers to keep in FP32 with which the graphs pass, and say so in a hint."""
    from pointrend_deploy.quantize.layers import matches
    from pointrend_deploy.verbs.quantize.advice import advice

    bundle, fp32, silent = reference.bundle, reference.fp32, Silent()

    def make(patterns: tuple[str, ...]) -> Mapping[str, ModelProto]:
        still = sorted(n for n in leave_out if not any(matches(each, n) for each in patterns))
        more = replace(
            options,
            keep_fp32=(*options.keep_fp32, *patterns),
            keep_fp16=(*options.keep_fp16, *still),
            sensitivity=False,
            images=None,
            max_drop=None,
            apply=False,
        )
        return made_graphs(bundle, fp32, more, silent).graphs

    def check(graphs: Mapping[str, ModelProto]) -> str:
        for name, graph in graphs.items():
            check_graph(fp32[name], graph, options.precision)
        return compared(reference, graphs, options.precision, silent).agreement.line()

    return advice(problem, make, check)


def _half(
    bundle: Bundle, fp32: Mapping[str, ModelProto], options: QuantizeOptions
) -> QuantizedGraphs:
    """Make the FP16 graphs and their manifest entry."""
    from pointrend_deploy.quantize.fp16 import to_half
    from pointrend_deploy.quantize.islands import node_types
    from pointrend_deploy.quantize.layers import matched
    from pointrend_deploy.quantize.values import weighted_names

    names = [name for graph in fp32.values() for name in node_types(graph)]
    keep = matched(names, options.keep_fp32, "--keep-fp32")
    halves = {file: to_half(graph, keep) for file, graph in fp32.items()}
    if all(set(weighted_names(half.model)) <= {*half.fp32_layers} for half in halves.values()):
        raise UsageError(
            f"no layer of {', '.join(halves)} is left in FP16",
            "leave fewer layers in FP32 (--keep-fp32)",
        )
    record = QuantizedRecord(
        fallback="fp16",
        fp32=tuple(name for half in halves.values() for name in half.fp32_layers),
        sources={name: bundle.manifest.files[name] for name in fp32},
    )
    return QuantizedGraphs({name: half.model for name, half in halves.items()}, record)
