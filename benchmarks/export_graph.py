"""Compare the subdivision part of our graph with detectron2's form: size, memory and time.

    python benchmarks/export_graph.py [--size 1024x2048] [--json]

Both forms start from the same coarse logits and p2 (256 channels, stride 4) and end at a label map
on the host: detectron2's form gives logits, whose arg-max torch takes there; ours gives labels.
Times are interleaved, form by form, so that a busy machine slows both; the ratio is of medians.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import torch

sys.path.insert(0, str(Path(__file__).parent))

from arena import arena_bytes
from graph_measure import graph_size
from subdivision_graphs import Sizes, both_graphs


def labels_of(session: ort.InferenceSession, feed: dict[str, Any]) -> np.ndarray:
    """Run either form and return its labels, (1, H, W) uint8 on the host."""
    output: np.ndarray = session.run(None, feed)[0]
    if output.ndim == 3:
        return output
    labels: np.ndarray = torch.from_numpy(output).argmax(dim=1).to(torch.uint8).numpy()
    return labels


def times_ms(paths: dict[str, Path], sizes: Sizes, runs: int, threads: int) -> dict[str, Any]:
    """Time both forms in turn.

    Returns:
        ``taken``, milliseconds of each run by form, and ``label_agreement``, the share of labels
        that agree, 0..1.
    """
    torch.set_num_threads(threads)
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    providers = ["CPUExecutionProvider"]
    sessions = {
        name: ort.InferenceSession(str(path), options, providers=providers)
        for name, path in paths.items()
    }
    generator = np.random.default_rng(0)
    feed = {
        "coarse": generator.standard_normal(sizes.coarse, dtype=np.float32),
        "p2": generator.standard_normal(sizes.fine, dtype=np.float32),
    }
    labels = {name: labels_of(session, feed) for name, session in sessions.items()}
    taken: dict[str, list[float]] = {name: [] for name in sessions}
    for _ in range(runs):
        for name, session in sessions.items():
            gc.collect()
            start = time.perf_counter()
            labels_of(session, feed)
            taken[name].append((time.perf_counter() - start) * 1e3)
    agreement = float((labels["ours"] == labels["detectron2"]).mean())
    return {"taken": taken, "label_agreement": agreement}


def measure(sizes: Sizes, runs: int, threads: int) -> dict[str, Any]:
    """Measure one size; return every figure of the benchmark as JSON-ready values."""
    graphs = both_graphs(sizes)
    result: dict[str, Any] = {"sizes": vars(sizes), "runs": runs, "threads": threads}
    with tempfile.TemporaryDirectory() as folder:
        paths = {name: Path(folder) / f"{name}.onnx" for name in graphs}
        for name, graph in graphs.items():
            onnx.save(graph, paths[name])
            result[name] = vars(graph_size(graph))
            result[name]["arena_bytes"] = arena_bytes(paths[name], threads)
        timed = times_ms(paths, sizes, runs, threads)
    for name, taken in timed["taken"].items():
        result[name]["median_ms"] = statistics.median(taken)
        result[name]["minimum_ms"] = min(taken)
    theirs, ours = result["detectron2"], result["ours"]
    result["label_agreement"] = timed["label_agreement"]
    result["time_ratio"] = theirs["median_ms"] / ours["median_ms"]
    result["time_ratio_of_minima"] = theirs["minimum_ms"] / ours["minimum_ms"]
    result["arena_share"] = ours["arena_bytes"] / theirs["arena_bytes"]
    return result


def table(result: dict[str, Any]) -> str:
    """Format a result as a text table."""
    theirs, ours = result["detectron2"], result["ours"]
    sizes = result["sizes"]
    lines = [
        f"subdivision at {sizes['height']}x{sizes['width']}, {sizes['classes']} classes, "
        f"{sizes['points']} points a step, labels out, {result['threads']} threads",
        f"{'':34}{'detectron2':>14}{'ours':>14}",
        f"{'nodes':34}{theirs['nodes']:>14}{ours['nodes']:>14}",
        f"{'GFLOP, counted':34}{theirs['flops'] / 1e9:>14.2f}{ours['flops'] / 1e9:>14.2f}",
    ]
    for label, key, unit in (
        ("peak activations, counted, MB", "peak_activation_bytes", 1e6),
        ("ONNX Runtime arena, MB", "arena_bytes", 1e6),
        ("median, ms", "median_ms", 1.0),
        ("minimum, ms", "minimum_ms", 1.0),
    ):
        lines.append(f"{label:34}{theirs[key] / unit:>14.1f}{ours[key] / unit:>14.1f}")
    lines += [
        f"time ratio {result['time_ratio']:.2f} (of minima {result['time_ratio_of_minima']:.2f}), "
        f"arena {result['arena_share']:.2f} of theirs, labels equal at "
        f"{100 * result['label_agreement']:.4f} %",
    ]
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and print the result on stdout; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", default="1024x2048", help="network grid, H x W")
    parser.add_argument("--classes", type=int, default=19)
    parser.add_argument("--points", type=int, default=8192)
    parser.add_argument("--channels", type=int, default=256, help="channels of p2")
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", action="store_true", help="JSON in place of the table")
    given = parser.parse_args(arguments)
    height, width = (int(side) for side in given.size.split("x"))
    sizes = Sizes(height, width, given.classes, given.points, given.channels)
    result = measure(sizes, given.runs, given.threads)
    print(json.dumps(result, indent=2) if given.json else table(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
