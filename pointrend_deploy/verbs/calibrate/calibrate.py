"""`calibrate`: the ranges of a bundle's activations, seen over pictures."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec

from pointrend_deploy import atomic
from pointrend_deploy.bundle.folder import RANGES, Bundle
from pointrend_deploy.errors import DeployError, UsageError
from pointrend_deploy.pictures.lists import listed
from pointrend_deploy.progress import Progress, Silent
from pointrend_deploy.quantize.partial import (
    Job,
    Partial,
    clear_left_over,
    forget,
    load,
    partial_path,
)
from pointrend_deploy.quantize.ranges import Method, Ranges, decode, encode
from pointrend_deploy.quantize.scales import PERCENTILE, all_amax, check_percentile
from pointrend_deploy.quantize.tensorrt_cache import is_cache, write_cache
from pointrend_deploy.verbs.calibrate.observe import Graphs, job_of, observe
from pointrend_deploy.verbs.calibrate.summary import Calibration


@dataclass(frozen=True)
class CalibrateOptions:
    """How to calibrate.

    Attributes:
        method: how ranges follow from what was seen; see :mod:`pointrend_deploy.quantize.scales`.
        percentile: percent of the values inside a range, for that method.
        out: file of the ranges; None for the bundle's own, which `quantize` finds by itself.
        cache: file of a TensorRT calibration cache to write besides. It is one file for both graphs
            of a split layout, as `quantize --ranges` takes one: TensorRT looks its tensors up by
            name and passes over the others. Where both graphs have a value of one name, the larger
            range stands.
        restart: whether to see everything again, whatever was seen before.
    """

    method: Method = "entropy"
    percentile: float = PERCENTILE
    out: Path | None = None
    cache: Path | None = None
    restart: bool = False

    def check(self) -> None:
        """Raises UsageError where the percentile is out of range or of no use."""
        check_percentile(self.percentile)
        if self.method != "percentile" and self.percentile != PERCENTILE:
            raise UsageError(
                f"--percentile is for --method percentile, not for {self.method}",
                "add --method percentile, or leave --percentile out",
            )


def calibrate_bundle(
    bundle: str | Path,
    images: str | Path,
    options: CalibrateOptions,
    progress: Progress | None = None,
) -> Calibration:
    """See the values of a bundle's FP32 graphs over pictures, and write their ranges.

    After every call of the graph (a picture; with a batch of N, N pictures) the state is saved
    beside the ranges, so that an interrupted calibration goes on and gives the same bytes. Where
    the same pictures went through the same graphs before, nothing is run: any method follows from
    the histograms.

    Args:
        bundle: the folder.
        images: a folder of pictures, or a list; see
            :func:`pointrend_deploy.pictures.lists.listed`.
        options: see there.
        progress: told of each step.

    Raises:
        DeployError: the bundle, the list or every picture cannot be used; a value is not finite; a
            file would be replaced that is no such file; or the disk refuses.
        UsageError: the percentile is out of range or of another method; or a file would lie in
            the bundle.
    """
    start = time.perf_counter()
    progress = progress or Silent()
    options.check()
    with progress.step("opening the bundle"):
        opened = Bundle.open(bundle)
    place = _place(opened, options)
    with progress.step("checking the pictures"):
        pictures = listed(Path(images))
    job = job_of(opened, pictures)
    graphs = Graphs(opened)
    state_file = partial_path(place)
    seen = None if options.restart else _seen_before(opened, place, job, graphs)
    notes: list[str] = []
    resumed = 0
    derived = seen is not None
    if seen is None:
        state, why = (None, "") if options.restart else load(state_file, job)
        if why:
            notes.append(f"the state of an interrupted calibration is not used: {why}")
        clear_left_over(state_file)
        resumed = 0 if state is None else state.done
        final = observe(opened, graphs, pictures, state or Partial(job), state_file, progress)
        seen = _ranges(opened, job, final)
    seen = _by(seen, options)
    raw = encode(seen)
    _write(opened, place, raw)
    notes += _outdated(opened, place, raw)
    if options.cache is not None:
        write_cache(options.cache, cache_ranges(seen))
    forget(state_file)
    return Calibration(
        bundle=opened.path,
        ranges=seen,
        file=place,
        cache=options.cache,
        seconds=time.perf_counter() - start,
        resumed=resumed,
        derived=derived,
        unseen={name: graphs.unseen(name, seen.tensors[name]) for name in seen.graphs},
        said=tuple(notes),
    )


def cache_ranges(ranges: Ranges) -> dict[str, float]:
    """The ranges of all graphs by value, as one TensorRT cache has them."""
    merged: dict[str, float] = {}
    for values in ranges.tensors.values():
        for name, amax in all_amax(values, ranges.method, ranges.percentile or PERCENTILE).items():
            merged[name] = max(amax, merged.get(name, 0.0))
    return merged


def _place(bundle: Bundle, options: CalibrateOptions) -> Path:
    """Where the ranges go, once nothing speaks against writing there and to the cache."""
    own = bundle.path / RANGES
    place = options.out or own
    if place.resolve() == own.resolve():
        place = own
    for option, path, ours in (
        ("--out", place, _is_ranges),
        ("--cache", options.cache, is_cache),
    ):
        if path is None or path == own:
            continue
        if path.resolve().is_relative_to(bundle.path.resolve()):
            raise UsageError(
                f"{option} {path} lies in the bundle, whose manifest would not know of it",
                "choose another place"
                + (", or leave it out for the bundle's own" if option == "--out" else ""),
            )
        _check_free(path, option, ours)
    if options.cache is not None and options.cache.resolve() == place.resolve():
        raise UsageError("--out and --cache name the same file", "choose another name for one")
    return place


def _check_free(path: Path, option: str, ours: Callable[[bytes], bool]) -> None:
    if path.is_dir():
        raise DeployError(f"{option} {path} is a folder, not a file", "add a file name")
    try:
        raw = path.read_bytes() if path.exists() else None
    except OSError as error:
        raise DeployError(f"cannot read {path}: {error.strerror or error}") from error
    if raw is not None and not ours(raw):
        raise DeployError(
            f"{option} {path} is there already and is no file of that kind; what it holds would "
            "be lost",
            "choose another name, or move it away",
        )


def _is_ranges(raw: bytes) -> bool:
    try:
        decode(raw, "")
    except DeployError:
        return False
    return True


def _seen_before(bundle: Bundle, place: Path, job: Job, graphs: Graphs) -> Ranges | None:
    """Ranges of the same pictures and graphs, where they are wanted or in the bundle."""
    for path in dict.fromkeys((place, bundle.path / RANGES)):
        with suppress(DeployError, OSError):
            ranges = decode(path.read_bytes(), str(path))
            known = {(each.name, each.sha256) for each in ranges.pictures}
            known |= {(each.name, each.sha256) for each in ranges.skipped}
            if (
                ranges.graphs == job.graphs
                and known == set(job.listed)
                and len(ranges.pictures) + len(ranges.skipped) == len(job.listed)
                and all(graphs.complete(name, ranges.tensors[name]) for name in ranges.graphs)
            ):
                return ranges
    return None


def _ranges(bundle: Bundle, job: Job, state: Partial) -> Ranges:
    return Ranges(
        recipe=bundle.manifest.recipe.name,
        graphs=job.graphs,
        method="max",
        pictures=tuple(state.pictures),
        skipped=tuple(state.skipped),
        tensors=state.tensors,
    )


def _by(ranges: Ranges, options: CalibrateOptions) -> Ranges:
    """The same ranges by the method that is asked for."""
    percentile = options.percentile if options.method == "percentile" else None
    return msgspec.structs.replace(ranges, method=options.method, percentile=percentile)


def _outdated(bundle: Bundle, place: Path, raw: bytes) -> list[str]:
    """That the bundle's INT8 graph is not of its new ranges, where it is not."""
    record = bundle.manifest.quantized.get("int8")
    other = record is not None and record.ranges_sha256 != hashlib.sha256(raw).hexdigest()
    if place != bundle.path / RANGES or not other:
        return []
    return ["the bundle's INT8 graph was made with other ranges than these: quantize again"]


def _write(bundle: Bundle, place: Path, raw: bytes) -> None:
    if place == bundle.path / RANGES:
        bundle.update({RANGES: raw})
    else:
        atomic.write_bytes(place, raw)
