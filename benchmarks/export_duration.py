"""Compare the time that an export takes with the estimate it prints at its start.

    python benchmarks/export_duration.py [RECIPE@HxW[@native] ...]

Without arguments: the models of DEFAULT, with random weights. Both sides are seconds on the
clock, so they only mean something where the machine does nothing else.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from typing import Final

import torch

from pointrend_deploy.model.instance.model import build_instance_model
from pointrend_deploy.model.reference import ReferenceModel
from pointrend_deploy.model.semantic.model import build_model
from pointrend_deploy.recipe.instance import InstanceRecipe
from pointrend_deploy.recipe.read import AnyRecipe, load_any_recipe
from pointrend_deploy.verbs.export.duration import expected_seconds
from pointrend_deploy.verbs.export.export import export_bundle
from pointrend_deploy.verbs.export.options import ExportOptions

DEFAULT: Final = (
    "demo_semantic@256x256",
    "demo_instance@256x256",
    "pointrend_semantic_fpn_r101_cityscapes@512x1024",
    "mask_rcnn_r50_fpn_coco@480x640",
    "pointrend_mask_rcnn_r50_fpn_coco@480x640",
    "pointrend_mask_rcnn_r50_fpn_coco@480x640@native",
)


def built(recipe: AnyRecipe) -> ReferenceModel:
    """A model with random weights."""
    torch.manual_seed(0)
    return (
        build_instance_model(recipe) if isinstance(recipe, InstanceRecipe) else build_model(recipe)
    )


def measured(name: str, options: ExportOptions) -> tuple[float, float]:
    """Seconds that were expected and seconds that the export took, its weights read."""
    recipe = load_any_recipe(name)
    model = built(recipe)
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / "weights.pth"
        torch.save(model.state_dict(), weights)
        _, expected = expected_seconds(model, recipe, options)
        start = time.perf_counter()
        export_bundle(recipe, weights, Path(folder) / "bundle", options)
        return expected, time.perf_counter() - start


def main(arguments: list[str]) -> int:
    """Run the command line; print a row a model on stdout."""
    print(f"{'model':56}{'expected s':>12}{'took s':>10}{'ratio':>8}")
    for case in arguments or DEFAULT:
        name, size, *ops = case.split("@")
        height, width = (int(side) for side in size.split("x"))
        options = ExportOptions((height, width), ops="native" if ops == ["native"] else "plugin")
        expected, took = measured(name, options)
        print(f"{case:56}{expected:>12.1f}{took:>10.1f}{expected / took:>8.2f}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
