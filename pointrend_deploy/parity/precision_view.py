"""The table of precisions as a reader meets it, for HTML, Markdown and the terminal alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pointrend_deploy.parity.figures import NONE
from pointrend_deploy.parity.precision_results import PrecisionColumn, PrecisionTable
from pointrend_deploy.parity.precision_rows import Group, groups
from pointrend_deploy.parity.precision_stages import ENTRY_DB, entry


@dataclass(frozen=True)
class NoiseRow:
    """A stage and each lower precision's SNR there.

    Attributes:
        cells: such as ``41 dB``, ``equal`` or a dash.
        shares: of the longest bar, in 0..1; None without one.
        enters: whether the error enters here, by precision.
    """

    stage: str
    cells: tuple[str, ...]
    shares: tuple[float | None, ...]
    enters: tuple[bool, ...]


@dataclass(frozen=True)
class View:
    """All that is shown of a table."""

    precisions: tuple[str, ...]
    simulated: tuple[str, ...]
    groups: tuple[Group, ...]
    lower: tuple[str, ...]
    noise: tuple[NoiseRow, ...]
    entries: tuple[str, ...]
    outdated: tuple[str, ...]


FULL_BAR_DB = 80.0
"""An SNR that fills a bar: FP16's own rounding is 66 to 72 dB below its values."""


def view(table: PrecisionTable, files: Mapping[str, str] | None = None) -> View:
    """What a reader sees of a table.

    Args:
        table: as recorded.
        files: SHA-256 of the bundle's files now; graphs that are others today are named.
    """
    columns = table.columns
    lower = tuple(column for column in columns if column.stages)
    return View(
        precisions=tuple(column.precision for column in columns),
        simulated=tuple(column.precision for column in columns if column.simulated),
        groups=groups(table),
        lower=tuple(column.precision for column in lower),
        noise=_noise(lower),
        entries=tuple(map(entry_sentence, lower)),
        outdated=tuple(
            column.precision
            for column in columns
            if files is not None
            and any(files.get(name) != digest for name, digest in column.graphs.items())
        ),
    )


def entry_sentence(column: PrecisionColumn) -> str:
    """Where the error of a precision enters, in a sentence."""
    first = entry(column.stages)
    known = [each.snr_db for each in column.stages if each.snr_db is not None]
    if first is not None:
        how = first.problem or f"{first.snr_db:.0f} dB"
        return f"{column.precision}: the error enters at {first.stage} ({how})"
    if known:
        return (
            f"{column.precision}: no stage falls below {ENTRY_DB:.0f} dB; least {min(known):.0f} dB"
        )
    return f"{column.precision}: every stage equals the FP32 graph's"


def _noise(lower: Sequence[PrecisionColumn]) -> tuple[NoiseRow, ...]:
    if not lower:
        return ()
    first = [entry(column.stages) for column in lower]
    rows = []
    for number, stage in enumerate(lower[0].stages):
        found = [column.stages[number] for column in lower]
        rows.append(
            NoiseRow(
                stage=stage.stage,
                cells=tuple(
                    each.problem or ("equal" if each.noise == 0 else NONE)
                    if each.snr_db is None
                    else f"{each.snr_db:.0f} dB"
                    for each in found
                ),
                shares=tuple(
                    None if each.snr_db is None else min(max(each.snr_db / FULL_BAR_DB, 0.0), 1.0)
                    for each in found
                ),
                enters=tuple(each is mark for each, mark in zip(found, first, strict=True)),
            )
        )
    return tuple(rows)
