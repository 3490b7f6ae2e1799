"""Compare the time that an export takes, and its tracing, with the estimate it prints at its start.

    python benchmarks/export_duration.py [RECIPE@HxW[@native] ...]

Without arguments: the models of DEFAULT, with random weights. Both sides are seconds on the
clock, so they only mean something where the machine does nothing else.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Final

import torch

sys.path.insert(0, str(Path(__file__).parent))

from export_lvis import Steps

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
HEADS: Final = ("tracing: said", "took", "ratio", "export: said", "took", "ratio")


def built(recipe: AnyRecipe) -> ReferenceModel:
    """A model with random weights."""
    torch.manual_seed(0)
    return (
        build_instance_model(recipe) if isinstance(recipe, InstanceRecipe) else build_model(recipe)
    )


def measured(name: str, options: ExportOptions) -> tuple[tuple[float, float], tuple[float, float]]:
    """Seconds of tracing, and of the export after its weights are read: as expected, and taken."""
    recipe = load_any_recipe(name)
    model = built(recipe)
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / "weights.pth"
        torch.save(model.state_dict(), weights)
        expected = expected_seconds(model, recipe, options)
        steps = Steps()
        export_bundle(recipe, weights, Path(folder) / "bundle", options, progress=steps)
        seconds = [step["seconds"] for step in steps.measured[1:]]
        return expected, (seconds[0], sum(seconds))


def main(arguments: list[str]) -> int:
    """Run the command line; print a row a model on stdout."""
    heads = "".join(f"{head:>{width}}" for head, width in zip(HEADS, (14, 8, 7) * 2, strict=True))
    print(f"{'model':56}{heads}")
    for case in arguments or DEFAULT:
        name, size, *ops = case.split("@")
        height, width = (int(side) for side in size.split("x"))
        options = ExportOptions((height, width), ops="native" if ops == ["native"] else "plugin")
        pairs = zip(*measured(name, options), strict=True)
        cells = (f"{said:>14.1f}{took:>8.1f}{said / took:>7.2f}" for said, took in pairs)
        print(f"{case:56}{''.join(cells)}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
