"""Train the demonstration instance model, both mask heads at once, on a CPU in about an hour.

From the repository's root, after ``pip install -e '.[dev]'``:

    scripts/fetch_demo_material.sh build/demo_material
    OMP_NUM_THREADS=1 python -m scripts.train_demo_instance --out build/demo_training_instance \
        --photos build/demo_material/photos --objects build/demo_material/objects

Backbone and pyramid start from demo/demo_semantic.safetensors. OUT gets the weights of the last
validation and, as ``best_...``, those of the validation with the highest sum of PointRend's mask AP
and boundary AP. ``--evaluate`` trains nothing: it prints the figures of the shipped
weights on the shipped scenes.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import torch
from torch import Tensor, nn

from pointrend_deploy.atomic import write_bytes
from pointrend_deploy.checkpoint.read import read_checkpoint
from pointrend_deploy.errors import DeployError
from pointrend_deploy.model.backbone.efficientnet_lite import EfficientNetLite0
from pointrend_deploy.model.instance.model import instance_model_from_tensors
from pointrend_deploy.recipe.instance_check import load_instance_recipe
from scripts.demo_training import instance_shipped
from scripts.demo_training.command_line import parser_of, train_or_evaluate
from scripts.demo_training.instance_batch import random_batch, scene_pool
from scripts.demo_training.instance_coco import as_coco, average_precision, detections
from scripts.demo_training.instance_losses import JointModel, losses
from scripts.demo_training.instance_scene import THINGS, InstanceScene, make_instance_scene
from scripts.demo_training.material import load_material
from scripts.demo_training.packed import packed
from scripts.demo_training.shipped import DEMO, as_json
from scripts.demo_training.training import (
    halved,
    learning_rate_factor,
    parameter_groups,
    write_weights,
)
from scripts.unpack_demo import MASK_HEAD

VALIDATION_SEEDS = range(2_000_000, 2_000_048)
"""Training scenes have the seeds 0.. and the shipped evaluation scenes 1,000,000.."""

_FROZEN_BLOCKS: Final = 5
"""The stem and these blocks (res2 and res3) keep their weights: their backward pass would take
half of each step."""

_PREDICTORS: Final = {
    "objectness_logits": 0.01,
    "anchor_deltas": 0.01,
    "cls_score": 0.01,
    "bbox_pred": 0.001,
    "predictor": 0.001,
    "prediction": 0.001,
}
"""Last layers, and the standard deviation their weights start with, as in detectron2."""


def main() -> None:
    """Read the command line; exit 1 with a message where something is wrong."""
    parser = parser_of(__doc__, required=False, out="folder for weights and composed scenes")
    parser.add_argument("--start", type=Path, default=DEMO / "demo_semantic.safetensors")
    parser.add_argument("--scenes", type=int, default=4000, help="scenes composed for training")
    parser.add_argument("--iterations", type=int, default=5000)
    parser.add_argument("--minutes", type=float, default=90.0, help="the schedule ends by then")
    parser.add_argument("--look", type=int, default=500, help="iterations between validations")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    train_or_evaluate(parser, train, lambda: as_json(instance_shipped.measure()))


def train(args: argparse.Namespace) -> None:
    """Train both mask heads on one trunk and write the weights of both recipes into OUT."""
    torch.manual_seed(args.seed)
    rng = np.random.default_rng(args.seed)
    joint = started_model(args.start)
    spec = joint.model.recipe.input
    args.out.mkdir(parents=True, exist_ok=True)
    pool = scene_pool(args.photos, args.objects, args.out, args.scenes)
    held_out = load_material(args.photos, args.objects, "val")
    validation = [make_instance_scene(seed, held_out) for seed in VALIDATION_SEEDS]
    optimiser = torch.optim.AdamW(parameter_groups(joint, args.lr), betas=(0.9, 0.99))
    rates = [group["lr"] for group in optimiser.param_groups]
    print(f"{sum(p.numel() for p in joint.parameters())} parameters", flush=True)
    started, best, logged = time.monotonic(), 0.0, list[dict[str, float]]()
    for iteration in range(1, args.iterations + 1):
        minutes = (time.monotonic() - started) / 60
        done = max(iteration - 1, int(args.iterations * minutes / args.minutes))
        factor = learning_rate_factor(min(done, args.iterations), args.iterations)
        for group, rate in zip(optimiser.param_groups, rates, strict=True):
            group["lr"] = rate * (factor if iteration > 200 else iteration / 200)
        joint.train()
        joint.model.backbone.bottom_up.eval()  # its statistics stay; its scales and shifts learn
        x, targets = random_batch(rng, pool, args.batch, spec)
        found = losses(joint, x, targets)
        optimiser.zero_grad(set_to_none=True)
        torch.stack(list(found.values())).sum().backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(joint.parameters(), 5.0)
        optimiser.step()
        logged.append({name: float(value.detach()) for name, value in found.items()})
        if iteration % 50 == 0:
            means = {n: float(np.mean([row[n] for row in logged[-50:]])) for n in found}
            text = " ".join(f"{name} {value:.3f}" for name, value in means.items())
            print(f"{iteration} {text} {minutes:.1f} min", flush=True)
        last = iteration == args.iterations or done >= args.iterations
        if iteration % args.look == 0 or last:
            reached = look(joint, validation)
            write_both(joint, args.out, "")
            if reached > best:
                best = reached
                write_both(joint, args.out, "best_")
        if last:
            break


def started_model(start: Path) -> JointModel:
    """Start both heads afresh on the backbone and pyramid of another demonstration model.

    With the demo_instance.safetensors of an interrupted training as ``start``, the training goes
    on: every weight comes from that file, and the standard head from the one beside it.

    Raises:
        DeployError: the classes are not those of the scenes, or ``start`` has no such backbone.
    """
    recipes = [
        load_instance_recipe(path)
        for path in (instance_shipped.RECIPE, instance_shipped.STANDARD_RECIPE)
    ]
    for recipe in recipes:
        if recipe.classes.names != THINGS:
            raise DeployError(
                f"the scenes have the classes {THINGS}, the recipe {recipe.classes.names}",
                "change scripts/demo_training and the recipes of the demonstration together",
            )
    joint = JointModel(*recipes)
    for name, weight in joint.named_parameters():
        layer, _, kind = name.rpartition(".")
        spread = _PREDICTORS.get(layer.rpartition(".")[2])
        if spread is not None and kind == "weight":
            nn.init.normal_(weight, std=spread)
        elif spread is not None:
            nn.init.zeros_(weight)
    bottom_up = joint.model.backbone.bottom_up
    if isinstance(bottom_up, EfficientNetLite0):
        for part in (bottom_up.stem, *bottom_up.blocks[:_FROZEN_BLOCKS]):
            part.requires_grad_(False)
    tensors = read_checkpoint(start)
    if "proposal_generator.rpn_head.conv.weight" in tensors:
        joint.take(tensors, read_checkpoint(start.with_name(f"{recipes[1].name}.safetensors")))
        return joint
    backbone = {name: value for name, value in tensors.items() if name.startswith("backbone.")}
    missing, unexpected = joint.model.load_state_dict(backbone, strict=False)
    absent = [
        name
        for name in missing
        if name.startswith("backbone.") and not name.endswith("num_batches_tracked")
    ]
    if absent or unexpected:
        raise DeployError(
            f"{start} has another backbone: {(absent + list(unexpected))[0]}",
            "start from demo/demo_semantic.safetensors",
        )
    return joint


def look(joint: JointModel, scenes: Sequence[InstanceScene]) -> float:
    """Print the AP of both heads on validation scenes; return PointRend's mask AP + boundary AP."""
    joint.eval()
    truth = as_coco(scenes, [str(n) for n in range(len(scenes))], joint.model.recipe)
    pictures = [scene.image for scene in scenes]
    reached = 0.0
    pointrend, standard = joint.tensors()
    for name, recipe, tensors in (
        ("standard", joint.standard_recipe, standard),
        ("pointrend", joint.model.recipe, pointrend),
    ):
        found = average_precision(
            truth, detections(instance_model_from_tensors(recipe, tensors), pictures)
        )
        kinds = ("box", "mask", "boundary", "boundary_2px")
        print(f"  {name}: " + " ".join(f"{kind} {found[kind]:.4f}" for kind in kinds), flush=True)
        reached = found["mask"] + found["boundary"]
    return reached


def write_both(joint: JointModel, folder: Path, prefix: str) -> None:
    """Write the weights of both recipes as float16, and the standard mask head alone."""
    names = (joint.model.recipe.name, joint.standard_recipe.name)
    tensors: tuple[dict[str, Tensor], dict[str, Tensor]] = joint.tensors()
    for name, values in zip(names, tensors, strict=True):
        write_weights(values, folder / f"{prefix}{name}.safetensors")
    head = {key: value for key, value in tensors[1].items() if key.startswith(MASK_HEAD)}
    write_bytes(folder / f"{prefix}{names[1]}_mask_head.xz", packed(halved(head), {}))


if __name__ == "__main__":
    main()
