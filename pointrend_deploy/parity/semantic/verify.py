"""One run of a semantic graph compared with the PyTorch reference, stage by stage."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from pointrend_deploy.parity import gates
from pointrend_deploy.parity.comparison import VerificationResult
from pointrend_deploy.parity.record.runs import Gate, StageRow
from pointrend_deploy.parity.subdivision import replay
from pointrend_deploy.parity.subdivision.stages import SubdivisionStages
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
    """Compare a candidate's outputs with the reference's stages.

    Args:
        reference: every stage of ``SemanticModel.canvas_stages`` in order, as arrays. ``labels``
            (N, Hp, Wp) may be absent: they are the argmax of the logits.
        candidate: a graph's outputs by name: ``labels`` or ``logits`` at least. If it has any
            other stage it must have all of them, and each is compared.
        recipe: of the model that both sides compute.
        fitted_hw: height and width of each picture on the canvas; labels are compared inside. The
            whole canvas when None.
        progress: called with each stage's name before it is compared.
        not_computed: stages that no later stage reads; the candidate may lack them.

    Returns:
        A result that passes when everything that could be compared agrees. With neither labels nor
        logits the missing labels fail, so it never passes on nothing.
    """
    tell = progress or (lambda stage: None)
    whole = any(name not in ("labels", "logits") for name in candidate)
    replayed = whole and replay.num_steps(reference)
    maps = replay.uncertainty_maps(reference) if replayed else iter(())
    steps = SubdivisionStages(reference, candidate, maps)
    for name in reference:
        optional = not whole or name in not_computed
        if name == "labels":
            continue
        if name in candidate or not optional:
            tell(name)
        if name == "logits":
            # labels speak for logits that are not exported
            row = steps.final_logits(name, recipe.point_head)
            if row is not None:
                # a passing row may leave pixels out, which the one number of a gate cannot say
                steps.add(row, gated=not row.passed)
        else:
            steps.compare(name, optional=optional)
    tell("labels")
    labels = _labels(_labels_of(reference), _labels_of(candidate), fitted_hw)
    return VerificationResult(
        (*steps.stages, labels), tuple(steps.points), (*steps.gates, _labels_gate(labels))
    )


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


def _labels_gate(row: StageRow) -> Gate:
    limit, reason = gates.labels_limit(row.compared), gates.LABELS.reason
    return gates.gate("label agreement", row.name, row.agreement, ">=", limit, reason)
