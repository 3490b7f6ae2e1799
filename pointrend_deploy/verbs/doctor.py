"""`doctor`: what this machine has, and which verbs that allows."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import msgspec

from pointrend_deploy.engine.flavour import RTX_CAPABILITIES, check_version, installed
from pointrend_deploy.engine.machine import check_import
from pointrend_deploy.engine.plugin_library import find_library, note_on
from pointrend_deploy.engine.targets import first_gpu, runs_on
from pointrend_deploy.errors import DeployError
from pointrend_deploy.packages import ABSENT, MODULES, problem_of
from pointrend_deploy.verbs.abilities import Ability, abilities
from pointrend_deploy.version import __version__

DISTRIBUTIONS = {"onnxruntime": ("onnxruntime", "onnxruntime-gpu")}
"""Distributions that give a package, where they are not called as users call it."""

BASE = ("msgspec", "numpy", "pillow", "rich", "typer")
"""Packages of the device install."""


class Findings(msgspec.Struct, frozen=True):
    """The findings of `doctor`.

    Attributes:
        machine: name -> value, such as python, system, cores, memory_gib, gpu, jetson.
        packages: version by name; None where it is not installed; "?" where it does not say;
            "cannot be imported: ..." where it is installed and is no good.
        abilities: of every verb with every runner.
        builders: TensorRT and TensorRT-RTX, those that are there, with what they build for.
        plugins: the plugin library, where it is and what it was compiled for; or what is wrong
            with it, and what to do.
    """

    machine: dict[str, str]
    packages: dict[str, str | None]
    abilities: tuple[Ability, ...]
    builders: tuple[str, ...]
    plugins: tuple[str, ...]

    def to_json(self) -> str:
        """Return the findings as indented JSON."""
        return msgspec.json.format(msgspec.json.encode(self), indent=2).decode()

    def summary(self) -> str:
        """Return the findings as lines for the terminal."""
        rows = [f"pointrend-deploy {__version__}", "", "machine"]
        rows += [f"  {name:18} {value}" for name, value in self.machine.items()]
        rows += ["", "packages"]
        rows += [f"  {name:18} {found or '-'}" for name, found in self.packages.items()]
        rows += ["", "engine builders"]
        rows += [f"  {line}" for line in self.builders or ("none",)]
        rows += ["", "plugin library"]
        rows += [f"  {line}" for line in self.plugins]
        rows += ["", "what that allows"]
        width = max(len(ability.verb) for ability in self.abilities)
        for ability in self.abilities:
            state = "yes" if ability.able else f"no: {_own_words(ability)}"
            rows.append(f"  {ability.verb:{width}}  {state}")
        hints: dict[str, list[str]] = {}
        for ability in self.abilities:
            if not ability.able:
                hints.setdefault(ability.hint, []).append(ability.verb)
        if hints:
            rows += ["", "what to do for the others"]
        for hint, verbs in hints.items():
            rows += [f"  {'; '.join(verbs)}:", f"      {hint}"]
        return "\n".join(rows)


def _own_words(ability: Ability) -> str:
    """Return the reason without the name of the verb, which stands before it."""
    return re.sub("^[a-z -]* needs ", "", ability.reason)


def examine() -> Findings:
    """Examine the machine. Changes nothing and uses no network."""
    packages: dict[str, str | None] = {name: _version(name) for name in BASE}
    for name in MODULES:
        said = problem_of(name)
        packages[name] = _version(name) if not said else None if said == ABSENT else said
    for flavour in installed():
        packages[flavour.module.replace("_", "-")] = flavour.version
    return Findings(_machine(), packages, abilities(), _builders(), _plugins())


def _builders() -> tuple[str, ...]:
    lines = []
    for flavour in installed():
        try:
            check_version(flavour)
            check_import(flavour.module)
            gpu = first_gpu()
            where = ["the GPU of this machine"] if gpu and runs_on(flavour, gpu) else []
            if flavour.module == "tensorrt_rtx":
                where.append(f"rtx:{','.join(map(str, RTX_CAPABILITIES))} without a GPU")
            said = f"builds for {' or '.join(where)}" if where else "finds no GPU to build for"
            lines.append(f"{flavour.title} {flavour.version}, {said}")
        except DeployError as error:
            lines.append(error.message)
    return tuple(lines)


def _plugins() -> tuple[str, ...]:
    try:
        library = find_library()
    except DeployError as error:
        return error.message, error.hint
    lines = [f"{library.path}, compiled with TensorRT {library.tensorrt}; it loads"]
    notes = {note_on(library, f.module, f.version): f.title for f in installed()}
    lines += [f"under {title}: {note}" for note, title in notes.items() if note]
    return tuple(lines)


def _version(name: str) -> str:
    for distribution in DISTRIBUTIONS.get(name, (name,)):
        try:
            return version(distribution)
        except PackageNotFoundError:
            continue
    return "?"


def _machine() -> dict[str, str]:
    found = {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cores": str(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else "?"),
    }
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        pages, size = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
        found["memory_gib"] = f"{pages * size / 2**30:.1f}"
    found["gpu"] = _gpu()
    release = Path("/etc/nv_tegra_release")
    found["jetson"] = release.read_text().splitlines()[0] if release.is_file() else "no"
    found["nvcc"] = _first_line("nvcc", "--version", line=-2) or "not on PATH"
    return found


def _gpu() -> str:
    """Describe the GPU that `build` and the TensorRT runner see; a Jetson has no nvidia-smi."""
    gpu = first_gpu()
    if gpu is None:
        return "none that the CUDA driver shows"
    query = "--query-gpu=driver_version,memory.total"
    more = _first_line("nvidia-smi", query, "--format=csv,noheader")
    said = f"{gpu.name}, compute capability {gpu.capability / 10:.1f}"
    return f"{said}, driver and memory {more}" if more else said


def _first_line(program: str, *arguments: str, line: int = 0) -> str:
    if shutil.which(program) is None:
        return ""
    try:
        done = subprocess.run(
            [program, *arguments], capture_output=True, text=True, timeout=20, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    lines = done.stdout.strip().splitlines()
    return lines[line].strip() if lines else ""
