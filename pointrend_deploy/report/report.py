"""The report of a bundle: one HTML file that needs nothing else, and the same in Markdown.

Both are rendered from ``manifest.json`` and ``parity.json``, which stay the truth.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import msgspec

from pointrend_deploy.bundle.folder import GALLERY, MARKDOWN, PARITY, REPORT, Bundle
from pointrend_deploy.bundle.manifest import Manifest
from pointrend_deploy.parity.record import runs as results
from pointrend_deploy.parity.record.detections import AccuracyRow
from pointrend_deploy.parity.record.runs import MetricRow, Parity, Run
from pointrend_deploy.report import figures
from pointrend_deploy.report.gallery.tiles import GalleryItem
from pointrend_deploy.report.precision_view import view
from pointrend_deploy.report.verdict import runner_name, verdict

TEMPLATES = Path(__file__).parent / "templates"
MOST_PICTURES = 40
"""Rows of the table of pictures; the rest stays in parity.json."""

RUN_NAMES = {
    "export": "Verification at export",
    "compare": "Comparison over pictures",
}
PREDICTION_NAMES = {
    "coarse": "coarse head alone",
    "reference": "PyTorch reference",
    "bundle": "this bundle",
}
MEASURE_NAMES = {"box": "boxes", "mask": "masks", "boundary": "boundaries"}
MASK_FORMS = {"prob": "probabilities", "prob-u8": "probabilities in 8 bits", "logits": "logits"}
LAYOUTS = {"single": "one graph", "split": "detector and masks in two graphs"}


def render_html(
    manifest: Mapping[str, Any], parity: Mapping[str, Any], gallery: Sequence[GalleryItem] = ()
) -> str:
    """The report as one HTML file: style, charts and pictures are inside it.

    Args:
        manifest: the contents of ``manifest.json``.
        parity: the contents of ``parity.json``; ``{}`` for a bundle that was never compared.
        gallery: tiles of some pictures (see ``gallery``).

    Raises:
        DeployError: ``parity`` is of another schema or form.
    """
    return _render("report.html.j2", manifest, parity, gallery)


def render_markdown(
    manifest: Mapping[str, Any], parity: Mapping[str, Any], gallery: Sequence[GalleryItem] = ()
) -> str:
    """The report as Markdown; of the gallery only the names, as pictures live in the HTML.

    Takes and raises what ``render_html`` does.
    """
    return _render("report.md.j2", manifest, parity, gallery)


def report_files(bundle: Bundle, gallery: Sequence[GalleryItem] = ()) -> dict[str, str]:
    """``report.html`` and ``report.md`` of a bundle, ready for ``Bundle.update``."""
    manifest = msgspec.to_builtins(bundle.manifest)
    parity = msgspec.to_builtins(results.of_bundle(bundle))
    return {
        "report.html": render_html(manifest, parity, gallery),
        "report.md": render_markdown(manifest, parity, gallery),
    }


def _render(
    template: str,
    manifest: Mapping[str, Any],
    parity: Mapping[str, Any],
    gallery: Sequence[GalleryItem],
) -> str:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=template.endswith(".html.j2"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(
        percent=figures.percent,
        score=figures.score,
        small=figures.small,
        decibel=figures.decibel,
        shape=figures.shape,
        count=figures.count,
        counted=figures.counted,
        average=figures.average,
        overlap=figures.overlap,
        cell=_markdown_cell,
        runner=runner_name,
    )
    known = {key: value for key, value in manifest.items() if key != "digest"}
    return environment.get_template(template).render(
        **_context(
            msgspec.convert(known, Manifest),
            results.decode(msgspec.json.encode(dict(parity))),
            gallery,
        )
    )


def _context(manifest: Manifest, parity: Parity, gallery: Sequence[GalleryItem]) -> dict[str, Any]:
    from markupsafe import Markup

    compare = parity.runs.get("compare")
    truth = _against(compare, "truth")
    bands = list(truth[0].boundary_iou) if truth else []
    chart = ""
    if truth:
        chart = figures.bar_chart(
            ["mIoU", *(f"boundary, {band}" for band in bands)],
            [
                (
                    PREDICTION_NAMES.get(row.prediction, row.prediction),
                    [row.miou, *row.boundary_iou.values()],
                )
                for row in truth
            ],
            "mIoU and boundary IoU against the truth",
        )
    accuracy = compare.accuracy if compare is not None else ()
    if accuracy:
        chart = _accuracy_chart(accuracy)
    return {
        "manifest": manifest,
        "instance": manifest.instance,
        "mask_forms": MASK_FORMS,
        "layouts": LAYOUTS,
        "accuracy": accuracy,
        "measures": MEASURE_NAMES,
        "known": compare.truth if compare is not None else None,
        "detected": compare.detected_pictures[:MOST_PICTURES] if compare is not None else (),
        "recipe": manifest.recipe,
        "verdict": verdict(parity),
        "runs": [(RUN_NAMES.get(name, name), run) for name, run in parity.runs.items()],
        "compare": compare,
        "truth": truth,
        "mutual": _against(compare, "reference"),
        "bands": bands,
        # built from escaped parts; numbers and fixed words otherwise
        "chart": Markup(chart),
        "names": PREDICTION_NAMES,
        "short": {"coarse": "coarse", "reference": "PyTorch", "bundle": "bundle"},
        "pictures": compare.per_picture[:MOST_PICTURES] if compare is not None else (),
        "more_pictures": max(
            0, len(compare.per_picture or compare.detected_pictures) - MOST_PICTURES
        )
        if compare is not None
        else 0,
        "gallery": gallery,
        "precisions": None
        if parity.precisions is None
        else view(parity.precisions, manifest.files),
        "weights": ""
        if manifest.weights.included
        else f" --weights {manifest.weights.source_name}",
        "files": {  # the record and what is rendered from it change with every comparison
            name: digest
            for name, digest in manifest.files.items()
            if name not in (REPORT, MARKDOWN, GALLERY, PARITY)
        },
        "style": Markup((TEMPLATES / "report.css").read_text(encoding="utf-8")),
    }


def _accuracy_chart(rows: Sequence[AccuracyRow]) -> str:
    sides = [
        (who, [row for row in rows if row.prediction == who]) for who in ("reference", "bundle")
    ]
    groups = [f"{row.measure} AP" for row in rows if row.prediction == "bundle"]
    return figures.bar_chart(
        groups,
        [(PREDICTION_NAMES[who], [row.ap for row in own]) for who, own in sides],
        "average precision against the truth",
        first_colour=1,
    )


def _against(run: Run | None, against: str) -> list[MetricRow]:
    # a failed run is falsy, and its scores are wanted most of all
    return [] if run is None else [row for row in run.metrics if row.against == against]


def _markdown_cell(text: object) -> str:
    """Text that stays inside its cell and is never taken for HTML or for emphasis."""
    out = escape(str(text), quote=False).replace("\n", " ").replace("\r", " ")
    for mark in "\\|`*_[]":
        out = out.replace(mark, "\\" + mark)
    return out
