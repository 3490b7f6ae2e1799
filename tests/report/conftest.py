"""The browser that reports are looked at in."""

from __future__ import annotations

import os
import shutil

import pytest


@pytest.fixture(scope="session")
def chromium() -> str:
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    if found is None:
        if os.environ.get("CI") == "true":
            pytest.fail("CI has no chromium, so the report was not looked at")
        pytest.skip("chromium is not installed: apt-get install chromium")
    return found
