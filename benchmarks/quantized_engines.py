"""Compare FP16 and INT8 engines with FP32 ones by size, and by the share of layers in INT8.

    python benchmarks/quantized_engines.py BUNDLE... [--images DIR] [--target rtx:86] [--out JSON]

Works on a copy of each bundle. One without ranges is calibrated on --images first. Then both graphs
are made and an engine of each precision is built and checked: every layer meant for INT8 is Int8 in
the engine's own table of layers, or there is no figure. TensorRT-RTX builds for GPUs that are not
here, so this says nothing of speed. Times are of one run. Markdown on stdout, JSON to --out.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any, Final, Literal

import onnx

from pointrend_deploy import atomic
from pointrend_deploy.bundle.folder import RANGES, Bundle
from pointrend_deploy.bundle.forms import Precision
from pointrend_deploy.errors import DeployError
from pointrend_deploy.progress import Bars
from pointrend_deploy.quantize.layers import weighted_layers
from pointrend_deploy.verbs.build import BuildOptions, BuiltTarget, build_bundle
from pointrend_deploy.verbs.calibrate.calibrate import CalibrateOptions, calibrate_bundle
from pointrend_deploy.verbs.export.manifest import installed_versions
from pointrend_deploy.verbs.quantize.options import QuantizeOptions
from pointrend_deploy.verbs.quantize.quantize import quantize_bundle

MADE: Final[tuple[Literal["fp16", "int8"], ...]] = ("fp16", "int8")
PRECISIONS: Final[tuple[Precision, ...]] = ("fp32", *MADE)
MIB: Final = 2**20


def measured(bundle: Path, images: Path | None, target: str) -> dict[str, Any]:
    """Quantise and build a copy of a bundle; return the figures of its engines.

    Raises:
        DeployError: no ranges and no pictures, or whatever quantize and build refuse.
    """
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(shutil.copytree(bundle, Path(folder) / "bundle", ignore=_engines))
        opened = Bundle.open(copy)
        split = opened.manifest.instance is not None and opened.manifest.instance.layout == "split"
        name = opened.manifest.name + (", split" if split else "")
        found: dict[str, Any] = {"model": name, "target": target}
        canvas = opened.manifest.canvas.padded_hw
        found["canvas"] = f"{canvas[0]}x{canvas[1]}"
        if RANGES not in opened.manifest.files:
            if images is None:
                raise DeployError(f"{bundle} has no ranges", "give --images, or calibrate it")
            started = time.perf_counter()
            calibrate_bundle(copy, images, CalibrateOptions(), Bars())
            found["calibrate_s"] = round(time.perf_counter() - started, 1)
        for made in MADE:
            done = quantize_bundle(copy, QuantizeOptions(precision=made), Bars())
            found[f"quantize_{made}_s"] = round(done.seconds, 1)
        for precision in PRECISIONS:
            result = build_bundle(copy, BuildOptions(precision=precision, target=target), Bars())
            (one,) = result.built
            found[f"build_{precision}_s"] = round(one.seconds, 1)
            size = sum(engine.size for engine in one.record.engines) / MIB
            found[f"engine_{precision}_mib"] = round(size, 2)
            if precision == "int8":
                found |= _int8(result.bundle, one)
            found["builder"] = f"{one.record.builder} {one.record.version}"
        return found


def _engines(folder: str, names: list[str]) -> set[str]:
    return {"engines"} & set(names)


def _int8(bundle: Bundle, built: BuiltTarget) -> dict[str, Any]:
    """Layers and FLOPs in INT8: of those the rule means for it, and of the whole network."""
    record = bundle.manifest.quantized["int8"]
    kinds = {name: kind for engine in built.engines for name, kind in engine.table.weighted.items()}
    layers = [
        layer
        for file in bundle.manifest.graphs_of("fp32")
        for layer in weighted_layers(onnx.load(bundle.file(file)))
    ]
    inside = [layer for layer in layers if kinds[layer.name] == "int8"]
    total = sum(layer.flops for layer in layers)
    return {
        "layers": len(layers),
        "int8_meant": len(record.int8),
        "int8_found": len(inside),
        "int8_flops_of_meant": record.int8_flops,
        "int8_flops_of_all": round(sum(layer.flops for layer in inside) / total, 4),
        "left_out": dict(Counter(record.left_out.values())),
    }


def table(rows: list[dict[str, Any]]) -> str:
    """Format the figures as Markdown, a line for each model."""
    lines = [
        "| model | canvas | quantise fp16 / int8, s | build fp32 / fp16 / int8, s | engine fp32 / "
        "fp16 / int8, MiB | of fp32 | Int8 of meant | Int8 of all layers | FLOPs in int8 |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        sizes = [row[f"engine_{precision}_mib"] for precision in PRECISIONS]
        cells = [
            row["model"],
            row["canvas"],
            " / ".join(f"{row[f'quantize_{p}_s']:.1f}" for p in MADE),
            " / ".join(f"{row[f'build_{p}_s']:.1f}" for p in PRECISIONS),
            " / ".join(f"{size:.1f}" for size in sizes),
            " / ".join(f"{size / sizes[0]:.2f}" for size in sizes[1:]),
            f"{row['int8_found']} of {row['int8_meant']}",
            f"{row['int8_found']} of {row['layers']}",
            f"{row['int8_flops_of_all']:.1%}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Measure the bundles named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("bundles", nargs="+", type=Path)
    parser.add_argument("--images", type=Path, help="calibrate bundles without ranges on these")
    parser.add_argument("--target", default="rtx:86", help="one GPU: rtx:86, or this")
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    arguments = parser.parse_args()
    rows = []
    for bundle in arguments.bundles:
        try:
            rows.append(measured(bundle, arguments.images, arguments.target))
        except DeployError as error:
            sys.exit(f"error: {bundle}: {error.message}\nhint: {error.hint}")
    print(table(rows))
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        record = {"versions": installed_versions(), "rows": rows}
        atomic.write_text(arguments.out, json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
