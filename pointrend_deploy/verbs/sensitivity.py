"""`quantize --sensitivity`: what each block costs in INT8, and which to leave out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pointrend_deploy.bundle import Bundle
from pointrend_deploy.errors import DeployError, UsageError
from pointrend_deploy.progress import Progress
from pointrend_deploy.quantize.placement import Placement
from pointrend_deploy.quantize.sensitivity import Cost, blocks_of, chosen, measured, most_calls
from pointrend_deploy.verbs.quantize_options import QuantizeOptions
from pointrend_deploy.verbs.sensitivity_lines import Asked, notes, proposal, table
from pointrend_deploy.verbs.sensitivity_pictures import Scale, pictures_for

if TYPE_CHECKING:
    from onnx import ModelProto

Graphs = Mapping[str, "ModelProto"]
"""By the file of the FP32 graph each was made from."""


@dataclass(frozen=True)
class Sensitivity:
    """What was measured and what follows.

    Attributes:
        lines: for the terminal.
        leave_out: names of the layers proposed to be left out of INT8; empty without a limit.
    """

    lines: tuple[str, ...]
    leave_out: frozenset[str]


def proposed(
    bundle: Bundle,
    options: QuantizeOptions,
    fp32_graphs: Graphs,
    make: Callable[[frozenset[str]], Graphs],
    placements: Mapping[str, Placement],
    progress: Progress,
) -> Sensitivity:
    """Measure what each block costs in INT8 and, with a limit, choose the blocks to leave out.

    Graphs are made, run in ONNX Runtime and let go of one after the other; of the pictures only
    FP32's answers are kept. Nothing is written.

    Args:
        bundle: opened.
        options: ``images``, ``max_drop`` and what the graphs are made with.
        fp32_graphs: to measure against.
        make: gives the graphs with these layers left out of INT8, beside those the options leave
            out.
        placements: of the graphs that ``make`` gives for no layers.
        progress: told of each picture of each graph.

    Raises:
        UsageError: no pictures named, or a limit that is not above 0.
        DeployError: no layer is in INT8, no picture can be read, FP32 finds nothing in them, or
            the limit cannot be met.
    """
    if options.images is None:
        raise UsageError(
            "--sensitivity needs pictures to measure on", "give --images: a folder or a list"
        )
    limit = options.max_drop
    if limit is not None and not limit > 0:
        raise UsageError(f"--max-drop {limit:g} is not a number of points above 0")
    asked = Asked.of(fp32_graphs, options, placements)
    blocks = blocks_of(asked.layers, asked.int8)
    if not blocks:
        raise DeployError(
            "no layer is in INT8, so there is nothing to measure",
            "leave --sensitivity out, or leave fewer layers out",
        )
    pictures = pictures_for(bundle, options, options.images)
    with progress.step("FP32's answers", len(pictures.paths)) as done:
        scale = Scale(bundle, pictures.paths, fp32_graphs, done)

    def telling(done: Callable[[], None]) -> Cost:
        return lambda keep: scale.points(make(keep), done)

    with progress.step("each block in INT8", (len(blocks) + 2) * len(scale.paths)) as done:
        cost = telling(done)
        none = cost(asked.int8)
        if limit is not None and none > limit:
            raise DeployError(
                f"{none:.3f} points are lost with every layer in {options.fallback.upper()} "
                f"already, more than --max-drop {limit:g}",
                "allow more, or deploy FP32",
            )
        costs = measured(blocks, cost, none, cost(frozenset()))
    lines = [
        *pictures.lines(scale.skipped, scale.measure),
        *notes(none, options.fallback, scale.classes),
        *table(costs, options.fallback),
    ]
    if limit is None:
        return Sensitivity(tuple(lines), frozenset())
    with progress.step(
        "choosing blocks, at most", most_calls(len(blocks)) * len(scale.paths)
    ) as done:
        choice = chosen(costs, telling(done), limit)
    assert choice is not None  # it is None only where FP16 loses too much, as was seen above
    lines += proposal(bundle.path, options, asked, costs, choice, placements)
    return Sensitivity(tuple(lines), choice.layers)
