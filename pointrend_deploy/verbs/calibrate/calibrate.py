"""`calibrate`: observe a bundle's activations over pictures and write their ranges."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec

from pointrend_deploy import atomic
from pointrend_deploy.bundle.folder import RANGES, Bundle, refuse_inside_bundle
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
    """Options of `calibrate`.

    Attributes:
        method: how a range is computed from a histogram; see
            :mod:`pointrend_deploy.quantize.scales`.
        percentile: for method percentile, percent of the values inside the range.
        out: file to write the ranges to; None for ranges.json of the bundle, where `quantize`
            looks for them.
        cache: file of a TensorRT calibration cache to write too; None for none. Both graphs of a
            split layout share it: TensorRT looks its tensors up by name and ignores the others. If
            both graphs have a value of the same name, the larger range is written.
        restart: whether to run all pictures again, even those of an earlier run.
    """

    method: Method = "entropy"
    percentile: float = PERCENTILE
    out: Path | None = None
    cache: Path | None = None
    restart: bool = False

    def check(self) -> None:
        """Raise UsageError if the percentile is out of range or the method does not use it."""
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
    """Observe the values of a bundle's FP32 graphs over pictures, and write their ranges.

    The state is saved beside the ranges after every call of the graph (one picture, or N pictures
    for a batch of N). An interrupted calibration resumes from it and gives the same bytes. If the
    same pictures went through the same graphs before, nothing runs: the histograms give the ranges
    of any method.

    Args:
        bundle: folder of the bundle.
        images: a folder of pictures, or a list; see
            :func:`pointrend_deploy.pictures.lists.listed`.
        options: options of `calibrate`.
        progress: receives each step.

    Raises:
        DeployError: the bundle, the list or all pictures cannot be used, a value is not finite, a
            file of another kind would be replaced, or a file cannot be written.
        UsageError: the percentile is out of range or given for another method, or a file would be
            written into the bundle.
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
            notes.append(f"the saved state of an interrupted calibration is not used: {why}")
        clear_left_over(state_file)
        resumed = 0 if state is None else state.done
        final = observe(graphs, pictures, state or Partial(job), state_file, progress)
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
    """Merge the ranges of all graphs, by value, for one TensorRT calibration cache."""
    merged: dict[str, float] = {}
    for values in ranges.tensors.values():
        for name, amax in all_amax(values, ranges.method, ranges.percentile or PERCENTILE).items():
            merged[name] = max(amax, merged.get(name, 0.0))
    return merged


def _place(bundle: Bundle, options: CalibrateOptions) -> Path:
    """Return the file to write the ranges to, after checking it and the file of the cache.

    Raises:
        UsageError: a file would lie in the bundle, or both options name the same file.
        DeployError: a path is a folder, cannot be read, or is an existing file of another kind.
    """
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
                f"{option} {path} is inside the bundle, but the manifest would not list it",
                "choose a file outside the bundle"
                + (
                    ", or leave --out out for ranges.json in the bundle"
                    if option == "--out"
                    else ""
                ),
            )
        refuse_inside_bundle(path, option)
        _check_free(path, option, ours)
    if options.cache is not None and options.cache.resolve() == place.resolve():
        raise UsageError("--out and --cache name the same file", "choose another name for one")
    return place


def _check_free(path: Path, option: str, ours: Callable[[bytes], bool]) -> None:
    """Raise DeployError if the path is a folder or an existing file of another kind."""
    if path.is_dir():
        raise DeployError(f"{option} {path} is a folder, not a file", "add a file name")
    try:
        raw = path.read_bytes() if path.exists() else None
    except OSError as error:
        raise DeployError(f"cannot read {path}: {error.strerror or error}") from error
    if raw is not None and not ours(raw):
        raise DeployError(
            f"{option} {path} exists and is a file of another kind; its contents would be lost",
            "choose another name, or move the file away",
        )


def _is_ranges(raw: bytes) -> bool:
    try:
        decode(raw, "")
    except DeployError:
        return False
    return True


def _seen_before(bundle: Bundle, place: Path, job: Job, graphs: Graphs) -> Ranges | None:
    """Return existing ranges of the same pictures and graphs, at ``place`` or in the bundle."""
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
    """Return the same ranges with the method of the options."""
    percentile = options.percentile if options.method == "percentile" else None
    return msgspec.structs.replace(ranges, method=options.method, percentile=percentile)


def _outdated(bundle: Bundle, place: Path, raw: bytes) -> list[str]:
    """Warn if the bundle's INT8 graph was made with other ranges than its new ones."""
    record = bundle.manifest.quantized.get("int8")
    other = record is not None and record.ranges_sha256 != hashlib.sha256(raw).hexdigest()
    if place != bundle.path / RANGES or not other:
        return []
    return ["the bundle's INT8 graph was made with other ranges: run quantize again"]


def _write(bundle: Bundle, place: Path, raw: bytes) -> None:
    if place == bundle.path / RANGES:
        bundle.update({RANGES: raw})
    else:
        atomic.write_bytes(place, raw)
