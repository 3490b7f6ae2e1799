"""The manifest of a bundle: the model, the graphs' inputs and outputs, and a digest of itself."""

from __future__ import annotations

import hashlib
import math
import shlex
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final, Literal

import msgspec

from pointrend_deploy.bundle.forms import Layout, MaskForm, Ops, Precision, PreprocessPlace
from pointrend_deploy.bundle.records import EngineRecord, NotChecked, QuantizedRecord
from pointrend_deploy.errors import DeployError
from pointrend_deploy.recipe.instance import InstanceRecipe
from pointrend_deploy.recipe.parts import LATER_KEYS, ChannelOrder
from pointrend_deploy.recipe.read import AnyRecipe, check_any_recipe
from pointrend_deploy.recipe.semantic import Recipe

MANIFEST = "manifest.json"
SCHEMA = 1
"""Version of the manifest's form; a reader refuses any other."""


LARGEST_SIDE: Final = 2**15
"""Largest height or width of a canvas, in pixels, and largest batch, that a manifest may have."""


class _Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A table of the manifest."""


class Canvas(_Part, frozen=True):
    """The fixed area the graph sees.

    Attributes:
        size_hw: height and width inside which a picture is fitted; its aspect ratio is kept.
        padded_hw: the same, padded at the bottom and right to the recipe's multiple; the size of
            the graph's input.
        batch: pictures in one call, N.
    """

    size_hw: tuple[int, int]
    padded_hw: tuple[int, int]
    batch: int


class Preprocess(_Part, frozen=True):
    """From RGB pixels to the graph's input.

    With ``outside`` the caller resizes, orders the channels, subtracts the mean, divides by the
    deviation, then pads with ``pad_value``. With ``in-graph`` the caller resizes, orders the
    channels and places the picture at the canvas's upper left corner; the graph does the rest.
    """

    location: PreprocessPlace
    channel_order: ChannelOrder
    pixel_mean: tuple[float, float, float]
    pixel_std: tuple[float, float, float]
    pad_value: float = 0.0
    resize: Literal["pillow-bilinear"] = "pillow-bilinear"


class TensorSpec(_Part, frozen=True):
    """An input or output of a graph: its name, its numpy dtype's name and its shape.

    Shapes are static, except that in ``masks.onnx`` of a split layout -1 stands for the number of
    RoIs, R.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class GraphEnds:
    """What one graph of a bundle takes and gives.

    Attributes:
        inputs: in the graph's order.
        outputs: in the graph's order.
        most: largest value of a first dimension that is -1 (dynamic); 1 where none is.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    most: int = 1


class WeightsRecord(_Part, frozen=True):
    """The weights that the graph was made from.

    Attributes:
        file: name of the safetensors file.
        sha256: of that file, also when it is not included.
        included: whether the bundle has it.
        source_sha256: of the checkpoint that the user gave.
        source_name: that checkpoint's file name, without its folder.
        source_key: where in that checkpoint the weights stand; empty for its top level.
        source_others: keys of further sets of weights in it, which were not used.
        source_prefix: taken off its parameters' names; empty where there was none.
        source_ignored: names of its tensors that the model has no place for, ignored by the
            user's choice.
    """

    file: str
    sha256: str
    included: bool
    source_sha256: str
    source_name: str
    source_key: str = ""
    source_others: tuple[str, ...] = ()
    source_prefix: str = ""
    source_ignored: tuple[str, ...] = ()


class InstanceExport(_Part, frozen=True):
    """The outputs of an instance bundle.

    Attributes:
        detections: rows of the outputs, D; rows past ``num_detections`` are zero.
        masks: ``prob`` float32 probabilities, ``prob-u8`` uint8 round(255 p), ``logits`` float32.
        mask_side: side S of a mask.
        layout: ``single``, or ``split`` into a detector and a mask graph.
        mask_graphs: file of the mask graph by precision; empty where the layout is single.
        mask_inputs: of the mask graph: ``boxes`` (R, 4), ``classes`` (R,) and the feature maps of
            one picture.
        mask_outputs: of the mask graph: ``masks`` (R, S, S).
    """

    detections: int
    masks: MaskForm
    mask_side: int
    layout: Layout = "single"
    mask_graphs: dict[str, str] = {}
    mask_inputs: tuple[TensorSpec, ...] = ()
    mask_outputs: tuple[TensorSpec, ...] = ()


class Manifest(_Part, frozen=True):
    """The contents of ``manifest.json``.

    Attributes:
        schema: version of the manifest's form.
        name: of the model, from the recipe.
        created_by: the program and its version.
        recipe: as resolved when the bundle was exported.
        canvas: the size of the graph's input.
        preprocess: how a picture becomes that input.
        inputs: of the first graph, in order.
        outputs: of the first graph, in order.
        ops: whether custom nodes or standard nodes alone were exported.
        opset: of ONNX.
        graphs: file of the graph by precision; of a split layout, the detector's.
        weights: the weights that the graph was made from.
        versions: of the packages that made the bundle.
        files: SHA-256 of every other file, by name.
        previous: SHA-256 of files that were being replaced when a writer was stopped; empty
            otherwise.
        instance: outputs of an instance bundle; None for a semantic one.
        engines: what `build` made, by the name of the folder under ``engines/``.
        quantized: how the graphs of ``fp16`` and ``int8`` were made, by precision.
        not_checked: values of the recipe that nothing in the checkpoint was compared with; empty
            in a bundle of an earlier version.
    """

    schema: int
    name: str
    created_by: str
    recipe: AnyRecipe
    canvas: Canvas
    preprocess: Preprocess
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    ops: Ops
    opset: int
    graphs: dict[str, str]
    weights: WeightsRecord
    versions: dict[str, str]
    files: dict[str, str]
    previous: dict[str, str] = {}
    instance: InstanceExport | None = None
    engines: dict[str, EngineRecord] = {}
    quantized: dict[str, QuantizedRecord] = {}
    not_checked: tuple[NotChecked, ...] = ()

    @property
    def semantic(self) -> Recipe:
        """The recipe of a semantic bundle. Raises DeployError on an instance bundle."""
        if isinstance(self.recipe, InstanceRecipe):
            raise DeployError(f"{self.name} is an instance bundle; this needs a semantic one")
        return self.recipe

    @property
    def instances(self) -> tuple[InstanceRecipe, InstanceExport]:
        """Recipe and outputs of an instance bundle. Raises DeployError on a semantic bundle."""
        if not isinstance(self.recipe, InstanceRecipe) or self.instance is None:
            raise DeployError(f"{self.name} is a semantic bundle; this needs an instance one")
        return self.recipe, self.instance

    def graphs_of(self, precision: Precision, bundle: str | Path = "BUNDLE") -> tuple[str, ...]:
        """List the files of the graphs of one precision, in the order they run.

        Args:
            precision: fp32, fp16 or int8.
            bundle: folder of the bundle, for the command in the hint.

        Raises:
            DeployError: the bundle has none.
        """
        tables = [self.graphs]
        if self.instance is not None and self.instance.mask_graphs:
            tables.append(self.instance.mask_graphs)
        if any(precision not in table for table in tables):
            raise DeployError(
                f"the bundle {self.name} has no {precision} graph, only "
                f"{', '.join(sorted(self.graphs))}",
                f"make it first: pointrend-deploy quantize {shlex.quote(str(bundle))} "
                f"--precision {precision}",
            )
        return tuple(table[precision] for table in tables)

    def still_has_graphs_of(self, engines: EngineRecord) -> bool:
        """Whether these engines were built from the graphs that the bundle has now."""
        return all(self.files.get(e.source) == e.source_sha256 for e in engines.engines)

    def in_short(self, *precisions: Precision) -> str:
        """Say in one line what the bundle is: ``demo, semantic, 512x1024, fp32, BGR pictures``.

        Args:
            precisions: those to name; the bundle's graphs' where none is given.
        """
        height, width = self.canvas.size_hw
        facts = [self.name, self.recipe.task, f"{height}x{width}"]
        if self.canvas.batch > 1:
            facts.append(f"batch {self.canvas.batch}")
        facts.append("+".join(precisions or self.graphs))
        return ", ".join([*facts, f"{self.preprocess.channel_order} pictures"])

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names of the graph's outputs, in order."""
        return tuple(spec.name for spec in self.outputs)

    def output(self, name: str) -> TensorSpec | None:
        """Find the output of a name; None where it was not exported."""
        return next((spec for spec in self.outputs if spec.name == name), None)


_LATER: Final = ("not_checked",)
_LATER_OF_WEIGHTS: Final = ("source_key", "source_others", "source_prefix", "source_ignored")
_LATER_OF_ENGINES: Final = ("ran",)
_LATER_OF_ENGINE_FILES: Final = ("shape",)
"""Fields that earlier versions do not know: left out where they are empty."""


def encode_manifest(manifest: Manifest) -> bytes:
    """Write a manifest as JSON, with a digest of its other contents under ``digest``."""
    table = msgspec.to_builtins(manifest)
    for key, names in LATER_KEYS.items():
        part = getattr(manifest.recipe, key, None)
        defaults = {} if part is None else {f.name: f.default for f in msgspec.structs.fields(part)}
        for name in names:
            if name in defaults and getattr(part, name) == defaults[name]:
                del table["recipe"][key][name]
    later = [(table, _LATER), (table["weights"], _LATER_OF_WEIGHTS)]
    for record in table["engines"].values():
        later.append((record, _LATER_OF_ENGINES))
        later += [(engine, _LATER_OF_ENGINE_FILES) for engine in record["engines"]]
    for part, names in later:
        for name in names:
            if not part[name]:
                del part[name]
    table["digest"] = _digest(table)
    return msgspec.json.format(msgspec.json.encode(table), indent=2) + b"\n"


def _digest(table: dict[str, Any]) -> str:
    return hashlib.sha256(msgspec.json.encode(table, order="deterministic")).hexdigest()


def read_manifest(path: Path) -> Manifest:
    """Read and check the manifest of a bundle's folder.

    Raises:
        DeployError: there is none, it was altered, or it has another schema.
    """
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
    check_any_recipe(manifest.recipe, str(where))
    if problem := _problem(manifest):
        raise DeployError(f"{where}: {problem}", "export the bundle again")
    if isinstance(manifest.recipe, InstanceRecipe) != (manifest.instance is not None):
        raise DeployError(f"{where}: recipe and outputs are of different tasks")
    return manifest


def _problem(manifest: Manifest) -> str:
    """Say which values of a manifest no export writes; empty where there are none."""
    canvas, preprocess = manifest.canvas, manifest.preprocess
    fitted = zip(canvas.size_hw, canvas.padded_hw, strict=True)
    if not all(1 <= size <= padded <= LARGEST_SIDE for size, padded in fitted):
        return f"`canvas` of {canvas.size_hw}, padded to {canvas.padded_hw}"
    if not 1 <= canvas.batch <= LARGEST_SIDE:
        return f"`canvas.batch` of {canvas.batch}"
    if not all(math.isfinite(std) and std > 0 for std in preprocess.pixel_std):
        return "`preprocess.pixel_std` is not of positive numbers"
    if not all(map(math.isfinite, (*preprocess.pixel_mean, preprocess.pad_value))):
        return "`preprocess` has numbers that are not finite"
    if "fp32" not in manifest.graphs:
        return "`graphs` has no fp32"
    return ""
