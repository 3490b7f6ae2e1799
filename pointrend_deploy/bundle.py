"""A bundle: one folder with everything a deployed model is, and the manifest that vouches for it.

``manifest.json`` holds the recipe as resolved, the pre-processing, the graph's inputs and outputs,
versions, and the SHA-256 of every other file; it carries a digest of itself. Opening a bundle
checks every listed file that is there, so a byte changed anywhere is an error and not an answer.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import msgspec

from pointrend_deploy import atomic
from pointrend_deploy.errors import DeployError
from pointrend_deploy.recipe import ChannelOrder, Recipe, check_recipe

MANIFEST = "manifest.json"
MODEL = "model.onnx"
WEIGHTS = "weights.safetensors"
PARITY = "parity.json"
REPORT = "report.html"
MARKDOWN = "report.md"
GALLERY = "gallery.json"
SCHEMA = 1
"""Version of the manifest's form; a reader refuses any other."""


class _Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A table of the manifest."""


class Canvas(_Part, frozen=True):
    """The fixed area the graph sees.

    Attributes:
        size_hw: a picture is fitted inside this height and width, aspect kept.
        padded_hw: the same, padded bottom and right to the recipe's multiple: the graph's size.
        batch: pictures in one call, N.
    """

    size_hw: tuple[int, int]
    padded_hw: tuple[int, int]
    batch: int


class Preprocess(_Part, frozen=True):
    """From RGB pixels to the graph's input.

    ``outside``: resize, order the channels, subtract the mean, divide by the deviation, then pad
    with ``pad_value``. ``in-graph``: the graph does all but the resizing, the channel order and
    the placing of the picture at the canvas's upper left corner.
    """

    location: Literal["outside", "in-graph"]
    channel_order: ChannelOrder
    pixel_mean: tuple[float, float, float]
    pixel_std: tuple[float, float, float]
    pad_value: float = 0.0
    resize: Literal["pillow-bilinear"] = "pillow-bilinear"


class TensorSpec(_Part, frozen=True):
    """A named tensor of the graph: numpy dtype name and static shape."""

    name: str
    dtype: str
    shape: tuple[int, ...]


class WeightsRecord(_Part, frozen=True):
    """Which weights the graph was made from.

    Attributes:
        file: name of the safetensors file.
        sha256: of that file, also when it is not included.
        included: whether the bundle holds it.
        source_sha256: of the checkpoint the user gave.
        source_name: that checkpoint's file name, without its folder.
    """

    file: str
    sha256: str
    included: bool
    source_sha256: str
    source_name: str


class Manifest(_Part, frozen=True):
    """Contents of ``manifest.json``; see the module and the parts above.

    ``files`` holds the SHA-256 of every other file; ``previous`` those of files that were being
    replaced when a writer was stopped, and is empty otherwise.
    """

    schema: int
    name: str
    created_by: str
    recipe: Recipe
    canvas: Canvas
    preprocess: Preprocess
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    ops: Literal["plugin", "native"]
    opset: int
    graphs: dict[str, str]
    weights: WeightsRecord
    versions: dict[str, str]
    files: dict[str, str]
    previous: dict[str, str] = {}

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names of the graph's outputs, in order."""
        return tuple(spec.name for spec in self.outputs)

    def output(self, name: str) -> TensorSpec | None:
        """The output of that name, or None when it was not exported."""
        return next((spec for spec in self.outputs if spec.name == name), None)


class Bundle:
    """An opened bundle whose files were checked against its manifest."""

    def __init__(self, path: Path, manifest: Manifest) -> None:
        self.path = path
        self.manifest = manifest

    @classmethod
    def open(cls, path: str | Path) -> Bundle:
        """Open and check a bundle.

        Args:
            path: the folder. Listed files that are absent are an error only when asked for, so the
                weights may be left behind on a device.

        Raises:
            DeployError: no bundle there, an unreadable or altered manifest, a changed file.
        """
        path = Path(path)
        manifest = _read_manifest(path)
        bundle = cls(path, manifest)
        for name in manifest.files:
            if (path / name).is_file():
                bundle.file(name)
        return bundle

    def file(self, name: str) -> Path:
        """Path of a listed file, once its SHA-256 agrees with the manifest.

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

    def update(self, files: Mapping[str, str]) -> Bundle:
        """Write text files into the bundle and list them.

        The bundle is sound at every moment: all new contents are on disk before the manifest
        vouches for them beside the old ones, only then do they take their places, and last the
        manifest forgets the old ones. One writer at a time.

        Args:
            files: text by file name.

        Returns:
            The bundle with its new manifest.

        Raises:
            DeployError: the disk refuses; the bundle is as it was.
        """
        data = {name: text.encode() for name, text in files.items()}
        new = {name: hashlib.sha256(raw).hexdigest() for name, raw in data.items()}
        with atomic.locked(self.path):
            now = _read_manifest(self.path)
            hashes = dict(sorted({**now.files, **new}.items()))
            manifest = msgspec.structs.replace(now, files=hashes, previous={})
            old = Bundle(self.path, now)._accepted(new)

            def vouch_for_both() -> None:
                self._write(msgspec.structs.replace(manifest, previous=old))

            atomic.replace_together(
                {self.path / name: raw for name, raw in data.items()}, vouch_for_both
            )
            self._write(manifest)
        return Bundle(self.path, manifest)

    def _accepted(self, names: Iterable[str]) -> dict[str, str]:
        """SHA-256 of those files that are there as the manifest knows them, now or before."""
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
    """Whether a folder's manifest is one of ours, sound or not."""
    try:
        table = msgspec.json.decode((path / MANIFEST).read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(table, dict) and {"schema", "graphs", "files", "digest"} <= set(table)


def sha256_of(path: str | Path) -> str:
    """Hexadecimal SHA-256 of a file, read in pieces. Raises DeployError where it cannot be read."""
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as file:
            while piece := file.read(1 << 22):
                digest.update(piece)
    except OSError as error:
        raise DeployError(f"cannot read {path}: {error.strerror or error}") from error
    return digest.hexdigest()


def encode_manifest(manifest: Manifest) -> bytes:
    """JSON of a manifest, with the digest of its own contents under ``digest``."""
    table = msgspec.to_builtins(manifest)
    table["digest"] = _digest(table)
    return msgspec.json.format(msgspec.json.encode(table), indent=2) + b"\n"


def _digest(table: dict[str, Any]) -> str:
    return hashlib.sha256(msgspec.json.encode(table, order="deterministic")).hexdigest()


def _read_manifest(path: Path) -> Manifest:
    where = path / MANIFEST
    if not where.is_file():
        raise DeployError(
            f"{path} is not a bundle: it has no {MANIFEST}",
            "give the folder that `pointrend-deploy export --out` wrote",
        )
    try:
        table = msgspec.json.decode(where.read_bytes())
    except (msgspec.DecodeError, UnicodeDecodeError, OSError, RecursionError) as error:
        raise DeployError(f"{where} is not readable: {error}", "export the bundle again") from error
    if not isinstance(table, dict) or not isinstance(table.get("schema"), int):
        raise DeployError(f"{where} is not a bundle's manifest", "export the bundle again")
    if table["schema"] != SCHEMA:
        raise DeployError(
            f"{where} has schema {table['schema']}; this version reads schema {SCHEMA}",
            "export the bundle again with this version",
        )
    digest = table.pop("digest", None)
    if digest != _digest(table):
        raise DeployError(
            f"{where} was changed after it was written: its digest does not agree",
            "a manifest is not edited by hand: export the bundle again with what you want",
        )
    try:
        manifest = msgspec.convert(table, Manifest)
    except msgspec.ValidationError as error:
        raise DeployError(f"{where}: {error}", "export the bundle again") from error
    for name in manifest.files:
        parts = PurePosixPath(name).parts
        if not parts or name.startswith("/") or ".." in parts:
            raise DeployError(f"{where} lists a file outside the bundle: {name!r}")
    check_recipe(manifest.recipe, str(where))
    return manifest
