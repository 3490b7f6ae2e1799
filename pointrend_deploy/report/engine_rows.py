"""The rows of the table of engines: layers and bytes, counted and not measured."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath

from pointrend_deploy.bundle.manifest import Manifest
from pointrend_deploy.bundle.records import EngineShape
from pointrend_deploy.engine.shape import BANDWIDTHS_GB_S, SHOWN_DEVICES, bound_ms, gigabytes
from pointrend_deploy.report.figures import counted, milliseconds

DEVICES = tuple(f"{name}, {BANDWIDTHS_GB_S[name]:.0f} GB/s" for name in SHOWN_DEVICES)
"""Heads of the columns of times."""


@dataclass(frozen=True)
class EngineRow:
    """One engine file.

    Attributes:
        name: its folder and file, and what it was counted with.
        outdated: whether the bundle's graph is no longer the one that it was built from.
        layers, plugins, reformats: numbers of layers.
        moved: what all layers read and write.
        parts: layers and bytes of each part of the network.
        times: to move the bytes once, for each of ``DEVICES``.
    """

    name: str
    outdated: bool
    layers: int
    plugins: int
    reformats: int
    moved: str
    parts: tuple[str, ...]
    times: tuple[str, ...]


def engine_rows(manifest: Manifest) -> tuple[EngineRow, ...]:
    """Make a row for each engine of a bundle whose layers were counted when it was built."""
    return tuple(
        _row(
            f"{folder}/{PurePosixPath(engine.file).name}",
            engine.shape,
            not manifest.still_has_graphs_of(record),
        )
        for folder, record in manifest.engines.items()
        for engine in record.engines
        if engine.shape is not None
    )


def _row(name: str, shape: EngineShape, outdated: bool) -> EngineRow:
    sizes = "".join(f", {size} = {value}" for size, value in shape.sizes.items())
    return EngineRow(
        name=name + sizes,
        outdated=outdated,
        layers=shape.layers,
        plugins=sum(shape.plugins.values()),
        reformats=shape.reformats,
        moved=gigabytes(shape.bytes),
        parts=tuple(
            f"{part}: {counted(one.layers, 'layer')}, {gigabytes(one.bytes)}"
            for part, one in shape.parts.items()
        ),
        times=tuple(
            milliseconds(bound_ms(shape.bytes, BANDWIDTHS_GB_S[device])) for device in SHOWN_DEVICES
        ),
    )
