"""Compare the mask part of our instance graph with detectron2's form: size, memory and time.

    python benchmarks/instance_subdivision.py [--rois 20 50 100] [--p2 200x304] [--json]

All forms start from the same p2 (stride 4), boxes and classes and end at the mask logits of the
predicted classes, 224 x 224 a RoI; the coarse head is part of each. ``detectron2``, ``ours`` (as of
``--ops native``) and ``plugin`` (as of ``--ops plugin``) run in ONNX Runtime in FP32, ``reference``
in eager PyTorch. Times are interleaved, form by form, so that a busy machine slows all; ratios are
of medians.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import torch

sys.path.insert(0, str(Path(__file__).parent))

from arena import arena_bytes
from graph_measure import graph_size
from instance_graphs import Sizes, both_graphs, inputs, mask_head, reference


def session(path: Path, threads: int) -> ort.InferenceSession:
    """Open a graph in ONNX Runtime on the CPU."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def run(session: ort.InferenceSession, feed: dict[str, np.ndarray]) -> np.ndarray:
    """Run a session and return its mask logits."""
    output: np.ndarray = session.run(None, feed)[0]
    return output


def measure(sizes: Sizes, runs: int, threads: int) -> dict[str, Any]:
    """Measure one number of RoIs; return every figure of the benchmark as JSON-ready values."""
    torch.set_num_threads(threads)
    head, feed = mask_head(sizes), inputs(sizes)
    result: dict[str, Any] = {"sizes": vars(sizes), "runs": runs, "threads": threads}
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        forms: dict[str, Callable[[], np.ndarray]] = {}
        for name, graph in both_graphs(head, sizes).items():
            path = Path(folder) / f"{name}.onnx"
            onnx.save(graph, path)
            counted = name != "plugin"  # what a custom node costs is not counted
            result[name] = vars(graph_size(graph)) if counted else {}
            result[name]["arena_bytes"] = arena_bytes(path, threads)
            forms[name] = partial(run, session(path, threads), feed)
        forms["reference"] = partial(reference, head, sizes, feed)
        result["reference"] = {}
        shape = (sizes.rois, -1)
        signs = {name: form().reshape(shape) > 0 for name, form in forms.items()}
        result["sign_agreement"] = {
            name: float((signs["ours"] == signs[name]).mean()) for name in forms
        }
        result["share_inside"] = float(signs["reference"].mean())
        taken: dict[str, list[float]] = {name: [] for name in forms}
        for _ in range(runs):
            for name, form in forms.items():
                gc.collect()
                start = time.perf_counter()
                form()
                taken[name].append((time.perf_counter() - start) * 1e3)
    ours = statistics.median(taken["ours"])
    for name, times in taken.items():
        result[name]["median_ms"] = statistics.median(times)
        result[name]["minimum_ms"] = min(times)
        result[name]["time_ratio"] = result[name]["median_ms"] / ours
        result[name]["time_ratio_of_minima"] = min(times) / min(taken["ours"])
    result["arena_share"] = result["ours"]["arena_bytes"] / result["detectron2"]["arena_bytes"]
    return result


def table(result: dict[str, Any]) -> str:
    """Format a result as a text table."""
    sizes = result["sizes"]
    lines = [
        f"masks of {sizes['rois']} RoIs on a {sizes['height']}x{sizes['width']} p2, "
        f"{sizes['classes']} classes, {result['threads']} threads",
        f"{'':34}{'reference':>14}{'detectron2':>14}{'ours':>14}{'plugin':>14}",
    ]
    for label, key, unit, digits in (
        ("nodes", "nodes", 1, 0),
        ("GFLOP, counted", "flops", 1e9, 2),
        ("peak activations, counted, MB", "peak_activation_bytes", 1e6, 1),
        ("ONNX Runtime arena, MB", "arena_bytes", 1e6, 1),
        ("median, ms", "median_ms", 1.0, 1),
        ("minimum, ms", "minimum_ms", 1.0, 1),
        ("time over ours, of medians", "time_ratio", 1.0, 2),
        ("time over ours, of minima", "time_ratio_of_minima", 1.0, 2),
    ):
        cells = []
        for form in ("reference", "detectron2", "ours", "plugin"):
            value = result[form].get(key)
            cells.append(f"{'' if value is None else format(value / unit, f'.{digits}f'):>14}")
        lines.append(f"{label:34}{''.join(cells)}")
    agreement = result["sign_agreement"]
    lines.append(
        f"arena {result['arena_share']:.3f} of theirs; signs equal at "
        f"{100 * agreement['detectron2']:.4f} % of theirs, "
        f"{100 * agreement['reference']:.4f} % of the reference's"
    )
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and print the results on stdout; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rois", type=int, nargs="+", default=[20, 50, 100])
    parser.add_argument("--p2", default="200x304", help="height x width of p2")
    parser.add_argument("--classes", type=int, default=Sizes.classes)
    parser.add_argument("--channels", type=int, default=Sizes.channels)
    parser.add_argument("--fc-dim", type=int, default=Sizes.fc_dim, help="of the coarse head")
    parser.add_argument("--rois-at-once", type=int, default=Sizes.rois_at_once)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", action="store_true", help="JSON in place of the tables")
    given = parser.parse_args(arguments)
    height, width = (int(side) for side in given.p2.split("x"))
    results = []
    for rois in given.rois:
        sizes = Sizes(
            rois,
            height,
            width,
            given.classes,
            given.channels,
            given.fc_dim,
            given.rois_at_once,
        )
        results.append(measure(sizes, given.runs, given.threads))
        if not given.json:
            print(table(results[-1]), flush=True)
    if given.json:
        print(json.dumps(results, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
