"""What an export says on the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pointrend_deploy.bundle import Bundle
from pointrend_deploy.manifest import Manifest

if TYPE_CHECKING:
    from pointrend_deploy.parity.results import Run


def summary_lines(bundle: Bundle, run: Run, nodes: int, seconds: float) -> str:
    """The bundle, its graphs, what its verification found, and what to do next."""
    manifest, path = bundle.manifest, bundle.path
    canvas = manifest.canvas
    size, padded = (f"{h}x{w}" for h, w in (canvas.size_hw, canvas.padded_hw))
    mib = sum((path / name).stat().st_size for name in graph_files(manifest)) / 2**20
    lines = [
        f"bundle      {path}",
        f"model       {manifest.name}, {manifest.ops} ops, opset {manifest.opset}, "
        f"{nodes} nodes, {mib:.1f} MiB",
        f"canvas      {size}, padded to {padded}, batch {canvas.batch}",
    ]
    export = manifest.instance
    if export is not None:
        layout = "one graph" if export.layout == "single" else "detector and masks apart"
        lines.append(
            f"detections  at most {export.detections}, masks {export.mask_side}x"
            f"{export.mask_side} {export.masks}, {layout}"
        )
    lines += [f"verified    ONNX Runtime against PyTorch: {_found(run)}"]
    lines += [f"note        {note}" for note in run.notes]
    lines += [
        f"time        {seconds:.1f} s",
        f"next        pointrend-deploy run {path} IMAGE_OR_FOLDER --out results/",
    ]
    return "\n".join(lines)


def graph_files(manifest: Manifest) -> tuple[str, ...]:
    """The files of a bundle's FP32 graphs."""
    export = manifest.instance
    masks = [export.mask_graphs["fp32"]] if export is not None and export.mask_graphs else []
    return (manifest.graphs["fp32"], *masks)


def _found(run: Run) -> str:
    found = run.detections
    if found is None:
        agreement = next((row.agreement for row in run.stages if row.name == "labels"), None)
        return f"labels agree on {agreement or 0.0:.4%} of the pixels"
    total = found.matched + found.only_reference
    said = f"{found.matched} of {total} detections matched"
    if found.matched and found.box_canvas_px is not None:
        said += f", boxes within {found.box_canvas_px:.2g} px"
    if found.mask_iou_mean is not None:
        said += f", masks' IoU {found.mask_iou_mean:.5f}"
    return said
