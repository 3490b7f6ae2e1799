"""Exported graphs in ONNX Runtime against the reference: outputs, names, modes, repeatability."""

from __future__ import annotations

import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import onnx.inliner
import onnxruntime as ort
import pytest
import torch

from pointrend_deploy.errors import DeployError
from pointrend_deploy.graph.options import GraphOptions
from pointrend_deploy.graph.semantic.export import export_graph
from pointrend_deploy.model.pointrend import double, uncertainty
from pointrend_deploy.model.semantic.model import SemanticModel
from tests.fixtures.semantic_models import point_head, small_model
from tests.repository import ROOT

GRID = (64, 96)


@cache
def model(points: int = 60, coarse: bool = False) -> SemanticModel:
    return small_model(None if coarse else point_head(points))


def graph(points: int = 60, coarse: bool = False, **options: object) -> onnx.ModelProto:
    return exported(points, coarse, GraphOptions(**{"padded_hw": GRID, **options}))  # type: ignore[arg-type]


@cache
def exported(points: int, coarse: bool, options: GraphOptions) -> onnx.ModelProto:
    return export_graph(model(points, coarse), options)


def run(proto: onnx.ModelProto, **feed: np.ndarray) -> dict[str, np.ndarray]:
    session = ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, feed), strict=True))


NEAR = 1e-4
"""Uncertainties closer than this may change places on another CPU; rounding was 2e-6 at most."""


def picture(batch: int = 1) -> np.ndarray:
    """Seeds whose 60th uncertainty lies NEAR to no other, in either step and any picture."""
    seed = {1: 98, 2: 58}[batch]
    return np.random.default_rng(seed).standard_normal((batch, 3, *GRID)).astype(np.float32)


def uncertainties(reference: SemanticModel, stages: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What each step of the reference selects by: (N, H * W), under the name of its indices."""
    spec, found = reference.recipe.point_head, {}
    logits = torch.from_numpy(stages["coarse"])
    for step in range(spec.subdivision_steps if spec else 0):
        logits = double(logits)
        n, c, h, w = logits.shape
        found[f"step{step}.indices"] = uncertainty(logits).flatten(1).numpy()
        where = torch.from_numpy(stages[f"step{step}.indices"]).unsqueeze(1).expand(-1, c, -1)
        values = torch.from_numpy(stages[f"step{step}.point_logits"])
        logits = logits.reshape(n, c, h * w).scatter(2, where, values).view(n, c, h, w)
    return found


def compare_points(
    ours: np.ndarray, logits: np.ndarray, wanted: np.ndarray, expected: np.ndarray, by: np.ndarray
) -> None:
    """The same points with the same logits, but for near ties with the K-th uncertainty.

    Args:
        ours: (N, K) indices in any order.
        logits: (N, C, K) in that order.
        wanted: (N, K) ascending.
        expected: (N, C, K) in that order.
        by: (N, H * W) uncertainties of the reference.
    """
    for mine, its, theirs, other, unsure in zip(ours, logits, wanted, expected, by, strict=True):
        assert len(mine) == len(set(mine.tolist())) == len(theirs)
        strays = np.setxor1d(mine, theirs)
        kth = np.sort(unsure)[-len(theirs)]
        assert (np.abs(unsure[strays] - kth) < NEAR).all(), strays
        assert len(strays) / 2 <= max(1, len(theirs) // 1000)
        _, here, there = np.intersect1d(mine, theirs, return_indices=True)
        assert np.abs(its[:, here] - other[:, there]).max() < 1e-4


def compare(found: dict[str, np.ndarray], reference: SemanticModel, image: np.ndarray) -> None:
    wanted = {k: v.numpy() for k, v in reference.canvas_stages(torch.from_numpy(image)).items()}
    by = uncertainties(reference, wanted)
    wanted["labels"] = wanted["logits"].argmax(axis=1).astype(np.uint8)
    for name, value in found.items():
        if name.endswith("point_logits"):
            continue
        if name.endswith("indices"):
            logits = name.replace("indices", "point_logits")
            compare_points(value, found[logits], wanted[name], wanted[logits], by[name])
        elif name == "labels":
            assert value.dtype == np.uint8
            assert (value == wanted[name]).mean() > 0.9998
        else:
            assert np.abs(value - wanted[name]).max() < 1e-4, name


ALL = ("labels", "logits", "stages")


@pytest.mark.parametrize(
    ("ops", "outputs"),
    [
        ("plugin", ("labels",)),
        ("native", ("labels",)),
        ("plugin", ("labels", "stages")),
        ("plugin", ALL),
    ],
)
def test_equals_reference(ops: str, outputs: tuple[str, ...]) -> None:
    found = run(graph(ops=ops, outputs=outputs), image=picture())
    wanted = model().canvas_stages(torch.zeros(1, 3, *GRID))
    names = ["labels"] if "labels" in outputs else []
    names += ["logits"] if "logits" in outputs else []
    names += [name for name in wanted if name != "logits"] if "stages" in outputs else []
    assert list(found) == names
    compare(found, model(), picture())


def test_another_point_or_logit_is_seen() -> None:
    """What :func:`compare_points` admits are near ties, and none is near in this picture."""
    wanted = {k: v.numpy() for k, v in model().canvas_stages(torch.from_numpy(picture())).items()}
    by = uncertainties(model(), wanted)
    for step in (0, 1):
        indices, logits = wanted[f"step{step}.indices"], wanted[f"step{step}.point_logits"]
        unsure = by[f"step{step}.indices"]
        order = np.argsort(-unsure[0], kind="stable")
        assert unsure[0, order[59]] - unsure[0, order[60]] > NEAR
        compare_points(indices, logits, indices, logits, unsure)
        other = np.where(indices == order[59], order[60], indices)
        for points, values in ((other, logits), (indices, logits + 2e-4)):
            with pytest.raises(AssertionError):
                compare_points(points, values, indices, logits, unsure)


@pytest.mark.parametrize("points", [4000, 100_000])
def test_more_points_than_a_topk_or_cells(points: int) -> None:
    """4000 of 1536 and 6144 cells: the first step recomputes all, the second takes two rounds."""
    found = run(graph(points=points, outputs=("labels", "stages")), image=picture())
    compare(found, model(points), picture())


def test_semantic_fpn_without_a_point_head() -> None:
    compare(run(graph(coarse=True), image=picture()), model(coarse=True), picture())


def test_labels_alone_hold_no_logits_at_the_network_grid() -> None:
    def shapes(proto: onnx.ModelProto) -> list[list[int]]:
        values = [*proto.graph.value_info, *proto.graph.output]
        return [[dim.dim_value for dim in value.type.tensor_type.shape.dim] for value in values]

    assert [1, 7, *GRID] not in shapes(graph())
    assert [1, 7, *GRID] not in shapes(graph(coarse=True))
    assert [1, 7, *GRID] in shapes(graph(outputs=ALL))


def test_batch_of_two() -> None:
    image = picture(2)
    compare(run(graph(batch=2, outputs=ALL), image=image), model(), image)


def test_in_graph_preprocessing_equals_outside() -> None:
    """To the bit, on a picture that is smaller than the canvas."""
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (1, *GRID, 3), dtype=np.uint8)
    height, width = 50, 77
    spec = model().recipe.input
    outside = np.zeros((1, 3, *GRID), np.float32)
    mean = np.array(spec.pixel_mean, np.float32)
    std = np.array(spec.pixel_std, np.float32)
    normalised = (pixels[0, :height, :width].astype(np.float32) - mean) / std
    outside[0, :, :height, :width] = normalised.transpose(2, 0, 1)
    inside = run(
        graph(outputs=("logits",), preprocess="in-graph"),
        image=pixels,
        extent=np.array([[height, width]]),
    )
    wanted = run(graph(outputs=ALL), image=outside)
    assert np.array_equal(inside["logits"], wanted["logits"])
    readers = [
        node.op_type
        for node in graph(outputs=("logits",), preprocess="in-graph").graph.node
        if "image" in node.input
    ]
    assert readers == ["Cast"]  # TensorRT takes uint8 into nothing else


def test_native_is_the_plugin_graph_inlined() -> None:
    """Node for node where there is no point head: ops, attributes, and the same constants.

    The point head's products are taken before sampling in one flavour, after it in the other.
    """

    def form(proto: onnx.ModelProto) -> list[tuple[str, bytes]]:
        kept = []
        for node in proto.graph.node:
            attributes = b"".join(
                a.SerializeToString(deterministic=True)
                for a in sorted(node.attribute, key=lambda a: a.name)
            )
            kept.append((node.op_type, attributes))
        return kept

    plugin, native = graph(coarse=True), graph(coarse=True, ops="native")
    assert form(onnx.inliner.inline_local_functions(plugin)) == form(native)
    assert {t.name for t in native.graph.initializer} == {t.name for t in plugin.graph.initializer}
    for coarse in (True, False):
        plugin, native = graph(coarse=coarse), graph(coarse=coarse, ops="native")
        assert plugin.functions and not native.functions
        assert {node.domain for node in native.graph.node} == {""}
        assert {node.domain for node in plugin.graph.node} == {"", "pointrend"}


def test_names_are_the_modules() -> None:
    nodes = {node.name: node for node in graph(outputs=ALL).graph.node}
    for name in (
        "backbone.bottom_up.stem.0",
        "backbone.fpn_lateral2",
        "sem_seg_head.coarse_sem_seg_head.p3.0",
        "sem_seg_head.coarse_sem_seg_head.predictor",
        "sem_seg_head.point_head.fc1.step0",
        "sem_seg_head.point_head.fc1.step1",
        "sem_seg_head.point_head.predictor.step1",
    ):
        assert nodes[name].op_type == "Conv", name
    assert len(nodes) == len(graph(outputs=ALL).graph.node)
    parameters = {name for name, _ in model().named_parameters()}
    weights = {node.input[1] for node in nodes.values() if node.op_type == "Conv"}
    assert weights <= parameters
    assert (
        nodes["sem_seg_head.point_head.fc1.step0"].input[1]
        == (nodes["sem_seg_head.point_head.fc1.step1"].input[1])
    )


def test_batch_norm_is_folded() -> None:
    assert "BatchNormalization" not in {node.op_type for node in graph().graph.node}


def test_twice_the_same_bytes_and_nothing_of_this_machine(tmp_path: Path) -> None:
    """A second process with another hash seed writes the same file."""
    program = (
        "import sys; from pathlib import Path;"
        "from tests.fixtures.semantic_models import point_head, small_model;"
        "from pointrend_deploy.graph.options import GraphOptions;"
        "from pointrend_deploy.graph.semantic.export import export_graph;"
        "proto = export_graph(small_model(point_head()), GraphOptions(padded_hw=(64, 96)));"
        "Path(sys.argv[1]).write_bytes(proto.SerializeToString(deterministic=True))"
    )
    subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "again.onnx")],
        check=True,
        cwd=ROOT,
        env={"PYTHONHASHSEED": "7", "PATH": "/usr/bin:/bin", "PYTHONPATH": "."},
    )
    first = graph().SerializeToString(deterministic=True)
    assert first == (tmp_path / "again.onnx").read_bytes()
    for word in (b"/home", b"/work", b"/root", b"site-packages", b".py", b"stack_trace"):
        assert word not in first, word


def test_polygraphy_opens_the_file(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(graph().SerializeToString(deterministic=True))
    done = subprocess.run(
        [sys.executable, "-m", "polygraphy", "run", str(tmp_path / "model.onnx"), "--onnxrt"],
        capture_output=True,
        text=True,
        check=False,
    )
    if "No module named polygraphy.__main__" in done.stderr:
        tool = Path(sys.executable).with_name("polygraphy")
        command = [str(tool), "run", str(tmp_path / "model.onnx"), "--onnxrt"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "PASSED" in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"opset": 20}, "opset 20"),
        ({"opset": 17}, "opset 17"),
        ({"batch": 0}, "batch"),
        ({"padded_hw": (60, 96)}, "60x96"),
        ({"padded_hw": (0, 96)}, "0x96"),
        ({"outputs": ()}, "outputs"),
        ({"outputs": ("masks",)}, "masks"),
        ({"ops": "both"}, "both"),
        ({"preprocess": "gpu"}, "gpu"),
    ],
)
def test_options_no_graph_can_be_made_for(change: dict[str, object], word: str) -> None:
    options = GraphOptions(**{"padded_hw": GRID, **change})  # type: ignore[arg-type]
    with pytest.raises(DeployError, match=word):
        export_graph(model(), options)
