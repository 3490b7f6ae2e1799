"""The modules that run a bundle on a device."""

from tests.repository import ROOT

PACKAGE = ROOT / "pointrend_deploy"
ROOMS = ("recipe", "bundle", "pictures", "run")
DEVICE_SIDE = sorted(
    [
        *(path for path in PACKAGE.glob("*.py") if path.stem != "__main__"),
        *(path for room in ROOMS for path in (PACKAGE / room).rglob("*.py")),
    ]
)
"""Every module of these rooms, sub-folders included, and those at the package's top level."""
