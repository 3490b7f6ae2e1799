"""Which nodes a pattern means."""

from __future__ import annotations

import pytest

from pointrend_deploy.errors import UsageError
from pointrend_deploy.quantize.layers import matched

NAMES = (
    "backbone.bottom_up.res5.0.conv1",
    "backbone.bottom_up.res5.0.conv1.relu",
    "backbone.bottom_up.res50.conv1",
    "backbone.fpn_output2",
    "sem_seg_head.point_head.fc1.step0",
)


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("backbone.fpn_output2", {3}),
        ("backbone.bottom_up.res5", {0, 1}),
        ("backbone.bottom_up.res5.0.conv1", {0, 1}),
        ("backbone.bottom_up.res5*", {0, 1, 2}),
        ("*point_head*", {4}),
        ("*.conv1", {0, 2}),
        ("*.fc1.step[01]", {4}),
        ("backbone", {0, 1, 2, 3}),
    ],
)
def test_a_pattern_is_a_name_with_wildcards_or_a_module_path(pattern: str, found: set[int]) -> None:
    assert matched(NAMES, [pattern], "--keep-fp32") == {NAMES[i] for i in found}


def test_several_patterns_mean_all_that_any_of_them_means() -> None:
    both = matched(NAMES, ["*.fpn_output2", "*point_head*"], "--keep-fp32")
    assert both == {NAMES[3], NAMES[4]}
    assert matched(NAMES, [], "--keep-fp32") == frozenset()


@pytest.mark.parametrize("pattern", ["backbone.bottom_up.res6", "fpn_output2", "Backbone.*", "?"])
def test_one_that_means_nothing_is_refused_with_the_option_that_gave_it(pattern: str) -> None:
    with pytest.raises(UsageError) as error:
        matched(NAMES, ["backbone", pattern], "--keep-fp16")
    assert "--keep-fp16" in error.value.message
    assert repr(pattern) in error.value.message
    assert "backbone" in error.value.hint


def test_the_hint_names_what_was_likely_meant() -> None:
    with pytest.raises(UsageError) as error:
        matched(NAMES, ["backbone.fpn_outptu2"], "--keep-fp32")
    assert "backbone.fpn_output2" in error.value.hint
    with pytest.raises(UsageError) as error:
        matched(NAMES, ["backbone.bottom_up.res6"], "--keep-fp32")
    assert "backbone.bottom_up.res5" in error.value.hint
