"""The report of a bundle: one HTML file that needs no other file, and the same in Markdown.

Both are rendered from ``manifest.json`` and ``parity.json``, which contain every figure.
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
from pointrend_deploy.parity.record.runs import Parity
from pointrend_deploy.report import figures
from pointrend_deploy.report.differences import score_lines
from pointrend_deploy.report.engine_rows import DEVICES, engine_rows
from pointrend_deploy.report.gallery.tiles import GalleryItem
from pointrend_deploy.report.narrow import with_labels
from pointrend_deploy.report.precision_view import view
from pointrend_deploy.report.task import report_task
from pointrend_deploy.report.verdict import runner_name, verdict

TEMPLATES = Path(__file__).parent / "templates"
MOST_PICTURES = 40
"""Number of rows in the table of pictures; the others are in parity.json only."""

RUN_NAMES = {
    "export": "Verification at export",
    "compare": "Comparison over pictures",
}
SHORT_NAMES = {"coarse": "coarse", "reference": "PyTorch", "bundle": "bundle"}


def render_html(
    manifest: Mapping[str, Any], parity: Mapping[str, Any], gallery: Sequence[GalleryItem] = ()
) -> str:
    """Render the report as one HTML file with its style, charts and pictures inside.

    Args:
        manifest: the contents of ``manifest.json``.
        parity: the contents of ``parity.json``; ``{}`` for a bundle that was never compared.
        gallery: tiles of some pictures.

    Raises:
        DeployError: ``parity`` has another schema or form.
    """
    return with_labels(_render("report.html.j2", manifest, parity, gallery))


def render_markdown(
    manifest: Mapping[str, Any], parity: Mapping[str, Any], gallery: Sequence[GalleryItem] = ()
) -> str:
    """Render the report as Markdown; it only names the pictures of the gallery.

    Arguments and errors are those of :func:`render_html`.
    """
    return _render("report.md.j2", manifest, parity, gallery)


def report_files(bundle: Bundle, gallery: Sequence[GalleryItem] = ()) -> dict[str, str]:
    """Render ``report.html`` and ``report.md`` of a bundle, for :meth:`Bundle.update`.

    Args:
        bundle: the bundle.
        gallery: tiles of some pictures.

    Returns:
        The text of each file, by name.
    """
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
    task = report_task(manifest.recipe.task)
    scores = task.scores(compare)
    pictures = () if compare is None else task.pictures(compare)
    table = parity.precisions
    included = manifest.weights.included
    return {
        "manifest": manifest,
        "recipe": manifest.recipe,
        "task": task,
        "verdict": verdict(parity),
        "runs": [(RUN_NAMES.get(name, name), run) for name, run in parity.runs.items()],
        **scores,
        "score_lines": () if compare is None else score_lines(compare),
        "chart": Markup(scores["chart"]),
        "names": figures.PREDICTION_NAMES,
        "short": SHORT_NAMES,
        "truth_notes": () if compare is None else compare.truth_notes,
        "pictures": pictures[:MOST_PICTURES],
        "more_pictures": max(0, len(pictures) - MOST_PICTURES),
        "gallery": gallery,
        "precisions": None if table is None else view(table, manifest.files),
        "engine_rows": engine_rows(manifest),
        "engine_devices": DEVICES,
        "weights": "" if included else f" --weights {manifest.weights.source_name}",
        "files": {  # the record, and what is made from it, change with every comparison
            name: digest
            for name, digest in manifest.files.items()
            if name not in (REPORT, MARKDOWN, GALLERY, PARITY)
        },
        "style": Markup((TEMPLATES / "report.css").read_text(encoding="utf-8")),
    }


def _markdown_cell(text: object) -> str:
    """Escape text so that it stays inside its cell and is never read as HTML or emphasis."""
    out = escape(str(text), quote=False).replace("\n", " ").replace("\r", " ")
    for mark in "\\|`*_[]":
        out = out.replace(mark, "\\" + mark)
    return out
