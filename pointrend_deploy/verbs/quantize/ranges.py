"""Find the ranges for an INT8 graph: in the bundle, a file of ranges, or a TensorRT cache."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pointrend_deploy.bundle.folder import RANGES, Bundle, sha256_of
from pointrend_deploy.errors import DeployError, UsageError
from pointrend_deploy.quantize.placement import Placement
from pointrend_deploy.quantize.ranges import Ranges, decode
from pointrend_deploy.quantize.scales import PERCENTILE, all_amax
from pointrend_deploy.quantize.tensorrt_cache import is_cache, read_cache
from pointrend_deploy.verbs.quantize.options import QuantizeOptions

_LISTED: Final = 4
"""Most names of values in an error."""


@dataclass(frozen=True)
class UsedRanges:
    """Ranges for the graphs of a bundle.

    Attributes:
        amax: by graph file and value, the largest absolute value to represent.
        method: entropy, percentile, mse, max, or cache.
        described: method and file, for the terminal.
        sha256: SHA-256 of the file.
        pictures: number of pictures they were calibrated on; None if not known.
        notes: warnings.
    """

    amax: dict[str, dict[str, float]]
    method: str
    described: str
    sha256: str
    pictures: int | None
    notes: tuple[str, ...] = ()


def ranges_for(
    bundle: Bundle, options: QuantizeOptions, placements: Mapping[str, Placement]
) -> UsedRanges:
    """Find a range for every value that the placements quantise.

    Args:
        bundle: the bundle the ranges are for.
        options: ``ranges``, ``method`` and ``percentile`` are used.
        placements: placement of each graph, by file name.

    Raises:
        UsageError: a method is given for a cache, or a percentile for another method.
        DeployError: there are no ranges, they are of other graphs, or a value has none.
    """
    path = options.ranges
    if path is None:
        if RANGES not in bundle.manifest.files:
            raise DeployError(
                f"the bundle {bundle.path} has no ranges to quantise with", _calibrate(bundle)
            )
        path = bundle.file(RANGES)
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise DeployError(
            f"cannot read {path}: {error.strerror or error}", _calibrate(bundle)
        ) from error
    if is_cache(raw):
        used = _from_cache(path, options, placements)
    elif raw.lstrip().startswith(b"{"):
        used = _from_ranges(
            decode(raw, str(path), _calibrate(bundle)), path, bundle, options, placements
        )
    else:
        raise DeployError(
            f"{path} is neither a file of ranges nor a TensorRT calibration cache",
            _calibrate(bundle),
        )
    for file, placement in placements.items():
        wanted = dict.fromkeys(value for _, _, value in placement.edges)
        if missing := [value for value in wanted if value not in used.amax[file]]:
            more = f" and {len(missing) - _LISTED} more" if len(missing) > _LISTED else ""
            raise DeployError(
                f"{path} has no range for {len(missing)} of the {len(wanted)} values of {file} "
                f"to quantise: {', '.join(missing[:_LISTED])}{more}",
                _calibrate(bundle),
            )
    return used


def _from_cache(
    path: Path, options: QuantizeOptions, placements: Mapping[str, Placement]
) -> UsedRanges:
    for option, value in (("--method", options.method), ("--percentile", options.percentile)):
        if value is not None:
            raise UsageError(
                f"{option} cannot be used with {path}: a TensorRT cache has one scale per value "
                "and no histogram",
                f"leave {option} out, or use ranges that calibrate wrote",
            )
    amax = read_cache(path)
    return UsedRanges(
        amax={file: dict(amax) for file in placements},
        method="cache",
        described=f"TensorRT cache {path}",
        sha256=sha256_of(path),
        pictures=None,
        notes=(
            "a TensorRT cache does not say which graph it was made for: the names of values match, "
            "but it may be of other weights",
        ),
    )


def _from_ranges(
    ranges: Ranges,
    path: Path,
    bundle: Bundle,
    options: QuantizeOptions,
    placements: Mapping[str, Placement],
) -> UsedRanges:
    for file in placements:
        if ranges.graphs.get(file) != bundle.manifest.files[file]:
            raise DeployError(
                f"the ranges in {path} are of another {file} than that in {bundle.path}",
                _calibrate(bundle),
            )
    method = options.method or ranges.method
    if options.percentile is not None and method != "percentile":
        raise UsageError(
            f"--percentile is for --method percentile, and {path} was calibrated with {method}",
            "add --method percentile, or leave --percentile out",
        )
    percentile = options.percentile or ranges.percentile or PERCENTILE
    described = method if method != "percentile" else f"percentile {percentile:g}"
    return UsedRanges(
        amax={
            file: all_amax(ranges.tensors.get(file, {}), method, percentile) for file in placements
        },
        method=method,
        described=f"{described} from {path.name}",
        sha256=sha256_of(path),
        pictures=len(ranges.pictures),
    )


def _calibrate(bundle: Bundle) -> str:
    """Return the command that calibrates a bundle, as a hint."""
    return f"pointrend-deploy calibrate {shlex.quote(str(bundle.path))} --images FOLDER"
