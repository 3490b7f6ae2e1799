"""Whether this machine can build engines: `build` asks before its work, and `doctor` asks too."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Final

from pointrend_deploy.bundle.forms import Ops
from pointrend_deploy.engine.flavour import Flavour, Module, how_to_install, installed
from pointrend_deploy.engine.plugin_library import NAME, PluginLibrary, find_library
from pointrend_deploy.engine.targets import Gpu, Target, first_gpu, parse_targets, runs_on
from pointrend_deploy.errors import DeployError
from pointrend_deploy.packages import ABSENT, described, problems, require

# Runs in a process of its own, as builds do: a builder that is damaged may end its process.
_IMPORT: Final = """
import importlib, os, sys, tempfile
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from pointrend_deploy.engine.flavour import prepare_import
with tempfile.TemporaryDirectory() as links:
    keep = prepare_import(sys.argv[1], Path(links))
    importlib.import_module(sys.argv[1])
os._exit(0)
"""


def check_machine(target: str, ops: Ops) -> tuple[tuple[Target, ...], PluginLibrary | None]:
    """Find all that a build needs of this machine.

    Args:
        target: as ``--target`` has it.
        ops: as ``--ops`` has it.

    Returns:
        The targets, and the plugin library where ``ops`` is ``plugin``.

    Raises:
        UsageError: ``target`` is not one.
        DeployError: onnx, the builder, the GPU or the plugin library is missing or no good; or,
            for this machine's GPU, what runs the engine and its graph once.
    """
    check_packages(target)
    targets = parse_targets(target)
    check_import(targets[0].flavour.module)
    library = None
    if ops == "plugin":
        try:
            library = find_library()
        except DeployError as error:
            hint = f"{error.hint}; or build with --ops native, which needs none"
            raise DeployError(error.message, hint) from error
    if any(each.gpu is not None for each in targets):
        require("build --target this")
    return targets, library


def check_packages(target: str) -> None:
    """Check that the packages of a build are there; where some are not, the builder is named too.

    Args:
        target: as ``--target`` has it.

    Raises:
        DeployError: naming all that are missing, and the line that installs them. A missing builder
            alone is found by :func:`~pointrend_deploy.engine.targets.parse_targets`.
    """
    rtx = target.strip().lower().startswith("rtx")
    command = "build --target rtx" if rtx else "build"
    builder: Module = "tensorrt_rtx" if rtx else "tensorrt"
    has_builder = any(flavour.module == builder or not rtx for flavour in installed())
    found = problems(command)
    if has_builder or ABSENT not in found.values():
        require(command)
        return
    title = Flavour(builder, "?").title
    raise DeployError(
        f"{command} needs {described({**found, title: ABSENT})}",
        how_to_install(builder, tuple(found)),
    )


def check_import(module: Module) -> None:
    """Import a builder in a process of its own. Raises DeployError where that fails."""
    root = str(Path(__file__).resolve().parent.parent.parent)
    done = subprocess.run(
        [sys.executable, "-c", _IMPORT, module, root], capture_output=True, text=True, timeout=120
    )
    if done.returncode == 0:
        return
    last = (done.stderr.strip().splitlines() or [f"it ended with {done.returncode}"])[-1]
    raise DeployError(f"{module} cannot be imported: {last.split(': ', 1)[-1]}", "install it again")


def target_to_explain(target: str) -> tuple[Target, ...]:
    """Return the targets that ``--explain`` writes commands for; none has to be possible here.

    ``this`` stands for the machine on which the commands will be run. Without a GPU here that is
    another one, with full TensorRT.

    Raises:
        UsageError: ``target`` is not one.
    """
    if target.strip().lower() != "this":
        return parse_targets(target, installed_only=False)
    full, gpu = Flavour("tensorrt", "?"), first_gpu()
    if gpu is None:
        return (Target(full, 0, Gpu("the GPU of that machine", 0)),)
    found = next(iter(installed()), full)
    return (Target(found if runs_on(found, gpu) else full, gpu.capability, gpu),)


def library_to_explain() -> tuple[str, str]:
    """Return the path of the plugin library for ``--explain``, and a note where it is not here."""
    try:
        return str(find_library().path), ""
    except DeployError as error:
        return NAME, f"# {error.message}: {error.hint}"
