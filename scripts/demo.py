"""`make demo`: export the demonstration model, run it, compare it, and lay out what to look at.

Everything goes to one folder: ``bundle/`` (with ``report.html``), ``scenes/`` and ``pictures/``
(label maps and overlays), ``side-by-side/`` (coarse, PointRend, truth and the points chosen).
"""

from __future__ import annotations

import argparse
import base64
import sys
from pathlib import Path

from PIL import Image, ImageDraw

from pointrend_deploy.errors import DeployError
from pointrend_deploy.parity.gallery import GalleryItem, Tile
from pointrend_deploy.progress import Bars
from pointrend_deploy.verbs.compare import compare_bundle, record
from pointrend_deploy.verbs.export import export_bundle
from pointrend_deploy.verbs.export_options import ExportOptions
from pointrend_deploy.verbs.run import run_bundle

ROOT = Path(__file__).resolve().parent.parent
DEMO = ROOT / "demo"
RECIPE = ROOT / "export" / "demo_semantic.toml"
WEIGHTS = DEMO / "demo_semantic.safetensors"
SIZE = (256, 256)
GAP = 8
TITLE = 22


def main() -> int:
    """Run the demonstration; 0 when every gate passed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "demo")
    out = parser.parse_args().out
    bundle = out / "bundle"
    print("exporting", file=sys.stderr)
    exported = export_bundle(
        RECIPE, WEIGHTS, bundle, ExportOptions(size_hw=SIZE), force=True, progress=Bars()
    )
    print("running ONNX Runtime on scenes and photographs", file=sys.stderr)
    run_bundle(bundle, DEMO / "scenes", out / "scenes", runner="onnx")
    run_bundle(bundle, DEMO / "pictures", out / "pictures", runner="onnx")
    print("comparing with PyTorch and with the scenes' exact labels", file=sys.stderr)
    compared = compare_bundle(bundle, DEMO / "scenes", labels=DEMO / "labels")
    record(compared)
    for item in compared.gallery:
        save_strip(item, out / "side-by-side" / f"{item.name}.png")
    print(exported.summary())
    print()
    print(compared.summary())
    print()
    print(f"look at     {bundle / 'report.html'}")
    print(f"            {out / 'side-by-side'}   coarse, PointRend, truth, uncertain points")
    print(f"            {out / 'scenes' / 'overlays'}")
    print(f"            {out / 'pictures' / 'overlays'}   photographs show the pipeline only: the")
    print("            model was trained on generated scenes and knows nothing of photographs")
    return 0 if compared else 3


def save_strip(item: GalleryItem, path: Path) -> None:
    """Put a picture's tiles side by side under their titles."""
    import io

    def picture(tile: Tile) -> Image.Image:
        return Image.open(io.BytesIO(base64.b64decode(tile.uri.split(",", 1)[1])))

    width = sum(tile.width + GAP for tile in item.tiles) - GAP
    height = max(tile.height for tile in item.tiles) + TITLE
    strip = Image.new("RGB", (width, height), "white")
    draw, x = ImageDraw.Draw(strip), 0
    for tile in item.tiles:
        draw.text((x + 2, 4), tile.label, fill="black")
        strip.paste(picture(tile), (x, TITLE))
        x += tile.width + GAP
    path.parent.mkdir(parents=True, exist_ok=True)
    strip.save(path)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except DeployError as error:
        print(f"error: {error.message}", file=sys.stderr)
        if error.hint:
            print(f"hint: {error.hint}", file=sys.stderr)
        sys.exit(error.exit_code)
