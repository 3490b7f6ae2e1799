"""What the tests of reports share: reading a page's tags and tables, and a real browser."""

from __future__ import annotations

import re
import subprocess
from html import escape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

VOID = {"meta", "link", "img", "br", "line", "rect", "hr", "input"}
Record = tuple[dict[str, Any], dict[str, Any], list[Any]]
"""The manifest, the record and the gallery, as reports take them."""


class Balanced(HTMLParser):
    """Fails on a tag that is closed without being open, and keeps every tag and attribute."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def visible(text: str) -> str:
    return re.sub(r"\s+", " ", " ".join(Balanced(text).words))


def check_tables(markdown: str) -> None:
    """Fail where a row of a Markdown table has another number of cells than the one above it."""
    width = None
    for line in markdown.splitlines():
        cells = len(re.findall(r"(?<!\\)\|", line)) if line.startswith("|") else None
        assert cells is None or width in (None, cells), line
        width = cells


FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

PROBE = """<!doctype html><body style="margin:0"><iframe id="page" style="width:{width}px;
height:900px;border:0" srcdoc="{page}"></iframe><pre id="found"></pre><script>
addEventListener("load", () => {{
  const frame = document.getElementById("page"), page = frame.contentDocument;
  page.querySelectorAll("details").forEach(each => each.open = true);
  const root = page.documentElement;
  const images = [...page.images];
  const wide = [...page.querySelectorAll("body *")].filter(each =>
    (each.getBoundingClientRect().right > root.clientWidth + 1 && !each.closest("svg")) ||
    (each.scrollWidth > each.clientWidth + 1 && each.clientWidth > 0 &&
      getComputedStyle(each).overflowX != "visible")).map(each => each.tagName);
  document.getElementById("found").textContent = "FOUND " + [
    root.scrollWidth, root.clientWidth, images.length,
    images.filter(each => each.complete && each.naturalWidth > 0).length,
    frame.contentWindow.performance.getEntriesByType("resource").length,
    wide.join("+") || "none", getComputedStyle(page.querySelector(".verdict")).borderTopStyle,
  ].join(" ") + " END";
}});
</script></body>"""


def dump(chromium: str, folder: Path, name: str, page: str, *flags: str) -> str:
    """The page as the browser has it once its scripts have run."""
    where = folder / name
    where.write_text(page, encoding="utf-8")
    done = subprocess.run(
        [
            chromium,
            *FLAGS,
            *flags,
            f"--user-data-dir={folder / 'profile'}",
            "--dump-dom",
            where.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return done.stdout


def probe(chromium: str, folder: Path, page: str, width: int) -> list[str]:
    """Scroll width, client width, pictures, pictures shown, requests, what is too wide, a border.

    Too wide is what ends right of the page, and what would have to be scrolled sideways or is cut.
    """
    text = dump(
        chromium, folder, f"probe{width}.html", PROBE.format(width=width, page=escape(page))
    )
    found = re.search(r'id="found">FOUND (.*?) END', text)
    assert found is not None, text[-2000:]
    return found.group(1).split()


def check_shown_whole(
    chromium: str, folder: Path, page: str, width: int, pictures: int | None = None
) -> None:
    """Fail where a page overflows, loads anything, lacks its style or shows too few pictures."""
    scroll, client, images, shown, requests, wide, border = probe(chromium, folder, page, width)
    assert int(scroll) <= int(client) <= width, f"overflows sideways at {width} px"
    assert wide == "none", f"{wide} are cut or scroll sideways at {width} px"
    assert pictures is None or int(images) == int(shown) == pictures
    assert requests == "0", "something was asked of the network"
    assert border == "solid", "the style was not applied"
