"""The table of engines in a report."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from pointrend_deploy.bundle.manifest import Manifest
from pointrend_deploy.bundle.records import EngineFile, EngineRecord, EngineShape, PartShape
from pointrend_deploy.report import report
from pointrend_deploy.report.engine_rows import EngineRow, engine_rows
from tests.report.example_report import NASTY, make
from tests.report.pages import Balanced, Record, check_tables, visible

SHAPE = EngineShape(
    layers=1981,
    plugins={"PointRendNMS": 2, "PointRendSample": 105},
    reformats=88,
    bytes=4_899_092_116,
    constant_bytes=160_000_000,
    parts={
        "backbone": PartShape(layers=67, plugins=0, reformats=1, bytes=427_202_560),
        "mask head": PartShape(layers=1914, plugins=107, reformats=87, bytes=4_471_889_556),
    },
    sizes={"R": 100},
)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Record:
    return make(tmp_path_factory.mktemp("plain"))


def with_engine(record: Record, name: str, shape: EngineShape | None, source: str = "") -> Record:
    """The record of a bundle that has this engine too."""
    manifest, parity, gallery = record
    graph, digest = next(iter(manifest["files"].items()))
    engine = EngineFile(
        file=f"engines/{name}/masks.engine",
        sha256="1" * 64,
        source=graph,
        source_sha256=source or digest,
        size=100,
        shape=shape,
    )
    built = EngineRecord(
        builder="tensorrt_rtx",
        version="1.7.1",
        platform="Linux x86_64",
        capability=86,
        gpu=None,
        precision="fp16",
        ops="plugin",
        workspace_mib=1024,
        plugin_sha256=None,
        plugin_tensorrt=None,
        timing_cache=None,
        engines=(engine,),
    )
    engines: dict[str, Any] = {**manifest.get("engines", {}), name: msgspec.to_builtins(built)}
    return {**manifest, "engines": engines}, parity, gallery


def read(record: Record) -> Manifest:
    return msgspec.convert(record[0], Manifest)


def test_a_row_has_the_figures_of_the_manifest(plain: Record) -> None:
    (row,) = engine_rows(read(with_engine(plain, "rtx", SHAPE)))
    assert row == EngineRow(
        name="rtx/masks.engine, R = 100",
        outdated=False,
        layers=1981,
        plugins=107,
        reformats=88,
        moved="4.90 GB",
        parts=("backbone: 67 layers, 0.427 GB", "mask head: 1,914 layers, 4.47 GB"),
        times=("23.9 ms", "48 ms"),
    )


def test_an_engine_of_an_earlier_graph_is_called_that(plain: Record) -> None:
    record = with_engine(plain, "rtx", SHAPE, source="0" * 64)
    (row,) = engine_rows(read(record))
    assert row.outdated
    for page in (visible(report.render_html(*record)), report.render_markdown(*record)):
        assert "of an earlier graph" in page


def test_both_reports_show_the_table_once(plain: Record) -> None:
    record = with_engine(with_engine(plain, "one", SHAPE), NASTY, SHAPE)
    html, markdown = report.render_html(*record), report.render_markdown(*record)
    Balanced(html)
    check_tables(markdown)
    for page in (visible(html), markdown):
        assert page.count("Engines: layers and bytes") == 1
        assert page.count("mask head: 1,914 layers, 4.47 GB") == 2
        assert page.count("23.9 ms") == 2
        assert "not measured" in page
        assert "1,981" in page
    assert "<script>" not in html.split("</style>")[1]
    assert 'href="#engines"' in html


def test_a_bundle_without_counted_engines_has_no_such_table(plain: Record) -> None:
    for record in (plain, with_engine(plain, "earlier", None)):
        assert engine_rows(read(record)) == ()
        assert "Engines: layers" not in report.render_markdown(*record)
        assert 'id="engines"' not in report.render_html(*record)
