"""A bundle: one folder with all files of a deployed model, and a manifest of their SHA-256.

``manifest.json`` has the resolved recipe, the pre-processing, the graph's inputs and outputs,
versions, the SHA-256 of every other file, and a digest of itself. Opening a bundle checks every
listed file that exists, so that a changed byte is an error instead of a wrong prediction.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from pointrend_deploy import atomic
from pointrend_deploy.bundle.forms import Precision
from pointrend_deploy.bundle.manifest import (
    MANIFEST,
    Manifest,
    WeightsRecord,
    encode_manifest,
    read_manifest,
)
from pointrend_deploy.bundle.records import EngineRecord
from pointrend_deploy.errors import DeployError, path_of

MODEL = "model.onnx"
DETECTOR = "detector.onnx"
MASKS = "masks.onnx"
WEIGHTS = "weights.safetensors"
PARITY = "parity.json"
REPORT = "report.html"
MARKDOWN = "report.md"
GALLERY = "gallery.json"
ENGINES = "engines"
RANGES = "ranges.json"


class Bundle:
    """An opened bundle; its files were checked against its manifest."""

    def __init__(self, path: Path, manifest: Manifest) -> None:
        self.path = path
        self.manifest = manifest

    def __repr__(self) -> str:
        """Name the folder, its model, size, precisions and channel order in one line."""
        return f"<Bundle {self.path}: {self.manifest.in_short()}>"

    @classmethod
    def open(cls, path: str | Path) -> Bundle:
        """Open and check a bundle.

        Args:
            path: the folder. A listed file that is missing is an error only when it is needed, so
                that a device can do without the weights.

        Raises:
            DeployError: the folder is no bundle, the manifest cannot be read or was altered, or a
                file was changed.
        """
        path = path_of(path, "the bundle", "give the folder that `export --out` wrote")
        manifest = read_manifest(path)
        bundle = cls(path, manifest)
        for name in manifest.files:
            if (path / name).is_file():
                bundle.file(name)
        return bundle

    def graphs_of(self, precision: Precision) -> tuple[str, ...]:
        """List the files of the graphs of one precision; see :meth:`Manifest.graphs_of`."""
        return self.manifest.graphs_of(precision, self.path)

    def file(self, name: str) -> Path:
        """Check the SHA-256 of a listed file and return its path.

        Raises:
            DeployError: not listed, missing, or changed.
        """
        expected = self.manifest.files.get(name)
        path = self.path / name
        if expected is None or not path.is_file():
            raise DeployError(
                f"the bundle {self.path} has no {name}",
                "export it again, or copy the whole folder",
            )
        actual = sha256_of(path)
        if actual not in (expected, self.manifest.previous.get(name)):
            raise DeployError(
                f"{path} is not the file that was exported: its SHA-256 begins {actual[:12]}, the "
                f"manifest says {expected[:12]}",
                "the file was changed or damaged in copying; copy or export the bundle again",
            )
        return path

    def update(
        self,
        files: Mapping[str, str | bytes],
        change: Callable[[Manifest], Manifest] | None = None,
    ) -> Bundle:
        """Write files into the bundle and list them.

        The bundle is valid at every moment. First all new contents go to disk under temporary
        names; then the manifest lists their SHA-256 beside the old ones; then the files are moved
        into place; last the manifest drops the old SHA-256. There is one writer at a time, and
        leftovers of killed writers are removed.

        Args:
            files: contents by file name.
            change: makes the new manifest from the one on disk; None to change only its files.

        Returns:
            The bundle with its new manifest.

        Raises:
            DeployError: the disk refuses; the bundle stays as it was.
        """
        data = {
            name: text.encode() if isinstance(text, str) else text for name, text in files.items()
        }
        new = {name: hashlib.sha256(raw).hexdigest() for name, raw in data.items()}
        with atomic.locked(self.path):
            now = read_manifest(self.path)
            hashes = dict(sorted({**now.files, **new}.items()))
            changed = now if change is None else change(now)
            manifest = msgspec.structs.replace(changed, files=hashes, previous={})
            old = Bundle(self.path, now)._accepted(new)

            def vouch_for_both() -> None:
                self._write(msgspec.structs.replace(manifest, previous=old))

            atomic.replace_together(
                {self.path / name: raw for name, raw in data.items()}, vouch_for_both
            )
            self._write(manifest)
            for name in (*data, MANIFEST):
                with suppress(OSError):  # only leftovers: the bundle itself is written
                    atomic.clear_left_over(self.path / name)
        return Bundle(self.path, manifest)

    def add_engine(self, name: str, record: EngineRecord, folder: Path) -> Bundle:
        """Move a folder with an engine and its records to ``engines/<name>`` and list it.

        A folder that is there is replaced. Before the move the manifest lists the new files beside
        the old ones, so that the bundle is valid at every moment.

        Args:
            name: of the folder, such as rtx-sm86-fp32-plugin.
            record: the manifest's entry for it.
            folder: has files only, on the bundle's file system; it is moved away.

        Returns:
            The bundle with its new manifest.

        Raises:
            DeployError: the disk refuses; the bundle stays as it was.
        """
        prefix = f"{ENGINES}/{name}/"
        new = {prefix + path.name: sha256_of(path) for path in sorted(folder.iterdir())}
        with atomic.locked(self.path):
            now = read_manifest(self.path)
            kept = {key: value for key, value in now.files.items() if not key.startswith(prefix)}
            manifest = msgspec.structs.replace(
                now,
                files=dict(sorted({**kept, **new}.items())),
                previous={},
                engines=dict(sorted({**now.engines, name: record}.items())),
            )
            old = Bundle(self.path, now)._accepted(new)
            with atomic.replacing(self.path / ENGINES / name) as place:
                folder.rename(place)
                self._write(msgspec.structs.replace(manifest, previous=old))
            self._write(manifest)
        return Bundle(self.path, manifest)

    def _accepted(self, names: Iterable[str]) -> dict[str, str]:
        """Find the SHA-256 of the files that exist and match the manifest, now or before."""
        found = {}
        for name in names:
            if (self.path / name).is_file():
                actual = sha256_of(self.path / name)
                if actual in (self.manifest.files.get(name), self.manifest.previous.get(name)):
                    found[name] = actual
        return found

    def _write(self, manifest: Manifest) -> None:
        atomic.write_bytes(self.path / MANIFEST, encode_manifest(manifest))


def is_bundle(path: Path) -> bool:
    """Whether a folder has the manifest of a bundle, valid or not."""
    try:
        table = msgspec.json.decode((path / MANIFEST).read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(table, dict) and {"schema", "graphs", "files", "digest"} <= set(table)


def refuse_bundle(out: Path) -> None:
    """Refuse a folder for results that is a bundle or lies in one.

    Raises:
        DeployError: it is, or it does: results may replace files that the manifest vouches for.
    """
    if is_bundle(out.resolve()):
        raise DeployError(
            f"{out} is a bundle; results would be mixed with its files", "choose another --out"
        )
    refuse_inside_bundle(out)


def refuse_inside_bundle(out: Path, option: str = "--out") -> None:
    """Refuse a path for new files that lies in a bundle, at any depth.

    Args:
        out: the file or folder to write; it may be a bundle itself.
        option: that names it.

    Raises:
        DeployError: it lies in a bundle, whose manifest would not list what is written.
    """
    for folder in out.resolve().parents:
        if is_bundle(folder):
            raise DeployError(
                f"{out} lies in the bundle {folder}; results would be mixed with its files",
                f"choose another {option}, outside of that folder",
            )


def refuse_bundle_around(out: Path, bundle: Bundle) -> None:
    """Refuse a folder for results that is a bundle, lies in one or contains one.

    Args:
        out: the folder for the results.
        bundle: may lie at any depth in it; of other bundles those directly in ``out`` are looked
            for.

    Raises:
        DeployError: the folder is not one for results.
    """
    refuse_bundle(out)
    here = out.resolve()
    inside = bundle.path if bundle.path.resolve().is_relative_to(here) else None
    if inside is None and here.is_dir():
        inside = next((each for each in sorted(here.iterdir()) if is_bundle(each)), None)
    if inside is not None:
        raise DeployError(
            f"{out} contains the bundle {inside}; results would be mixed with it",
            "choose another --out, such as a new folder in it",
        )


def choices_of_export(record: WeightsRecord, weights: Path) -> dict[str, Any]:
    """Return the choices with which an export read its checkpoint, to read it the same way again.

    Args:
        record: of the bundle's weights.
        weights: the checkpoint, or the weights that the bundle has.

    Returns:
        Arguments ``weights_key`` and ``ignore_extra`` of
        :func:`~pointrend_deploy.model.load.load_model`; none for the bundle's own weights, which
        are one set and complete.
    """
    if not (record.source_key or record.source_ignored):
        return {}
    if sha256_of(weights) != record.source_sha256:
        return {}
    return {
        "weights_key": record.source_key or None,
        "ignore_extra": bool(record.source_ignored),
    }


def sha256_of(path: str | Path) -> str:
    """Compute the hexadecimal SHA-256 of a file. Raises DeployError where it cannot be read."""
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as file:
            while piece := file.read(1 << 22):
                digest.update(piece)
    except OSError as error:
        raise DeployError(f"cannot read {path}: {error.strerror or error}") from error
    return digest.hexdigest()
