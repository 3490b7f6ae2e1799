from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from pointrend_deploy.errors import DeployError
from pointrend_deploy.parity import comparison
from pointrend_deploy.parity.record import runs as results
from pointrend_deploy.parity.semantic.compare import compare
from pointrend_deploy.parity.subdivision.replay import bilinear
from pointrend_deploy.truth import label_maps as dataset
from tests.fixtures import tiny_pointrend as tiny
from tests.fixtures.fake_bundle import TinyRunner, reference


def pictures(folder: Path, count: int = 3, hw: tuple[int, int] = (64, 96)) -> Path:
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(5)
    for index in range(count):
        Image.fromarray(rng.integers(0, 255, (*hw, 3), np.uint8)).save(folder / f"{index}.png")
    return folder


def truths(folder: Path, images: Path) -> Path:
    """The reference's own labels with one corner changed: known scores."""
    folder.mkdir()
    for path in sorted(images.glob("*.png")):
        rgb = np.asarray(Image.open(path)).astype(np.float32).transpose(2, 0, 1)
        labels = tiny.run(seed=int(rgb[None].sum()) % 997)["labels"][0].copy()
        labels[:8, :8] = 255
        Image.fromarray(labels).save(folder / path.name)
    return folder


@pytest.mark.parametrize("outputs", [("labels",), ("labels", "logits"), ("stages",)])
@pytest.mark.parametrize("batch", [1, 2])
def test_a_faithful_bundle_passes(tmp_path: Path, outputs: tuple[str, ...], batch: int) -> None:
    images = pictures(tmp_path / "images")
    run = compare(TinyRunner(outputs, batch=batch), reference(batch), dataset.pairs(images))
    assert run, [gate for gate in run.gates if not gate]
    assert run.pictures == 3
    assert run.labels_from == "exact"
    assert bool(run.points) is (outputs == ("stages",))
    assert [(row.prediction, row.against) for row in run.metrics] == [("bundle", "reference")]
    assert run.metrics[0].miou is not None
    assert run.metrics[0].miou > 0.999


@pytest.mark.parametrize("mistake", ["nearest sampling", "k clamped", "align_corners upsampling"])
@pytest.mark.parametrize("outputs", [("labels", "logits"), ("stages",)])
def test_a_planted_mistake_fails_the_gates(
    tmp_path: Path, mistake: str, outputs: tuple[str, ...]
) -> None:
    images = pictures(tmp_path / "images")
    run = compare(TinyRunner(outputs, mistake), reference(), dataset.pairs(images))
    assert not run
    assert run.first_divergent is not None
    assert not all(run.gates)
    assert run.metrics[0].agreement is not None
    assert run.metrics[0].agreement < 1


def test_one_bad_picture_of_many_fails_its_stage(tmp_path: Path) -> None:
    images = pictures(tmp_path / "images")
    candidate = TinyRunner(("stages",))
    honest = candidate.infer

    def sometimes(batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        outputs = honest(batch)
        if candidate.calls == 2:
            outputs["coarse"] = outputs["coarse"] + 0.01
        return outputs

    candidate.infer = sometimes  # type: ignore[method-assign]
    run = compare(candidate, reference(), dataset.pairs(images))
    assert not run
    assert run.first_divergent == "coarse"
    assert sorted(row.first_divergent or "" for row in run.per_picture) == ["", "", "coarse"]


def test_scores_against_truth(tmp_path: Path) -> None:
    images = pictures(tmp_path / "images")
    labels = truths(tmp_path / "labels", images)
    run = compare(TinyRunner(), reference(), dataset.pairs(images, labels))
    rows = {(row.prediction, row.against): row for row in run.metrics}
    assert set(rows) == {
        ("coarse", "truth"),
        ("reference", "truth"),
        ("bundle", "truth"),
        ("bundle", "reference"),
    }
    best = rows["reference", "truth"]
    assert best.miou == 1.0
    assert set(best.boundary_iou) == {"2 %", "1 px", "2 px", "3 px"}
    assert set(best.boundary_iou.values()) == {1.0}
    assert [row.name for row in best.classes] == [f"class {i}" for i in range(6)]
    coarse = rows["coarse", "truth"]
    assert coarse.miou is not None
    assert coarse.miou < 0.99
    assert run.per_picture[0].miou["reference"] == 1.0
    assert set(run.per_picture[0].boundary_iou_2px) == {"coarse", "reference", "bundle"}


def test_pictures_of_another_size_are_scored_at_their_own(tmp_path: Path) -> None:
    images = pictures(tmp_path / "images", hw=(50, 90))
    labels = tmp_path / "labels"
    labels.mkdir()
    for path in images.glob("*.png"):
        Image.fromarray(np.zeros((50, 90), np.uint8)).save(labels / path.name)
    pairs = dataset.pairs(images, labels)
    nearest = compare(TinyRunner(), reference(), pairs)
    assert nearest.labels_from == "labels-nearest"
    assert nearest.per_picture[0].size_hw == (50, 90)
    bilinear = compare(TinyRunner(("labels", "logits")), reference(), pairs)
    assert bilinear.labels_from == "logits-bilinear"


def test_pictures_that_cannot_be_read_are_skipped_and_said(tmp_path: Path) -> None:
    images = pictures(tmp_path / "images")
    (images / "1.png").write_bytes(b"not a picture")
    told: list[tuple[int, int, str]] = []
    run = compare(
        TinyRunner(batch=2),
        reference(2),
        dataset.pairs(images),
        progress=lambda done, total, name: told.append((done, total, name)),
    )
    assert run
    assert run.pictures == 2
    assert [item.name for item in run.skipped] == ["1"]
    assert "not a picture" in run.skipped[0].reason
    assert told[0] == (0, 3, "0")
    assert told[-1] == (3, 3, "")


def test_a_label_map_of_another_size_skips_its_picture(tmp_path: Path) -> None:
    images = pictures(tmp_path / "images", count=2)
    labels = truths(tmp_path / "labels", images)
    Image.fromarray(np.zeros((9, 9), np.uint8)).save(labels / "0.png")
    run = compare(TinyRunner(), reference(), dataset.pairs(images, labels))
    assert "is 9x9, its picture 64x96" in run.skipped[0].reason


def test_a_last_bad_picture_does_not_lose_the_batch_before_it(tmp_path: Path) -> None:
    images = pictures(tmp_path / "images")
    (images / "2.png").write_bytes(b"")
    assert compare(TinyRunner(batch=4), reference(4), dataset.pairs(images)).pictures == 2


def test_no_picture_at_all_is_an_error(tmp_path: Path) -> None:
    images = pictures(tmp_path / "images", count=1)
    (images / "0.png").write_bytes(b"x")
    with pytest.raises(DeployError, match="no picture could be compared"):
        compare(TinyRunner(), reference(), dataset.pairs(images))


def test_the_time_of_a_call_is_the_median_without_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = [5.0, 0.03, 0.01, 0.02]
    clock = iter(value for taken in seconds for value in (100.0, 100.0 + taken))
    monkeypatch.setattr(
        comparison, "time", SimpleNamespace(perf_counter=lambda: next(clock), monotonic=lambda: 0.0)
    )
    images = pictures(tmp_path / "images", count=7)
    run = compare(TinyRunner(batch=2), reference(2), dataset.pairs(images))
    assert (run.call_ms, run.batch) == (20.0, 2)
    clock = iter([0.0, 0.5])
    run = compare(TinyRunner(), reference(), dataset.pairs(pictures(tmp_path / "one", count=1)))
    assert run.call_ms == 500.0, "where there is but one call it counts"


def test_the_size_is_that_of_the_graphs_that_ran(tmp_path: Path) -> None:
    images = dataset.pairs(pictures(tmp_path / "images", count=1))
    assert compare(TinyRunner(), reference(), images).graph_bytes is None, "no such file"
    candidate = TinyRunner()
    candidate.bundle.path = tmp_path
    (tmp_path / "model.onnx").write_bytes(b"x" * 1234)
    assert compare(candidate, reference(), images).graph_bytes == 1234
    candidate.name = "tensorrt"
    assert compare(candidate, reference(), images).graph_bytes is None


def test_pictures_are_listed_worst_first(tmp_path: Path) -> None:
    images = pictures(tmp_path / "images", count=4)
    labels = truths(tmp_path / "labels", images)
    spoilt = np.asarray(Image.open(labels / "2.png")).copy()
    spoilt[10:40, 10:60] = (spoilt[10:40, 10:60] + 1) % 3
    Image.fromarray(spoilt).save(labels / "2.png")
    run = compare(TinyRunner(), reference(), dataset.pairs(images, labels))
    assert {row.agreement for row in run.per_picture} == {1.0}
    assert run.per_picture[0].name == "2"


def test_a_run_goes_into_the_record(tmp_path: Path) -> None:
    images = pictures(tmp_path / "images", count=1)
    run = compare(TinyRunner(("stages",)), reference(), dataset.pairs(images))
    parity = results.merged(results.Parity(), "compare", run)
    assert results.decode(results.encode(parity)).runs["compare"] == run


@pytest.mark.parametrize("out_hw", [(16, 24), (7, 31), (1, 1)])
def test_bilinear_is_that_of_torch(out_hw: tuple[int, int]) -> None:
    torch = pytest.importorskip("torch")
    maps = np.random.default_rng(0).standard_normal((3, 4, 6)).astype(np.float32)
    # In float64: how torch rounds coordinates in float32 depends on the CPU (1.3e-6 at worst).
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(maps).double()[None], size=out_hw, mode="bilinear", align_corners=False
    )[0].numpy()
    np.testing.assert_allclose(bilinear(maps, out_hw), expected, atol=1e-6)
    one = bilinear(maps[:, :1, :1], out_hw)
    np.testing.assert_array_equal(one, np.broadcast_to(maps[:, :1, :1], (3, *out_hw)))
