"""The packages that some verbs need besides the device install, and the line that installs them.

The device install has what ``run`` needs but its runner. Everything else comes with an extra of
pyproject.toml, such as ``pointrend-deploy[export]``. Every verb begins with :func:`require`, and
``doctor`` asks :func:`problems`, so that both say the same.
"""

from __future__ import annotations

import importlib
import json
import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from pointrend_deploy.errors import DeployError

MODULES: Final[Mapping[str, tuple[str, ...]]] = {
    "onnxruntime": ("onnxruntime",),
    "torch": ("torch",),
    "safetensors": ("safetensors",),
    "onnx": ("onnx",),
    "onnxscript": ("onnxscript",),
    "onnx-graphsurgeon": ("onnx_graphsurgeon",),
    "polygraphy": ("polygraphy",),
    "jinja2": ("jinja2",),
    "faster-coco-eval": ("faster_coco_eval",),
    "cuda-python": ("cuda.bindings.runtime", "cuda.cudart"),
}
"""By package: the modules that it may give, of which one is enough."""


@dataclass(frozen=True)
class Need:
    """What a command needs besides the device install.

    Attributes:
        extra: the smallest extra of pyproject.toml that has all of it; empty where every extra
            has more, and the packages are installed by their own names.
        packages: names in :data:`MODULES`.
    """

    extra: str
    packages: tuple[str, ...]


_COMPARE: Final = ("torch", "safetensors", "onnx", "onnxruntime", "jinja2")
NEEDS: Final[Mapping[str, Need]] = {
    "export": Need("export", (*_COMPARE, "onnxscript", "onnx-graphsurgeon", "polygraphy")),
    "calibrate": Need("export", ("onnx", "onnx-graphsurgeon", "onnxruntime")),
    "quantize": Need("export", ("onnx", "onnx-graphsurgeon", "onnxruntime", "torch")),
    "build": Need("gpu", ("onnx",)),
    "build --target this": Need("gpu", ("onnx", "onnxruntime", "cuda-python")),
    "build --target rtx": Need("rtx", ("onnx",)),
    "build --explain": Need("", ("onnx",)),
    "run --runner onnx": Need("onnx", ("onnxruntime",)),
    "run --runner torch": Need("torch", ("torch", "safetensors")),
    "run --runner tensorrt": Need("gpu", ("cuda-python",)),
    "compare": Need("export", _COMPARE),
    "compare --precision": Need("export", (*_COMPARE, "onnx-graphsurgeon")),
    "average precision": Need("accuracy", ("faster-coco-eval",)),
    "report": Need("report", ("jinja2",)),
    "load_model": Need("torch", ("torch", "safetensors")),
}
"""By command, or name of the Python API: its packages."""

ABSENT: Final = "is not installed"
_JETSON_RELEASE: Final = Path("/etc/nv_tegra_release")
_CHECKOUT: Final = Path(__file__).resolve().parent.parent


def problem_of(package: str) -> str:
    """Say why a package cannot be used; empty where it can. Imports it.

    Args:
        package: a name in :data:`MODULES`.

    Returns:
        ``is not installed``, or ``cannot be imported: ...`` with the reason.
    """
    modules = MODULES[package]
    said = ""
    for module in modules:
        if not _found(module):
            continue
        try:
            importlib.import_module(module)
            return ""
        except Exception as error:  # a package that is damaged raises anything
            said = said or f"cannot be imported: {(str(error) or repr(error)).splitlines()[0]}"
    return said or ABSENT


def problems(command: str) -> dict[str, str]:
    """Find the packages of a command that cannot be used, each with the reason.

    Args:
        command: a key of :data:`NEEDS`.
    """
    found = {package: problem_of(package) for package in NEEDS[command].packages}
    return {package: said for package, said in found.items() if said}


def require(command: str, instead: str = "") -> None:
    """Check that the packages of a command can be imported.

    Args:
        command: a key of :data:`NEEDS`.
        instead: what to do where they are not to be installed, such as ``use --runner torch``.

    Raises:
        DeployError: naming all that are missing, and the line that installs them on this machine.
    """
    found = problems(command)
    if not found:
        return
    hint = install_hint(command, found)
    raise DeployError(
        f"{command} needs {described(found)}", f"`{hint}`, or {instead}" if instead else hint
    )


def described(found: Mapping[str, str]) -> str:
    """Say which packages cannot be used: ``torch and onnx, which are not installed``.

    Packages that need others have the same problem as those; where some are not installed, only
    these are named.
    """
    absent = [name for name, said in found.items() if said == ABSENT]
    if not absent:
        return "; and ".join(f"{name}, which {said}" for name, said in found.items())
    if len(absent) == 1:
        return f"{absent[0]}, which {ABSENT}"
    return f"{', '.join(absent[:-1])} and {absent[-1]}, which are not installed"


def install_hint(command: str, found: Mapping[str, str]) -> str:
    """Return what installs the packages of a command that cannot be used.

    Args:
        command: a key of :data:`NEEDS`.
        found: what :func:`problems` gave.
    """
    if ABSENT not in found.values():
        return f"{pip_install()} --force-reinstall {' '.join(found)}"
    need = NEEDS[command]
    extra = "jetson" if on_jetson() and need.extra == "gpu" else need.extra
    line = install_line(extra, tuple(found))
    if on_jetson() and "torch" in need.packages:
        return (
            "do this on a workstation and copy the bundle to the Jetson; or install the packages "
            f"here, which takes several GB: `{line}`"
        )
    return line


def install_line(extra: str, packages: Sequence[str] = ()) -> str:
    """Return the command that installs an extra, from where this package was installed from.

    Args:
        extra: of pyproject.toml; empty for the packages alone.
        packages: installed by their own names where the source of this package is gone.
    """
    wanted = requirement(extra) if extra else ""
    return f"{pip_install()} {wanted or shlex.join(packages)}"


def requirement(extra: str) -> str:
    """Return the words that name this package with an extra, quoted for the shell.

    A checkout is named by its folder, as pip would install it; otherwise pip's record of the
    installation says what it was made from. Empty where that folder or file is gone.
    """
    if (_CHECKOUT / "pyproject.toml").is_file():
        here = Path.cwd() == _CHECKOUT
        return "-e " + shlex.quote(f"{'.' if here else _CHECKOUT}[{extra}]")
    try:
        record = json.loads(distribution("pointrend-deploy").read_text("direct_url.json") or "{}")
    except PackageNotFoundError:  # a copied folder
        return ""
    url = str(record.get("url", ""))
    if not url:  # from a package index
        return shlex.quote(f"pointrend-deploy[{extra}]")
    place = Path(url.removeprefix("file://"))
    if "vcs_info" in record:
        revision = record["vcs_info"]["commit_id"]
        return shlex.quote(
            f"pointrend-deploy[{extra}] @ {record['vcs_info']['vcs']}+{url}@{revision}"
        )
    if "vcs_info" in record or not url.startswith("file://"):
        return shlex.quote(f"pointrend-deploy[{extra}] @ {url}")
    if place.is_dir():
        return shlex.quote(f"{place}[{extra}]")
    return shlex.quote(f"pointrend-deploy[{extra}] @ {url}") if place.is_file() else ""


def pip_install() -> str:
    """Return the command that installs into this Python: ``pip install`` where pip is its own."""
    own = Path(sys.executable).parent
    first = shutil.which("pip")
    if first and Path(first).parent == own:
        return "pip install"
    if find_spec("pip") is None and shutil.which("uv"):
        return f"uv pip install --python {shlex.quote(sys.executable)}"
    return f"{shlex.quote(sys.executable)} -m pip install"


def on_jetson() -> bool:
    """Whether this machine is a Jetson, by the file that JetPack puts there."""
    return _JETSON_RELEASE.is_file()


def package_of(module: str) -> str:
    """Return the package of :data:`MODULES` that gives a module; empty where none does."""
    top = module.split(".")[0]
    return next((p for p, names in MODULES.items() if top in {n.split(".")[0] for n in names}), "")


def _found(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ImportError:  # of the package that it is in
        return False
    except ValueError:  # a module without a spec
        return sys.modules.get(module) is not None
