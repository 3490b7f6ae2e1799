"""No verb writes into a bundle's folder what the bundle's manifest would disown."""

from __future__ import annotations

from pathlib import Path

import pytest

from pointrend_deploy.bundle.folder import Bundle
from pointrend_deploy.errors import DeployError
from pointrend_deploy.verbs.calibrate.calibrate import CalibrateOptions, calibrate_bundle
from pointrend_deploy.verbs.compare import compare_bundle
from pointrend_deploy.verbs.export.options import refuse_to_overwrite
from pointrend_deploy.verbs.report import write_reports
from tests.fixtures.tiny_bundle import colour_picture, save_pictures, write_tiny_bundle


@pytest.mark.parametrize(
    ("out", "words"),
    [("bundle", "is a bundle"), ("bundle/reports", "lies in"), ("other", "is a bundle")],
)
def test_a_bundle_is_refused(tmp_path: Path, out: str, words: str) -> None:
    bundle = write_tiny_bundle(tmp_path / "bundle")
    write_tiny_bundle(tmp_path / "other")
    images = save_pictures(tmp_path / "in", {"a.png": colour_picture(32, 48)})
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    with pytest.raises(DeployError, match=words):
        compare_bundle(bundle, images, out=tmp_path / out)
    with pytest.raises(DeployError, match=words):
        write_reports(bundle, tmp_path / out)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
    assert Bundle.open(bundle) and Bundle.open(tmp_path / "other")


@pytest.mark.parametrize("place", ["new", "engines/deep/new"])
def test_what_is_written_elsewhere_is_not_written_into_another_bundle(
    tmp_path: Path, place: str
) -> None:
    bundle, other = (write_tiny_bundle(tmp_path / name) for name in ("bundle", "other"))
    images = save_pictures(tmp_path / "in", {"a.png": colour_picture(32, 48)})
    out = other / place
    with pytest.raises(DeployError, match="lies in the bundle") as caught:
        refuse_to_overwrite(out, force=True)
    assert "another --out" in caught.value.hint
    for option in ("out", "cache"):
        with pytest.raises(DeployError, match="lies in the bundle") as caught:
            calibrate_bundle(bundle, images, CalibrateOptions(**{option: out}))
        assert f"another --{option}, outside of that folder" in caught.value.hint
    assert not (other / place.split("/")[0]).exists()


def test_a_folder_beside_a_bundle_is_fine(tmp_path: Path) -> None:
    bundle = write_tiny_bundle(tmp_path / "bundle")
    written = write_reports(bundle, tmp_path)
    assert [path.name for path in written] == ["report.html", "report.md"]
    assert all(path.parent == tmp_path for path in written)
