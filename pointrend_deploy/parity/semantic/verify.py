"""One run of a graph held against the PyTorch reference on the same input, stage by stage."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from pointrend_deploy.parity import gates
from pointrend_deploy.parity.comparison import VerificationResult
from pointrend_deploy.parity.record.runs import Gate, PointsRow, StageRow
from pointrend_deploy.parity.subdivision import points, replay
from pointrend_deploy.parity.subdivision.stages import (
    allowed_share,
    cells_reached,
    compare_outside,
    compare_share,
    points_stage,
)
from pointrend_deploy.parity.tensors import compare_tensor, missing
from pointrend_deploy.recipe.semantic import Recipe

Array = npt.NDArray[Any]


def verify_stages(
    reference: Mapping[str, Array],
    candidate: Mapping[str, Array],
    recipe: Recipe,
    fitted_hw: Sequence[tuple[int, int]] | None = None,
    progress: Callable[[str], None] | None = None,
    not_computed: Collection[str] = (),
) -> VerificationResult:
    """Hold a candidate's outputs against the reference's stages.

    Args:
        reference: every stage of ``SemanticModel.canvas_stages`` in order, as arrays; ``labels``
            (N, Hp, Wp) are the argmax of its logits where they are not given.
        candidate: a graph's outputs by name: ``labels`` or ``logits`` at least. If it has any
            other stage it must have all of them, and each is compared.
        recipe: what both sides compute.
        fitted_hw: height and width of each picture on the canvas, where labels are compared; all
            of the canvas when absent.
        progress: called with each stage's name before it is compared.
        not_computed: stages nothing reads, which a candidate that was not asked for them may lack.

    Returns:
        A result, truthy when all that could be compared agrees. It never passes on nothing: with
        neither labels nor logits the missing labels fail.
    """
    tell = progress or (lambda stage: None)
    whole = any(name not in ("labels", "logits") for name in candidate)
    steps = replay.num_steps(reference)
    scale = max(1.0, gates.rms(reference["coarse"])) if "coarse" in reference else 1.0
    maps = replay.uncertainty_maps(reference) if whole and steps else iter(())
    stages: list[StageRow] = []
    chosen: list[PointsRow] = []
    strays: list[Array] = []
    for name, expected in reference.items():
        found = candidate.get(name)
        if name.endswith(".point_logits") or name == "logits":
            # later uncertainties are made of these too, and they may exceed the coarse logits
            scale = max(scale, gates.rms(expected))
        unsure = next(maps, None) if name.endswith(".indices") else None
        if name == "labels" or (found is None and (not whole or name in not_computed)):
            continue
        tell(name)
        if found is None:
            if name != "logits":  # labels speak for logits that are not exported
                stages.append(missing(name, expected))
        elif name.endswith(".indices"):
            step = int(name.removeprefix("step").removesuffix(".indices"))
            row = points.compare_points(
                step, expected, found, unsure, scale, cells_reached(strays, unsure)
            )
            chosen.append(row)
            stages.append(points_stage(name, expected, row))
            if unsure is not None:
                good = row.worst_gap is not None and row.jaccard > 0
                strays.append(
                    points.stray_map(expected, found, (unsure.shape[1], unsure.shape[2]))
                    if good
                    else np.ones(unsure.shape, np.bool_)  # nothing is known, so all may differ
                )
        elif name.endswith(".point_logits"):
            stages.append(_point_logits(name, reference, candidate))
        elif name == "logits":
            stages.append(_logits(expected, found, recipe, chosen, strays, scale))
        else:
            limit = gates.scaled(gates.tensor_tolerance(name), expected)
            stages.append(compare_tensor(name, expected, found, limit))
    tell("labels")
    stages.append(_labels(_labels_of(reference), _labels_of(candidate), fitted_hw))
    return VerificationResult(tuple(stages), tuple(chosen), tuple(_gates(stages, chosen)))


def _point_logits(
    name: str, reference: Mapping[str, Array], candidate: Mapping[str, Array]
) -> StageRow:
    at = name.replace(".point_logits", ".indices")
    expected, found = reference[name], candidate[name]
    if at not in candidate:
        return missing(name, expected)
    if found.shape != expected.shape or candidate[at].shape != reference[at].shape:
        return compare_tensor(name, expected, found, gates.POINT_LOGITS.limit)
    left, right = points.common_logits(reference[at], expected, candidate[at], found)
    if not left.size:
        return StageRow(
            name=name,
            kind="tensor",
            shape=expected.shape,
            passed=False,
            problem="no point was chosen by both sides",
        )
    row = compare_tensor(name, left, right, gates.scaled(gates.POINT_LOGITS, expected))
    return msgspec.structs.replace(row, shape=expected.shape)


def _logits(
    expected: Array,
    found: Array,
    recipe: Recipe,
    chosen: Sequence[PointsRow],
    strays: Sequence[Array],
    scale: float,
) -> StageRow:
    limit = gates.LOGITS.limit * scale
    if recipe.point_head is None:
        return compare_outside(expected, found, limit, None)
    known = [row for row in chosen if row.worst_gap is not None and row.jaccard > 0]
    if len(known) < recipe.point_head.subdivision_steps:
        # some points are unknown, or could not be compared
        allowed = allowed_share(recipe.point_head, expected.shape[2], expected.shape[3])
        return compare_share(expected, found, limit, allowed)
    grids = [(each.shape[1], each.shape[2]) for each in strays]
    return compare_outside(expected, found, limit, replay.reach(strays, grids))


def _labels_of(stages: Mapping[str, Array]) -> Array | None:
    if "labels" in stages:
        return stages["labels"]
    return stages["logits"].argmax(axis=1).astype(np.uint8) if "logits" in stages else None


def _labels(
    expected: Array | None, found: Array | None, fitted_hw: Sequence[tuple[int, int]] | None
) -> StageRow:
    problem, compared, same = "", 0, None
    if expected is None or found is None:
        problem = "missing"
    elif expected.shape != found.shape:
        problem = f"shape {tuple(found.shape)} where {tuple(expected.shape)} is expected"
    else:
        areas = fitted_hw or [expected.shape[1:]] * len(expected)
        equal = [(expected[i] == found[i])[:h, :w] for i, (h, w) in enumerate(areas)]
        compared = sum(part.size for part in equal)
        same = sum(int(part.sum()) for part in equal) / compared if compared else 1.0
        problem = gates.labels_problem(same, compared)
    return StageRow(
        name="labels",
        kind="labels",
        shape=() if expected is None else expected.shape,
        passed=not problem,
        compared=compared,
        agreement=same,
        problem=problem,
    )


def _gates(stages: Iterable[StageRow], chosen: Iterable[PointsRow]) -> Iterable[Gate]:
    steps = iter(chosen)
    for row in stages:
        if row.kind == "labels":
            tolerance = gates.LABELS
            limit = gates.labels_limit(row.compared)
            yield gates.gate(
                "label agreement", row.name, row.agreement, ">=", limit, tolerance.reason
            )
        elif row.kind == "points":
            step = next(steps)
            fraction = 1.0 if step.problem and step.worst_gap is None else step.stray_fraction
            limit = gates.strays_limit(step.k)
            yield gates.gate("stray points", row.name, fraction, "<=", limit, gates.STRAYS.reason)
            yield gates.gate(
                "farthest stray from the K-th uncertainty",
                row.name,
                step.worst_gap,
                "<=",
                step.gap_limit,
                gates.NEAR_TIE.reason,
            )
        else:
            tolerance = gates.tensor_tolerance(row.name)
            limit = tolerance.limit if row.limit is None else row.limit
            if row.name == "logits" and row.passed:
                continue  # its own verdict leaves pixels out, which one number cannot say
            yield gates.gate(
                "largest difference", row.name, row.max_abs, "<=", limit, tolerance.reason
            )
