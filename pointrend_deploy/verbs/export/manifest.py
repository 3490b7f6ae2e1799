"""The manifest of a bundle that is being exported."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx

from pointrend_deploy.bundle.folder import WEIGHTS
from pointrend_deploy.bundle.manifest import (
    SCHEMA,
    Canvas,
    Manifest,
    Preprocess,
    TensorSpec,
    WeightsRecord,
)
from pointrend_deploy.bundle.records import NotChecked
from pointrend_deploy.recipe.read import AnyRecipe
from pointrend_deploy.verbs.export.options import ExportOptions
from pointrend_deploy.version import __version__

if TYPE_CHECKING:
    from onnx import ModelProto

    from pointrend_deploy.checkpoint.fit import Fitted
    from pointrend_deploy.model.reference import ReferenceModel


def manifest_of(
    recipe: AnyRecipe,
    options: ExportOptions,
    graphs: Mapping[str, ModelProto],
    weights: WeightsRecord,
    not_checked: tuple[NotChecked, ...] = (),
) -> Manifest:
    """Make the manifest, as yet without the bundle's files and what only one kind of model has.

    Args:
        recipe: of the model.
        options: of the export.
        graphs: by file name; the first one takes the picture.
        weights: what :func:`write_weights` gives.
        not_checked: values of the recipe that nothing in the checkpoint was compared with.
    """
    file, model = next(iter(graphs.items()))
    opset = next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    return Manifest(
        schema=SCHEMA,
        name=recipe.name,
        created_by=f"pointrend-deploy {__version__}",
        recipe=recipe,
        canvas=Canvas(
            size_hw=options.size_hw,
            padded_hw=options.padded_hw(recipe),
            batch=options.batch,
        ),
        preprocess=Preprocess(
            location=options.preprocess,
            channel_order=recipe.input.channel_order,
            pixel_mean=recipe.input.pixel_mean,
            pixel_std=recipe.input.pixel_std,
        ),
        inputs=tensor_specs(model.graph.input),
        outputs=tensor_specs(model.graph.output),
        ops=options.ops,
        opset=opset,
        graphs={"fp32": file},
        weights=weights,
        versions=installed_versions(),
        files={},
        not_checked=not_checked,
    )


def write_weights(
    model: ReferenceModel, name: str, folder: Path, include: bool, source_sha256: str, source: Path
) -> WeightsRecord:
    """Write a model's weights into the bundle, or only make the record of them.

    Args:
        model: of a checkpoint; its parameters have detectron2's names.
        name: of the recipe.
        folder: of the bundle.
        include: whether to write them.
        source_sha256: SHA-256 of the checkpoint they came from.
        source: path of that checkpoint.
    """
    from safetensors.torch import save

    tensors = {
        name: tensor.contiguous()
        for name, tensor in model.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    raw = save(tensors, {"recipe": name})
    if include:
        (folder / WEIGHTS).write_bytes(raw)
    return WeightsRecord(
        file=WEIGHTS,
        sha256=hashlib.sha256(raw).hexdigest(),
        included=include,
        source_sha256=source_sha256,
        source_name=source.name,
        **_source(model.fitted),
    )


def _source(fitted: Fitted | None) -> dict[str, Any]:
    """The record's fields of how the weights were found in their file."""
    if fitted is None:
        return {}
    return {
        "source_key": fitted.key,
        "source_others": fitted.others,
        "source_prefix": fitted.prefix,
        "source_ignored": fitted.ignored,
    }


def installed_versions() -> dict[str, str]:
    """Find the versions of Python and the packages an export is made with, by name."""
    found = {"pointrend-deploy": __version__, "python": platform.python_version()}
    for name in ("torch", "onnx", "onnxruntime", "onnxscript", "onnx-graphsurgeon", "numpy"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def tensor_specs(values: Iterable[onnx.ValueInfoProto]) -> tuple[TensorSpec, ...]:
    """Describe a graph's inputs or outputs: name, numpy dtype, shape; an open size is -1."""
    return tuple(
        TensorSpec(
            name=value.name,
            dtype=str(onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)),
            shape=tuple(
                -1 if size.HasField("dim_param") else size.dim_value
                for size in value.type.tensor_type.shape.dim
            ),
        )
        for value in values
    )
