"""Measure an export with LVIS's 1203 classes and 300 detections: time and memory of every step.

    python benchmarks/export_lvis.py [--mask-head standard|pointrend] [--size 256x256] [--json]

The weights are random, so every one of the proposals' 1203 scores is about 1 / 1204, above LVIS's
threshold of 0.0001: suppression and verification have more candidates than any trained model gives.
detectron2 has no PointRend configuration for LVIS: ``--mask-head pointrend`` is the LVIS recipe
with the mask head and the point head of the COCO one.

Memory is the highest resident size during a step, of the whole process; time is wall-clock, and
processor seconds where other programs share the machine.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import torch

from pointrend_deploy.model.instance.model import build_instance_model
from pointrend_deploy.recipe.instance import InstanceRecipe
from pointrend_deploy.recipe.instance_check import check_instance_recipe, load_instance_recipe
from pointrend_deploy.verbs.export.export import export_bundle
from pointrend_deploy.verbs.export.options import ExportOptions

RECIPES = Path(__file__).parent.parent / "export"
LVIS = RECIPES / "mask_rcnn_r50_fpn_lvis_v1.toml"
POINTREND = RECIPES / "pointrend_mask_rcnn_r50_fpn_coco.toml"


def recipe_for(path: Path, mask_head: str, detections: int | None) -> InstanceRecipe:
    """Read a recipe; ``pointrend`` gives it the mask head and point head of the COCO recipe."""
    recipe = load_instance_recipe(path)
    if mask_head == "pointrend":
        other = load_instance_recipe(POINTREND)
        recipe = msgspec.structs.replace(
            recipe,
            name=f"pointrend_{recipe.name}",
            mask_head=other.mask_head,
            point_head=other.point_head,
        )
    if detections is not None:
        box_head = msgspec.structs.replace(recipe.box_head, detections=detections)
        recipe = msgspec.structs.replace(recipe, box_head=box_head)
    return check_instance_recipe(recipe)


def peak_bytes() -> int:
    """Highest resident size of this process since :func:`forget_peak`."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("/proc/self/status has no VmHWM")


def forget_peak() -> None:
    """Let Linux count the highest resident size anew (man 5 proc_pid_clear_refs)."""
    Path("/proc/self/clear_refs").write_text("5")


def processor_seconds() -> float:
    """Processor time of this process so far, all threads."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


class Steps:
    """Progress that measures every step; see ``pointrend_deploy.progress.Progress``."""

    def __init__(self) -> None:
        self.measured: list[dict[str, Any]] = []

    @contextmanager
    def step(self, text: str, total: int | None = None) -> Iterator[Callable[[], None]]:
        """Measure a step."""
        forget_peak()
        wall, processor = time.perf_counter(), processor_seconds()
        yield lambda: None
        self.measured.append(
            {
                "step": text,
                "seconds": time.perf_counter() - wall,
                "processor_seconds": processor_seconds() - processor,
                "peak_bytes": peak_bytes(),
            }
        )


def measure(recipe: InstanceRecipe, size_hw: tuple[int, int]) -> dict[str, Any]:
    """Export a recipe with random weights; return the figures of every step and of the whole."""
    torch.manual_seed(0)
    steps = Steps()
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / "weights.pth"
        torch.save(build_instance_model(recipe).state_dict(), weights)
        wall, processor = time.perf_counter(), processor_seconds()
        result = export_bundle(
            recipe, weights, Path(folder) / "bundle", ExportOptions(size_hw), progress=steps
        )
        wall, processor = time.perf_counter() - wall, processor_seconds() - processor
    found = result.run.detections
    return {
        "recipe": recipe.name,
        "classes": recipe.num_classes,
        "detections": recipe.box_head.detections,
        "size_hw": list(size_hw),
        "nodes": result.nodes,
        "steps": steps.measured,
        "seconds": wall,
        "processor_seconds": processor,
        "peak_bytes": max(step["peak_bytes"] for step in steps.measured),
        "matched": 0 if found is None else found.matched,
    }


def table(result: dict[str, Any]) -> str:
    """Format a result as a text table."""
    height, width = result["size_hw"]
    lines = [
        f"{result['recipe']}, {result['classes']} classes, {result['detections']} detections, "
        f"{height}x{width}: {result['nodes']} nodes, {result['matched']} detections verified",
        f"{'':40}{'seconds':>10}{'processor s':>14}{'peak GB':>10}",
    ]
    for step in [*result["steps"], {**result, "step": "all"}]:
        lines.append(
            f"{step['step'].partition(' (')[0]:40}{step['seconds']:>10.1f}"
            f"{step['processor_seconds']:>14.1f}{step['peak_bytes'] / 1e9:>10.2f}"
        )
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and print the result on stdout; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recipe", type=Path, default=LVIS)
    parser.add_argument("--mask-head", choices=("standard", "pointrend"), default="standard")
    parser.add_argument("--size", default="256x256", help="height x width")
    parser.add_argument("--detections", type=int, help="in place of the recipe's")
    parser.add_argument("--json", action="store_true", help="JSON in place of the table")
    given = parser.parse_args(arguments)
    height, width = (int(side) for side in given.size.split("x"))
    recipe = recipe_for(given.recipe, given.mask_head, given.detections)
    result = measure(recipe, (height, width))
    print(json.dumps(result, indent=2) if given.json else table(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
