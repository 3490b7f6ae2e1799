"""What an export says of its checkpoint: which weights were taken, and what nothing checked."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from pointrend_deploy.bundle.manifest import MANIFEST, Manifest, WeightsRecord
from pointrend_deploy.wording import count_of

_NAMED = 3
"""Ignored tensors that are named."""
_SHOWN = 6
"""Values that were not checked and are shown."""
_LONGEST = 60
"""Characters of such a value that are shown."""


def checkpoint_lines(manifest: Manifest) -> list[str]:
    """Say which weights were taken, which were left, and which values nothing was compared with.

    Args:
        manifest: of the bundle that was written.

    Returns:
        Lines of an export's summary. There is no line on weights where the file has one set, whose
        names needed no change.
    """
    return [
        *(f"weights     {line}" for line in _weights(manifest.weights)),
        *(f"not checked {line}" for line in _not_checked(manifest)),
    ]


def _weights(record: WeightsRecord) -> Iterator[str]:
    if record.source_others:
        others = ", ".join(record.source_others)
        yield (
            f"taken from {record.source_key or 'the top level'} of {record.source_name}; "
            f"not used: {others} (--weights-key chooses)"
        )
    if record.source_prefix:
        yield f"the prefix {record.source_prefix} was taken off the names of the parameters"
    if ignored := record.source_ignored:
        more = f", and {len(ignored) - _NAMED} more" if len(ignored) > _NAMED else ""
        yield (
            f"{count_of(len(ignored), 'tensor')} ignored that the model has no place for: "
            f"{', '.join(ignored[:_NAMED])}{more}"
        )


def _not_checked(manifest: Manifest) -> Iterator[str]:
    values = manifest.not_checked
    if not values:
        return
    yield (
        f"{count_of(len(values), 'value')} taken from the recipe, which nothing in the checkpoint "
        f"tells ({MANIFEST} lists them), first:"
    )
    for each in values[:_SHOWN]:
        shown = msgspec.json.encode(each.value).decode()
        if len(shown) > _LONGEST:
            shown = f"{shown[: _LONGEST - 3]}..."
        yield f"  {each.key} = {shown}{f': {each.why}' if each.why else ''}"
