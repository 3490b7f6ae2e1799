"""Score the demonstration models in FP32, FP16 and INT8, INT8 by every calibration method.

    python benchmarks/precision_table.py [--out benchmarks/results/precision.json]

Exports both models, calibrates each once on the calibration scenes, derives the INT8 graph from
those ranges by each method, and scores all graphs on the held-out scenes against their exact
truth. ONNX Runtime computes the graphs on the CPU: the rounding of FP16 and INT8, not the kernels
of an engine, whose sums may differ in the last bits. Markdown on stdout, JSON to --out.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).parents[1]))

from pointrend_deploy import atomic
from pointrend_deploy.parity.record.precisions import PrecisionColumn
from pointrend_deploy.progress import Bars
from pointrend_deploy.quantize.ranges import Method
from pointrend_deploy.verbs.calibrate.calibrate import CalibrateOptions, calibrate_bundle
from pointrend_deploy.verbs.compare import compare_bundle
from pointrend_deploy.verbs.export.export import export_bundle
from pointrend_deploy.verbs.export.manifest import installed_versions
from pointrend_deploy.verbs.export.options import ExportOptions
from pointrend_deploy.verbs.quantize.options import QuantizeOptions
from pointrend_deploy.verbs.quantize.quantize import quantize_bundle
from scripts.unpack_demo import unpack

ROOT: Final = Path(__file__).resolve().parent.parent
DEMO: Final = ROOT / "demo"
PICTURES: Final = ROOT / "calibration" / "scenes.sha256"
OUT: Final = ROOT / "benchmarks" / "results" / "precision.json"
METHODS: Final[tuple[Method, ...]] = ("entropy", "percentile", "mse", "max")


@dataclass(frozen=True)
class Model:
    """A demonstration model: its recipe, the scenes it is scored on and their truth."""

    recipe: str
    images: Path
    labels: Path | None = None
    coco: Path | None = None


MODELS: Final = {
    "semantic": Model("demo_semantic", DEMO / "scenes", labels=DEMO / "labels"),
    "instance": Model(
        "demo_instance", DEMO / "instance", coco=DEMO / "instance" / "annotations.json"
    ),
}
SCORES: Final = {
    "semantic": ("agreement", "miou", "boundary_iou_2px"),
    "instance": ("box_ap", "mask_ap", "boundary_ap"),
}


def exported(model: Model, folder: Path) -> Path:
    """Export a model into a fresh bundle and return its folder."""
    scenes = model.images if model.coco is None else model.images / "scenes"
    recipe = ROOT / "export" / f"{model.recipe}.toml"
    weights = DEMO / f"{model.recipe}.safetensors"
    bundle = folder / model.recipe
    export_bundle(recipe, weights, bundle, ExportOptions((256, 256)), verify_on=scenes)
    return bundle


def measure(
    model: Model, bundle: Path, methods: Sequence[Method], pictures: Path
) -> dict[str, Any]:
    """Score every graph of a bundle. The bundle is changed: it gets ranges, FP16 and INT8 graphs.

    Args:
        model: whose scenes and truth to score on.
        bundle: the folder.
        methods: of calibration, in the order of the rows.
        pictures: list or folder of calibration pictures.

    Returns:
        A row for ``fp32``, ``fp16`` and ``int8 METHOD`` each.
    """
    calibrate_bundle(bundle, pictures, CalibrateOptions(), Bars())
    quantize_bundle(bundle, QuantizeOptions(precision="fp16"), Bars())
    rows: dict[str, Any] = {}
    for method in methods:
        quantize_bundle(bundle, QuantizeOptions(precision="int8", method=method), Bars())
        wanted = ("int8",) if rows else ("fp32", "fp16", "int8")
        found = compare_bundle(
            bundle, model.images, labels=model.labels, coco=model.coco, precisions=wanted
        )
        table = found.precisions
        assert table is not None
        for column in table.columns:
            name = column.precision if column.precision != "int8" else f"int8 {method}"
            rows.setdefault(name, scores(column))
    return rows


def scores(column: PrecisionColumn) -> dict[str, Any]:
    """Return the scores of one graph, 0..1, and the number of its layers in INT8."""
    row: dict[str, Any] = {
        "graph_bytes": column.graph_bytes,
        "int8_layers": column.int8_layers,
        "int8_flops": column.int8_flops,
        "left_out": dict(Counter(column.left_out.values())),
        "passed": bool(column),
    }
    if column.truth is not None:
        row["agreement"] = column.agrees_fp32
        row["miou"] = column.truth.miou
        row["boundary_iou_2px"] = column.truth.boundary_iou["2 px"]
    row |= {f"{found.measure}_ap": found.ap for found in column.accuracy}
    return row


def markdown(result: dict[str, Any]) -> str:
    """Format a table for each model, in percent; agreement is with the FP32 graph's labels."""
    heads = {
        "agreement": "labels as FP32's",
        "miou": "mIoU",
        "boundary_iou_2px": "boundary IoU (2 px)",
        "box_ap": "box AP",
        "mask_ap": "mask AP",
        "boundary_ap": "boundary AP",
    }
    lines: list[str] = []
    for model, rows in result["models"].items():
        keys = SCORES[model]
        lines += [f"| {model} | " + " | ".join(heads[key] for key in keys) + " |"]
        lines += ["|" + "---|" * (len(keys) + 1)]
        for name, row in rows.items():
            cells = (percent(row[key], 3 if key == "agreement" else 2) for key in keys)
            shown = name.replace("fp", "FP").replace("int8", "INT8,")
            lines.append(f"| {shown} | " + " | ".join(cells) + " |")
        lines.append("")
    return "\n".join(lines)


def percent(value: float | None, digits: int) -> str:
    """Format a share in percent; a dash for None, as FP32's agreement with itself is."""
    return "-" if value is None else f"{100 * value:.{digits}f}"


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and print Markdown on stdout; return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=OUT, help="JSON of the figures")
    parser.add_argument("--pictures", type=Path, default=PICTURES, help="list or folder")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    for name in MODELS:
        parser.add_argument(f"--{name}", type=Path, help="a bundle to copy instead of an export")
    given = parser.parse_args(arguments)
    unpack()
    result: dict[str, Any] = {"versions": installed_versions(), "models": {}}
    with tempfile.TemporaryDirectory() as folder:
        for name, model in MODELS.items():
            ready: Path | None = getattr(given, name)
            if ready is None:
                bundle = exported(model, Path(folder))
            else:
                bundle = Path(shutil.copytree(ready, Path(folder) / name))
            result["models"][name] = measure(model, bundle, given.methods, given.pictures)
    given.out.parent.mkdir(parents=True, exist_ok=True)
    atomic.write_text(given.out, json.dumps(result, indent=2) + "\n")
    print(markdown(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
