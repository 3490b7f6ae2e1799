"""The bodies of the ops that upsample, in ONNX Runtime, against upsampling, arg-max and TopK.

Whole-numbered logits make every sum exact: weights are multiples of 1 / (2 * scale). So results are
equal, whatever the order of a sum, and ties are many.
"""

from __future__ import annotations

import onnx
import onnxruntime as ort
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pointrend_deploy.errors import DeployError
from pointrend_deploy.graph.ops import (
    DOMAIN,
    PLUGIN_ATTRIBUTES,
    REFINE_LABELS,
    REFINE_LOGITS,
    UPSAMPLE_LABELS,
    UPSAMPLE_UNCERTAINTY,
    VERSION,
)
from pointrend_deploy.graph.passes.bodies import attach_bodies
from pointrend_deploy.graph.upsample import (
    refine_labels,
    refine_logits,
    upsample_labels,
    upsample_uncertainty,
)
from pointrend_deploy.graph.upsample_bodies import (
    refine_labels_body,
    refine_logits_body,
    strip_rows,
    two_best_body,
)
from pointrend_deploy.model import pointrend as point_ops

OUTPUTS = {UPSAMPLE_UNCERTAINTY: (1,), UPSAMPLE_LABELS: (1, 6)}
"""ONNX types of the outputs."""


def graph_of(op: str, *logits: Tensor, scale: int | list[int] = 2) -> onnx.ModelProto:
    """A node for each input, without a body."""
    scales = scale if isinstance(scale, list) else [scale] * len(logits)
    kinds = {torch.float32: 1, torch.float16: 10}
    nodes, inputs, outputs = [], [], []
    for index, (value, of_node) in enumerate(zip(logits, scales, strict=True)):
        name = f"in{index}"
        written = [f"node{index}.out{i}" for i in range(len(OUTPUTS[op]))]
        attributes = {"scale": of_node, **PLUGIN_ATTRIBUTES}
        nodes.append(onnx.helper.make_node(op, [name], written, domain=DOMAIN, **attributes))
        info = onnx.helper.make_tensor_value_info
        inputs.append(info(name, kinds[value.dtype], value.shape))
        outputs += [info(o, kind, None) for o, kind in zip(written, OUTPUTS[op], strict=True)]
    opsets = [onnx.helper.make_opsetid("", 18), onnx.helper.make_opsetid(DOMAIN, VERSION)]
    graph = onnx.helper.make_graph(nodes, "nodes", inputs, outputs)
    return onnx.helper.make_model(graph, opset_imports=opsets, ir_version=10)


def run(model: onnx.ModelProto, *logits: Tensor) -> list[Tensor]:
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    feed = {f"in{index}": value.numpy() for index, value in enumerate(logits)}
    return [torch.from_numpy(found) for found in session.run(None, feed)]


def two_best(op: str, logits: Tensor, scale: int, budget: int) -> list[Tensor]:
    model = graph_of(op, logits, scale=scale)
    _, classes, height, width = logits.shape
    body = two_best_body(op, classes, scale, (height, width), budget=budget)
    model.functions.append(body)
    return run(model, logits)


def whole_numbers(*shape: int, most: int = 9) -> Tensor:
    generator = torch.Generator().manual_seed(sum(shape))
    return torch.randint(-most, most + 1, shape, generator=generator).float()


def reference(logits: Tensor, scale: int) -> tuple[Tensor, Tensor]:
    up = F.interpolate(
        logits.double(), scale_factor=float(scale), mode="bilinear", align_corners=False
    )
    return point_ops.uncertainty(up).flatten(1).float(), up.argmax(dim=1).flatten(1).int()


@pytest.mark.parametrize("classes", [2, 3, 4, 5, 19, 54])
@pytest.mark.parametrize("scale", [2, 4])
@pytest.mark.parametrize("budget", [1, 20_000, 2**24])
def test_equals_reference(classes: int, scale: int, budget: int) -> None:
    logits = whole_numbers(2, classes, 9, 13)
    wanted, wanted_labels = reference(logits, scale)
    unsure, labels = two_best(UPSAMPLE_LABELS, logits, scale, budget)
    assert torch.equal(labels, wanted_labels)
    assert torch.equal(unsure, wanted)
    (alone,) = two_best(UPSAMPLE_UNCERTAINTY, logits, scale, budget)
    assert torch.equal(alone, wanted)
    eager = upsample_labels(logits, scale)
    assert torch.equal(eager[0], wanted) and torch.equal(eager[1], wanted_labels)
    assert torch.equal(upsample_uncertainty(logits, scale), wanted)
    if classes == 19:
        assert (wanted == 0).any()  # ties are among them


def test_real_numbers_are_rounded_a_few_times_at_most() -> None:
    """Logits of about 1: float32 sums of four products, in another order."""
    logits = torch.randn(1, 19, 31, 17, generator=torch.Generator().manual_seed(0))
    wanted, wanted_labels = reference(logits, 2)
    unsure, labels = two_best(UPSAMPLE_LABELS, logits, 2, 1)
    assert (unsure - wanted).abs().max() < 2e-6
    assert torch.equal(labels[wanted < -4e-6], wanted_labels[wanted < -4e-6])


def test_strips_change_no_bit() -> None:
    logits = torch.randn(1, 5, 31, 17, generator=torch.Generator().manual_seed(0))
    whole = two_best(UPSAMPLE_LABELS, logits, 2, 2**30)
    strips = two_best(UPSAMPLE_LABELS, logits, 2, 1)
    assert all(torch.equal(a, b) for a, b in zip(whole, strips, strict=True))


def test_half_logits_are_upsampled_in_float32() -> None:
    logits = whole_numbers(1, 6, 5, 7, most=300).half()
    wanted, wanted_labels = reference(logits, 4)
    unsure, labels = two_best(UPSAMPLE_LABELS, logits, 4, 2**24)
    assert torch.equal(unsure, wanted) and torch.equal(labels, wanted_labels)
    assert not torch.equal(unsure, wanted.half().float())  # 300 and 1/64: beyond FP16


@pytest.mark.parametrize("classes", [2, 3, 7, 19])
def test_every_pixel_tied(classes: int) -> None:
    """All logits equal: class 0 everywhere and no uncertainty above or below 0."""
    logits = torch.full((1, classes, 6, 6), 0.3)
    unsure, labels = two_best(UPSAMPLE_LABELS, logits, 2, 2**24)
    assert labels.abs().max() == 0
    assert unsure.abs().max() == 0


@pytest.mark.parametrize("pair", [(0, 1), (3, 11), (9, 10), (17, 18), (4, 18)])
def test_two_best_tied_gives_the_first(pair: tuple[int, int]) -> None:
    logits = torch.randn(1, 19, 8, 8, generator=torch.Generator().manual_seed(1))
    logits[:, pair[0]] += 10
    logits[:, pair[1]] = logits[:, pair[0]]
    unsure, labels = two_best(UPSAMPLE_LABELS, logits, 2, 2**24)
    assert torch.equal(labels, torch.full_like(labels, pair[0]))
    assert torch.equal(unsure, torch.zeros_like(unsure))


def test_comparison_notices_a_planted_error() -> None:
    logits = whole_numbers(1, 19, 8, 8)
    wanted, wanted_labels = reference(logits, 2)
    logits[0, 4, 3, 3] += 15
    unsure, labels = two_best(UPSAMPLE_LABELS, logits, 2, 2**24)
    assert not torch.equal(labels, wanted_labels)
    assert not torch.equal(unsure, wanted)


def test_strip_rows_follow_the_budget() -> None:
    assert strip_rows(2048, 2, 2**24) * 2 >= strip_rows(2048, 2, 2**25) - 1
    assert strip_rows(10**9, 2, 1) == 2


def test_one_body_serves_logits_of_two_sizes() -> None:
    sizes = [whole_numbers(1, 5, 200, 1500), whole_numbers(2, 5, 6, 7)]
    model = attach_bodies(graph_of(UPSAMPLE_LABELS, *sizes))
    found = run(model, *sizes)
    for logits, unsure, labels in zip(sizes, found[::2], found[1::2], strict=True):
        wanted, wanted_labels = reference(logits, 2)
        assert torch.equal(unsure, wanted) and torch.equal(labels, wanted_labels)


def test_large_logits_are_cut_into_strips() -> None:
    logits = whole_numbers(1, 5, 200, 1500)
    model = attach_bodies(graph_of(UPSAMPLE_LABELS, logits))
    assert sum(node.op_type == "Resize" for node in model.functions[0].node) > 3
    unsure, labels = run(model, logits)
    wanted, wanted_labels = reference(logits, 2)
    assert torch.equal(unsure, wanted) and torch.equal(labels, wanted_labels)


def refined(op: str, body: onnx.FunctionProto, inputs: list[Tensor], **scale: int) -> Tensor:
    kinds = {torch.float32: 1, torch.float16: 10, torch.int32: 6, torch.int64: 7}
    info = onnx.helper.make_tensor_value_info
    given = [info(f"in{i}", kinds[each.dtype], each.shape) for i, each in enumerate(inputs)]
    names = [value.name for value in given]
    attributes = {**scale, **PLUGIN_ATTRIBUTES}
    node = onnx.helper.make_node(op, names, ["out"], domain=DOMAIN, **attributes)
    kind = 6 if op == REFINE_LABELS else 1
    graph = onnx.helper.make_graph([node], "one", given, [info("out", kind, None)])
    opsets = [onnx.helper.make_opsetid("", 18), onnx.helper.make_opsetid(DOMAIN, VERSION)]
    model = onnx.helper.make_model(graph, opset_imports=opsets, functions=[body], ir_version=10)
    return run(model, *inputs)[0]


@pytest.mark.parametrize("scale", [2, 4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_points_are_put_into_upsampled_logits(scale: int, dtype: torch.dtype) -> None:
    logits, points = whole_numbers(2, 5, 4, 6), whole_numbers(2, 5, 30, most=50)
    indices = torch.stack([torch.randperm(24 * scale**2)[:30] for _ in range(2)])
    given = [logits.to(dtype), indices, points.to(dtype)]
    found = refined(REFINE_LOGITS, refine_logits_body(scale), given, scale=scale)
    mode = {"mode": "bilinear", "align_corners": False}
    wanted = F.interpolate(logits, scale_factor=float(scale), **mode)
    for n in range(2):
        wanted[n].flatten(1)[:, indices[n]] = points[n]
    assert torch.equal(found, wanted)
    assert torch.equal(refine_logits(logits, indices, points, scale), wanted)


def test_points_are_put_into_labels() -> None:
    labels, points = whole_numbers(2, 50).int(), whole_numbers(2, 5, 20, most=2)
    indices = torch.stack([torch.randperm(50)[:20] for _ in range(2)])
    found = refined(REFINE_LABELS, refine_labels_body(), [labels, indices, points])
    wanted = labels.clone()
    for n in range(2):
        wanted[n, indices[n]] = points[n].argmax(dim=0).int()
    assert torch.equal(found, wanted)
    assert torch.equal(refine_labels(labels, indices, points), wanted)
    assert not torch.equal(found, labels)


@pytest.mark.parametrize(
    ("op", "shapes", "scale", "words"),
    [
        (UPSAMPLE_LABELS, [(1, 5, 4, 4)] * 2, [2, 4], "one scale"),
        (UPSAMPLE_UNCERTAINTY, [(1, 5, 4, 4), (1, 6, 4, 4)], [2, 2], "of one C"),
        (UPSAMPLE_UNCERTAINTY, [(5, 4, 4)], [2], "of one C"),
    ],
)
def test_nodes_that_need_two_bodies_are_refused(
    op: str, shapes: list[tuple[int, ...]], scale: list[int], words: str
) -> None:
    logits = [torch.zeros(shape) for shape in shapes]
    with pytest.raises(DeployError, match=words):
        attach_bodies(graph_of(op, *logits, scale=scale))


@pytest.mark.parametrize("scale", [0, 1, 3, 32])
def test_another_scale_is_refused(scale: int) -> None:
    with pytest.raises(DeployError, match="by 2, 4, 8 or 16"):
        upsample_labels(torch.zeros(1, 2, 3, 3), scale)


def test_one_class_has_no_second_best() -> None:
    with pytest.raises(DeployError, match="two classes"):
        upsample_uncertainty(torch.zeros(1, 1, 4, 4), 2)
