"""Measure the time and memory of calibration, and the memory that stored activations would take.

    python benchmarks/calibration.py BUNDLE [--pictures 32]

Makes the pictures, calibrates the bundle on them in a child process and prints its seconds a
picture, its peak of resident memory, the size of the ranges and the seconds of each method derived
from them. A second child keeps every observed activation of two pictures, as calibrators do that
take percentiles of stored values: its bytes a picture times the number of pictures is the memory
that such a calibrator would need. The bundle is not changed. Needs Linux (wait4).
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image

METHODS: Final = ("max", "percentile", "mse", "entropy")
KEPT: Final = 2
"""Pictures whose activations are kept for comparison."""


def make_pictures(folder: Path, count: int, height: int, width: int) -> None:
    """Write JPEG files of smooth noise; each has other scales and contrasts."""
    folder.mkdir()
    for index in range(count):
        generator = np.random.default_rng(index)
        rgb = np.zeros((height, width, 3), np.float32)
        for cells in (4, 16, 64):
            small = generator.integers(0, 256, (cells, 2 * cells, 3), np.uint8)
            rgb += np.asarray(Image.fromarray(small).resize((width, height)), np.float32)
        contrast, middle = generator.uniform(0.5, 2.0), generator.uniform(64, 192)
        scaled = (rgb / 3 - 128) * contrast + middle
        picture = Image.fromarray(scaled.clip(0, 255).astype(np.uint8))
        picture.save(folder / f"{index:04d}.jpg", quality=92)


def child(command: Sequence[str]) -> tuple[float, float, str]:
    """Run a Python command; end this program where the command fails.

    Returns:
        Seconds, peak of resident memory in MiB, and stdout.
    """
    start = time.perf_counter()
    with tempfile.TemporaryFile("w+") as out:
        process = subprocess.Popen([sys.executable, *command], stdout=out)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.perf_counter() - start
        if process.returncode:
            sys.exit(f"{' '.join(command)} ended with {process.returncode}")
        out.seek(0)
        return seconds, usage.ru_maxrss / 1024, out.read()


def keep_activations(bundle: Path, pictures: Path) -> None:
    """Keep the activations of KEPT pictures and print bytes a picture: the second child's job."""
    from pointrend_deploy.bundle.folder import Bundle
    from pointrend_deploy.pictures.batches import canvas_batches
    from pointrend_deploy.pictures.lists import listed
    from pointrend_deploy.quantize.observe import Observer
    from pointrend_deploy.verbs.calibrate.observe import Graphs

    opened = Bundle.open(bundle)
    graphs = Graphs(opened)
    name = opened.manifest.graphs_of("fp32")[0]
    observer = Observer(graphs.load(name), graphs.values(name))
    few = listed(pictures)[:KEPT]
    batches = canvas_batches(opened, few, lambda picture, rgb: True, lambda picture, why: None)
    kept = [dict(observer.run(batch.inputs)) for batch in batches]
    total = sum(values.nbytes for each in kept for values in each.values())
    print(total / len(few))


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and print the figures on stdout; return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--pictures", type=int, default=32)
    parser.add_argument("--keep", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.keep is not None:
        keep_activations(given.bundle, given.keep)
        return 0
    from pointrend_deploy.bundle.folder import Bundle

    height, width = Bundle.open(given.bundle).manifest.canvas.size_hw
    with tempfile.TemporaryDirectory() as scratch:
        pictures, out = Path(scratch, "pictures"), Path(scratch, "ranges.json")
        make_pictures(pictures, given.pictures, height, width)
        calibrate = ["-m", "pointrend_deploy", "calibrate", str(given.bundle)]
        calibrate += ["--images", str(pictures), "--out", str(out), "--method"]
        seconds, peak, _ = child([*calibrate, METHODS[0]])
        print(f"{given.bundle.name}, {given.pictures} pictures of {height}x{width}")
        print(f"calibrating         {seconds / given.pictures:.2f} s a picture")
        print(f"peak memory         {peak:,.0f} MiB")
        print(f"file of ranges      {out.stat().st_size / 2**20:.2f} MiB")
        for method in METHODS:
            print(f"{method:10} derived  {child([*calibrate, method])[0]:.1f} s")
        _, kept_peak, said = child([__file__, str(given.bundle), "--keep", str(pictures)])
        each = float(said) / 2**20
        print(f"activations         {each:,.0f} MiB a picture; {KEPT} kept: {kept_peak:,.0f} MiB")
        whole = each * given.pictures
        print(f"all of them kept    {whole:,.0f} MiB, {whole / peak:.1f} times the peak above")
    return 0


if __name__ == "__main__":
    sys.exit(main())
