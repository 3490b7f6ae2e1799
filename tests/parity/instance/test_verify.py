"""Each mistake an instance graph can make is caught and named; rounding and near ties are not."""

from __future__ import annotations

import copy
import dataclasses
import re
from collections.abc import Callable
from functools import cache
from typing import Any

import msgspec
import numpy as np
import pytest
import torch

from pointrend_deploy.bundle.forms import MaskForm
from pointrend_deploy.errors import ParityError
from pointrend_deploy.model.instance.boxes import grouped_nms
from pointrend_deploy.parity.comparison import VerificationResult
from pointrend_deploy.parity.instance.masks import RoIs
from pointrend_deploy.parity.instance.matching import box_iou
from pointrend_deploy.parity.instance.reference import TorchPicture
from pointrend_deploy.parity.instance.selection import Pool
from pointrend_deploy.parity.instance.verify import verify_instances
from pointrend_deploy.recipe.instance import InstanceRecipe
from tests.fixtures import tiny_instance
from tests.fixtures.imitated_graph import Answers, Case, answers, stored

ROOMY = tiny_instance.changed(
    tiny_instance.changed(tiny_instance.POINTREND, "box_head", detections=200, score_threshold=0.4),
    "point_head",
    subdivision_steps=3,
    subdivision_points=196,
)
"""More room than detections, so that rows past the count exist; masks of 14, 28 and 56."""
STANDARD = msgspec.structs.replace(tiny_instance.STANDARD, box_head=ROOMY.box_head)
RECIPES = {"pointrend": ROOMY, "standard": STANDARD}


@cache
def case(kind: str = "pointrend") -> Case:
    made = Case(RECIPES[kind])
    if kind == "standard":  # logits of order one
        made.model.roi_heads.mask_head.get_submodule("predictor").weight.mul_(30.0)
    return made


@cache
def untouched(kind: str = "pointrend", form: MaskForm = "prob") -> Answers:
    return case(kind).answers(form)


def changed(kind: str = "pointrend") -> Answers:
    """Answers a test may alter."""
    return copy.deepcopy(untouched(kind))


def with_stage(given: Answers, name: str, value: Any) -> Answers:
    stages = {**given.rois.stages, name: value}
    return dataclasses.replace(given, rois=dataclasses.replace(given.rois, stages=stages))


@pytest.mark.parametrize("form", ["prob", "prob-u8", "logits"])
@pytest.mark.parametrize("kind", RECIPES)
def test_another_rounding_passes_and_every_stage_has_a_row(kind: str, form: MaskForm) -> None:
    result = case(kind).verify(untouched(kind, form), form)
    assert result, [(row.name, row.problem) for row in result.stages if not row]
    steps = [f"step{t}.{what}" for t in (1, 2) for what in ("indices", "point_logits")]
    mask_part = ["coarse", "step0.point_logits", *steps] if kind == "pointrend" else []
    levels = ["p2", "p3", "p4", "p5"]
    names = [*levels, "proposals", "detections", *mask_part, "mask_logits", "masks"]
    assert [row.name for row in result.stages] == names
    assert all(result.gates)
    assert {gate.stage for gate in result.gates} == set(names)
    assert result.notes == ()
    found = result.detections
    assert found.matched > 40
    assert (found.only_bundle, found.only_reference) == (0, 0)
    assert found.box_canvas_px is not None and found.box_canvas_px < 1e-3
    assert found.mask_iou_mean is not None and found.mask_iou_mean >= 0.999


def shifted_box(given: Answers) -> None:
    given.outputs["boxes"][0, 3, 2] += 0.06


def swapped_class(given: Answers) -> None:
    given.outputs["classes"][0, 5] = (given.outputs["classes"][0, 5] + 1) % 3


def wrong_score(given: Answers) -> None:
    given.outputs["scores"][0, 0] += 2e-3


def missing_detection(given: Answers) -> None:
    for name in ("boxes", "scores", "classes"):
        rows = given.outputs[name][1]
        rows[4:-1], rows[-1] = rows[5:].copy(), 0
    given.outputs["num_detections"][1] -= 1


def extra_detection(given: Answers) -> None:
    count = given.outputs["num_detections"][0]
    given.outputs["boxes"][0, count] = (10.0, 12.0, 40.0, 30.0)
    given.outputs["scores"][0, count] = 0.0501
    given.outputs["num_detections"][0] += 1


def suppressed_detection(given: Answers) -> None:
    """A detection twice: its copy should have been suppressed."""
    for name in ("boxes", "scores", "classes"):
        rows = given.outputs[name][0]
        rows[8:] = rows[7:-1].copy()
    given.outputs["num_detections"][0] += 1


def other_order(given: Answers) -> None:
    for name in ("boxes", "scores", "classes"):
        given.outputs[name][0, :6] = given.outputs[name][0, :6][::-1].copy()


def outputs_of_another_order(given: Answers) -> None:
    """Boxes no longer in the order of their scores."""
    given.outputs["boxes"][0, :6] = given.outputs["boxes"][0, :6][::-1].copy()


def garbage_past_the_count(given: Answers) -> None:
    given.outputs["boxes"][0, -1] = 1e-30


def nan_past_the_count(given: Answers) -> None:
    given.outputs["scores"][0, -1] = np.nan


def nan_box(given: Answers) -> None:
    given.outputs["boxes"][0, 2, 1] = np.nan


def nan_score(given: Answers) -> None:
    given.outputs["scores"][1, 0] = np.nan


def count_beyond_the_room(given: Answers) -> None:
    given.outputs["num_detections"][0] = given.outputs["boxes"].shape[1] + 1


def negative_count(given: Answers) -> None:
    given.outputs["num_detections"][0] = -1


def no_detections(given: Answers) -> None:
    given.outputs["num_detections"][0] = 0
    for name in ("boxes", "scores", "classes"):
        given.outputs[name][0] = 0


def caught(plant: Callable[[Answers], None], stage: str) -> tuple[VerificationResult, str]:
    """Verify answers with a planted error that must fail first at ``stage``; give its problem."""
    given = changed()
    plant(given)
    result = case().verify(given)
    assert not result
    assert result.first_divergent == stage
    assert [gate for gate in result.gates if gate.stage == stage and not gate]
    return result, next(row.problem for row in result.stages if row.name == stage)


WRONG_DETECTIONS: dict[Callable[[Answers], None], str] = {
    shifted_box: r"detection 3 of class \d differs from the reference's by 0.06 px and",
    swapped_class: r"detection 5 of class \d is of class \d in the reference",
    wrong_score: r"detection 0 of class \d differs .* by .* px and 0.002 in score",
    missing_detection: "1 detections are missing",
    extra_detection: r"detection \d+ of class 0 is none of the reference's",
    suppressed_detection: r"detection [78] of class \d is none|should have been suppressed",
    other_order: "the scores do not fall",
    outputs_of_another_order: r"detection 0 of class \d",
    garbage_past_the_count: "rows past num_detections are not zero",
    nan_past_the_count: "rows past num_detections are not zero",
    nan_box: "boxes are NaN",
    nan_score: "score is NaN",
    count_beyond_the_room: "a count of 201 where there is room for 200",
    negative_count: "a count of -1",
    no_detections: "detections are missing that nothing suppresses",
}


@pytest.mark.parametrize("plant", WRONG_DETECTIONS, ids=lambda plant: plant.__name__)
def test_a_wrong_detection_is_caught(plant: Callable[[Answers], None]) -> None:
    result, problem = caught(plant, "detections")
    assert re.search(WRONG_DETECTIONS[plant], problem), problem
    assert not result.detections
    # masks of other boxes than the reference's prove nothing, and are not reported
    assert result.stages[-1].name == "detections"
    with pytest.raises(ParityError, match="first at `detections`"):
        result.raise_if_failed()


def shifted_proposal(given: Answers) -> None:
    given.outputs["proposals"][0, 4] += 0.2


def garbage_proposal(given: Answers) -> None:
    given.outputs["proposals"][1, 4] = (0.0, 0.0, 3.0, 3.0)


def nan_proposal(given: Answers) -> None:
    given.outputs["proposals"][0, 4, 0] = np.inf


def fewer_proposals(given: Answers) -> None:
    given.outputs["proposal_count"][0] -= 2


def proposal_twice(given: Answers) -> None:
    given.outputs["proposals"][0, 1] = given.outputs["proposals"][0, 0]


WRONG_PROPOSALS: dict[Callable[[Answers], None], str] = {
    shifted_proposal: "1 of 40 are boxes the reference did not choose from",
    garbage_proposal: "1 of 40 are boxes the reference did not choose from",
    nan_proposal: "1 of 40 boxes are NaN or infinite",
    fewer_proposals: "proposals are missing",
    proposal_twice: "1 of 40 are boxes the reference did not choose from",
}


@pytest.mark.parametrize("plant", WRONG_PROPOSALS, ids=lambda plant: plant.__name__)
def test_a_wrong_proposal_is_caught(plant: Callable[[Answers], None]) -> None:
    _, problem = caught(plant, "proposals")
    assert WRONG_PROPOSALS[plant] in problem


MISTAKES: dict[str, tuple[InstanceRecipe, str]] = {
    "rpn nms 0.8": (tiny_instance.changed(ROOMY, "rpn", nms_threshold=0.8), "proposals"),
    "rpn nms 0.6": (tiny_instance.changed(ROOMY, "rpn", nms_threshold=0.6), "proposals"),
    "half the anchors": (tiny_instance.changed(ROOMY, "rpn", pre_nms_topk=10), "proposals"),
    "other divisors": (
        tiny_instance.changed(ROOMY, "box_head", box_weights=(10.0, 10.0, 10.0, 10.0)),
        "detections",
    ),
    "box nms 0.6": (tiny_instance.changed(ROOMY, "box_head", nms_threshold=0.6), "detections"),
    "other threshold": (
        tiny_instance.changed(ROOMY, "box_head", score_threshold=0.45),
        "detections",
    ),
    "fewer detections": (tiny_instance.changed(ROOMY, "box_head", detections=10), "detections"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_graph_of_another_recipe_is_caught(mistake: str) -> None:
    recipe, stage = MISTAKES[mistake]
    model = copy.deepcopy(case().model)
    model.recipe, model.proposal_generator.spec = recipe, recipe.rpn
    result = case().verify(answers(model, case().x, case().extents, "prob"))
    assert result.first_divergent == stage


def test_boxes_clipped_to_the_canvas_are_caught() -> None:
    """The extent of each picture is what boxes are clipped to."""
    x = case().x
    whole = ((x.shape[2], x.shape[3]),) * 2
    result = case().verify(answers(case().model, x, whole, "prob"))
    assert result.first_divergent == "proposals"


@pytest.mark.parametrize("level", ["p2", "p5"])
def test_a_wrong_feature_is_caught(level: str) -> None:
    given = changed()
    given.outputs[level][1] += 0.01
    assert case().verify(given).first_divergent == level
    del given.outputs[level]
    result = case().verify(given)
    assert result.first_divergent == level
    assert result.stages[int(level[1]) - 2].problem == "missing"


@pytest.mark.parametrize("name", ["proposals", "proposal_count", "boxes", "num_detections"])
def test_a_missing_output_is_caught(name: str) -> None:
    given = changed()
    del given.outputs[name]
    assert case().verify(given).first_divergent == name


@pytest.mark.parametrize(
    "stage", ["coarse", "step0.point_logits", "step1.indices", "step2.point_logits", "mask_logits"]
)
@pytest.mark.parametrize("fault", ["absent", "one RoI off", "NaN", "RoIs exchanged", "shape"])
def test_a_wrong_mask_stage_is_caught(stage: str, fault: str) -> None:
    given = changed()
    value = np.array(given.rois.stages[stage])
    if fault == "absent":
        stages = {name: v for name, v in given.rois.stages.items() if name != stage}
        given.rois = dataclasses.replace(given.rois, stages=stages)
    elif fault == "one RoI off":
        value[7] = (value[7] + 300) % 784 if stage.endswith("indices") else value[7] + 0.05
    elif fault == "NaN":
        if stage.endswith("indices"):
            value[7, 3] = -1
        else:
            value[7].reshape(-1)[3] = np.nan
    elif fault == "RoIs exchanged":
        chosen = given.rois.stages["step1.indices"]
        other = next(roi for roi in range(8, len(chosen)) if set(chosen[roi]) != set(chosen[7]))
        value[[7, other]] = value[[other, 7]]
    else:
        value = value[..., :-1]
    if fault != "absent":
        given = with_stage(given, stage, value)
    result = case().verify(given)
    assert not result
    assert result.first_divergent == stage
    assert [gate for gate in result.gates if gate.stage == stage and not gate] or fault == "absent"


def test_masks_of_another_class_are_caught() -> None:
    given = changed()
    rois = given.rois
    classes = rois.classes.copy()
    classes[3] = (classes[3] + 1) % 3
    other = case().references[0].mask_stages(rois.boxes[3:4], classes[3:4])
    stages = {name: np.array(value) for name, value in rois.stages.items()}
    for name, value in other.items():
        stages[name][3] = value[0]
    given.rois = dataclasses.replace(rois, stages=stages)
    assert case().verify(given).first_divergent == "step0.point_logits"


@pytest.mark.parametrize("form", ["prob", "prob-u8", "logits"])
@pytest.mark.parametrize("fault", ["one mask", "transposed", "past the count", "type", "NaN"])
def test_wrong_masks_are_caught(form: MaskForm, fault: str) -> None:
    given = copy.deepcopy(untouched(form=form))
    masks = given.rois.masks
    if fault == "one mask":
        masks[5] = masks[6]
    elif fault == "transposed":
        masks = masks.transpose(0, 2, 1)
    elif fault == "past the count":
        given.outputs["masks"][1, -1, 0, 0] = 1
    elif fault == "type":
        masks = masks.astype(np.float16)
    elif form != "prob-u8":
        masks[5, 0, 0] = np.nan
    else:
        masks[5, 0, 0] ^= 128
    given.rois = dataclasses.replace(given.rois, masks=masks)
    result = case().verify(given, form)
    assert result.first_divergent == "masks"
    problem = result.stages[-1].problem
    assert {
        "past the count": "rows past num_detections are not zero",
        "type": "type float16",
    }.get(fault, "") in problem


def test_masks_in_another_form_are_caught() -> None:
    forms: list[MaskForm] = ["prob", "prob-u8", "logits"]
    for said in forms:
        for is_really in forms:
            result = case().verify(untouched(form=is_really), said)
            assert bool(result) == (said == is_really)


class Told:
    """The reference of one picture, except for what its detections were chosen from."""

    def __init__(
        self, true: TorchPicture, pool: Pool | None = None, proposals: Pool | None = None
    ) -> None:
        self.features, self.proposals = true.features, true.proposals
        self.fitted_hw, self.mask_stages = true.fitted_hw, true.mask_stages
        self.proposal_pool = (lambda: proposals) if proposals else true.proposal_pool
        self._true, self._pool = true, pool

    def detections(self, proposals: Any) -> Any:
        found, pool = self._true.detections(proposals)
        return found, (lambda: self._pool) if self._pool else pool


def test_a_swapped_detection_is_explained_by_its_near_tie() -> None:
    """Of two boxes of nearly one score that suppress one another, either may be the one kept."""
    made = Case(ROOMY, pictures=((90, 120),))
    true = made.references[0]
    pool = true.detections(true.proposals)[1]()
    kept = pool.kept
    overlap = box_iou(pool.boxes, pool.boxes)
    same = pool.groups[:, None] == pool.groups[None]
    rivals = np.argwhere(same[kept] & (overlap[kept] > 0.6))
    rows, others = next(
        (row, other)
        for row, other in rivals
        if other not in kept
        and (same & (overlap > 0.4))[other, kept].sum() == 1
        and np.abs(pool.boxes[kept[row]] - pool.boxes[other]).max() > 1.0
        and pool.scores[kept[row + 1]] < pool.scores[kept[row]] - 1e-3
    )
    scores = pool.scores.copy()
    scores[others] = pool.scores[kept[rows]] - 5e-4
    near = dataclasses.replace(pool, scores=scores)
    given = made.answers()
    count = len(kept)
    given.outputs["boxes"][0, rows] = pool.boxes[others]
    given.outputs["scores"][0, rows] = scores[others]
    boxes, classes = given.outputs["boxes"][0, :count], given.outputs["classes"][0, :count]
    stages = true.mask_stages(boxes, classes)
    masks = stored(stages["mask_logits"][:, 0], "prob")
    rois = RoIs(given.rois.pictures, boxes, classes, stages, masks)
    good = verify_instances([Told(true, near)], given.outputs, rois, "prob")
    assert good, [(row.name, row.problem) for row in good.stages if not row]
    assert "1 detections differ, and the check of near ties explains them all" in good.notes
    found = good.detections
    assert (found.only_bundle, found.only_reference, found.explained) == (1, 1, 2)
    # with the scores as they are the other box is no tie: it has another score, and is suppressed
    assert not verify_instances([Told(true, pool)], given.outputs, rois, "prob")
    # nor where the one it replaced is better by more than a near tie
    far = scores.copy()
    far[kept[rows]] = scores[others] + 0.01
    surely = dataclasses.replace(near, scores=far)
    assert not verify_instances([Told(true, surely)], given.outputs, rois, "prob")


def test_a_swapped_proposal_is_explained_by_its_near_tie() -> None:
    """The last proposal taken, and the first that was not."""
    made = Case(ROOMY, pictures=((90, 120),))
    true = made.references[0]
    pool = true.proposal_pool()
    ranked = grouped_nms(*map(torch.from_numpy, (pool.boxes, pool.scores, pool.groups)), 0.7)
    last, following = ranked[pool.limit - 1 : pool.limit + 1].tolist()
    assert last == pool.kept[-1]
    given = made.answers()
    given.outputs["proposals"][0, -1] = pool.boxes[following]
    found, _ = true.detections(given.outputs["proposals"][0])
    count = len(found.boxes)
    given.outputs["num_detections"][0] = count
    stages = true.mask_stages(found.boxes, found.classes)
    for name in ("boxes", "scores", "classes", "masks"):
        given.outputs[name][0] = 0
        if name != "masks":
            given.outputs[name][0, :count] = getattr(found, name)
    masks = stored(stages["mask_logits"][:, 0], "prob")
    given.rois = RoIs(np.zeros(count, np.int64), found.boxes, found.classes, stages, masks)
    # the detection it brings about is none of those the reference has on its own proposals
    assert not np.array_equal(found.boxes, true.detections(true.proposals)[0].boxes)
    apart = float(pool.scores[last] - pool.scores[following])
    near = dataclasses.replace(pool, score_tolerance=2 * apart + 1e-6)
    good = verify_instances([Told(true, None, near)], given.outputs, given.rois, "prob")
    assert good, [(row.name, row.problem) for row in good.stages if not row]
    assert "1 proposals differ, and the check of near ties" in good.notes[0]
    if apart > 0:
        far = dataclasses.replace(pool, score_tolerance=0.5 * apart)
        bad = verify_instances([Told(true, None, far)], given.outputs, given.rois, "prob")
        assert bad.first_divergent == "proposals"
        assert "1 proposals are missing" in bad.stages[4].problem


def test_nothing_detected_is_said_and_given_boxes_stand_in() -> None:
    recipe = tiny_instance.changed(ROOMY, "box_head", score_threshold=0.999)
    made = Case(recipe, pictures=((64, 96),))
    given = made.answers()
    assert given.outputs["num_detections"].tolist() == [0]
    result = made.verify(given)
    assert result
    assert "masks were not verified" in result.notes[0]
    assert [row.name for row in result.stages][-2:] == ["detections", "masks"]
    assert result.detections.mask_iou_mean is None
    boxes = made.references[0].proposals[:5]
    classes = np.arange(5) % 3
    stages = made.references[0].mask_stages(boxes, classes)
    masks = stored(stages["mask_logits"][:, 0], "prob")
    given.given = RoIs(np.zeros(5, np.int64), boxes, classes, stages, masks)
    result = made.verify(given)
    assert result
    assert "verified on 5 boxes taken from its proposals" in result.notes[0]
    assert next(row for row in result.stages if row.name == "masks").compared == 5
    given.given = dataclasses.replace(given.given, masks=masks[::-1])
    assert made.verify(given).first_divergent == "masks"
    given.outputs["masks"][0, 0, 0, 0] = 0.5
    assert made.verify(dataclasses.replace(given, given=None)).first_divergent == "masks"


def test_the_reference_composed_here_is_the_models_own() -> None:
    made = case()
    for row, (reference, hw) in enumerate(zip(made.references, made.extents, strict=True)):
        with torch.no_grad():
            whole = made.model.canvas_stages(made.x[row : row + 1], hw)
        found, pool = reference.detections(reference.proposals)
        assert np.array_equal(reference.proposals, whole["proposals"].numpy())
        for name in ("boxes", "scores", "classes"):
            assert np.array_equal(getattr(found, name), whole[name].numpy())
        assert np.array_equal(pool().boxes[pool().kept], found.boxes)
        rpn = reference.proposal_pool()
        assert np.array_equal(rpn.boxes[rpn.kept], reference.proposals)
        masks = reference.mask_stages(found.boxes, found.classes)
        assert list(masks) == list(whole)[list(whole).index("classes") + 1 :]
        assert np.array_equal(masks["mask_logits"], whole["mask_logits"].numpy())
