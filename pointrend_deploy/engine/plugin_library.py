"""The built plugin library: where it is, whether it loads, what it was compiled for."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pointrend_deploy.bundle.folder import sha256_of
from pointrend_deploy.errors import DeployError

NAME: Final = "libpointrend_plugins.so"
VARIABLE: Final = "POINTREND_PLUGINS"
HOW_TO_BUILD: Final = (
    "scripts/build_plugins.sh of the project's repository builds it for this machine "
    f"(docs/plugins.md); the environment variable {VARIABLE} names a library in another place"
)
OLDEST: Final = 100300
"""Version 10.3.0, the first whose plugin classes the library uses."""

# Runs in a process of its own: a library that is no good may end the process that loads it. Lazy
# binding, because the logger's classes are TensorRT's, which is not loaded here.
_PROBE: Final = """
import ctypes, os, sys
library = ctypes.CDLL(sys.argv[1], mode=os.RTLD_LAZY | os.RTLD_LOCAL)
library.getCreators, library.setLoggerFinder
print(library.pointrend_tensorrt_version())
"""


@dataclass(frozen=True)
class PluginLibrary:
    """A library that loads.

    Attributes:
        path: absolute.
        sha256: of the file.
        tensorrt: version of the headers it was compiled with, "10.14.1".
    """

    path: Path
    sha256: str
    tensorrt: str


def candidates() -> tuple[Path, ...]:
    """Return the build folders searched for a library when the environment names none."""
    checkout = Path(__file__).resolve().parent.parent.parent
    roots = dict.fromkeys((Path.cwd(), checkout))
    return tuple(root / "build" / folder / NAME for root in roots for folder in ("plugins", "."))


def find_library() -> PluginLibrary:
    """Find the plugin library of this machine and load it once as a test.

    Raises:
        DeployError: there is no library, it does not load, or it is not one of this project.
    """
    named = os.environ.get(VARIABLE)
    if named:
        if not Path(named).is_file():
            raise DeployError(f"{VARIABLE}={named} is not a file", HOW_TO_BUILD)
        return load_library(Path(named))
    for path in candidates():
        if path.is_file():
            return load_library(path)
    raise DeployError(f"the plugin library {NAME} is not built", HOW_TO_BUILD)


def load_library(path: Path) -> PluginLibrary:
    """Load a library in a process of its own and read what it was compiled for.

    Raises:
        DeployError: it does not load, is another library, or was compiled without TensorRT.
    """
    path = path.resolve()
    done = subprocess.run(
        [sys.executable, "-c", _PROBE, str(path)], capture_output=True, text=True, timeout=60
    )
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or [f"it ended with {done.returncode}"])[-1]
        if "undefined symbol" in last:
            raise DeployError(f"{path} is not a plugin library of this project", HOW_TO_BUILD)
        raise DeployError(
            f"the plugin library {path} does not load here: {last.split(': ', 1)[-1]}",
            f"it may be of another machine or of an older system; {HOW_TO_BUILD}",
        )
    number = int(done.stdout.split()[-1])
    if number < OLDEST:
        raise DeployError(
            f"{path} was compiled "
            + (f"with TensorRT {_dotted(number)}" if number else "without TensorRT")
            + "; 10.3 is the oldest that will do",
            HOW_TO_BUILD,
        )
    return PluginLibrary(path, sha256_of(path), _dotted(number))


def note_on(library: PluginLibrary, module: str, version: str) -> str:
    """Return a warning about this library under this builder; empty where there is none."""
    major = "11" if module == "tensorrt_rtx" else version.split(".")[0]
    if library.tensorrt.split(".")[0] == major:
        return ""
    return (
        f"the plugin library was compiled with TensorRT {library.tensorrt}: it works here, but its "
        "error messages do not reach the builder's log"
    )


def _dotted(number: int) -> str:
    return f"{number // 10000}.{number // 100 % 100}.{number % 100}"
