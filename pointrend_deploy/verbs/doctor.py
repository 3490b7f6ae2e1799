"""`doctor`: what this machine has, and which verbs that allows."""

from __future__ import annotations

import importlib
import os
import platform
import shutil
import subprocess
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

import msgspec

from pointrend_deploy.engine.flavour import RTX_CAPABILITIES, check_version, installed
from pointrend_deploy.engine.plugin_library import find_library, note_on
from pointrend_deploy.errors import DeployError
from pointrend_deploy.version import __version__

PACKAGES = {
    "numpy": "numpy",
    "pillow": "PIL",
    "onnxruntime": "onnxruntime",
    "torch": "torch",
    "onnx": "onnx",
    "onnxscript": "onnxscript",
    "onnx-graphsurgeon": "onnx_graphsurgeon",
    "polygraphy": "polygraphy",
    "safetensors": "safetensors",
    "jinja2": "jinja2",
    "tensorrt": "tensorrt",
    "tensorrt-rtx": "tensorrt_rtx",
}
"""What may be installed: the name users say, and the module it gives."""

DISTRIBUTIONS = {
    "onnxruntime": ("onnxruntime", "onnxruntime-gpu"),
    "tensorrt-rtx": ("tensorrt-rtx-cu13", "tensorrt-rtx-cu12"),
}

NEEDS: dict[str, tuple[str, ...]] = {
    "run --runner onnx": ("numpy", "pillow", "onnxruntime"),
    "run --runner torch": ("numpy", "pillow", "torch", "safetensors"),
    "export": (
        "torch",
        "onnx",
        "onnxscript",
        "onnx-graphsurgeon",
        "polygraphy",
        "safetensors",
        "onnxruntime",
        "jinja2",
    ),
    "compare": ("torch", "safetensors", "onnxruntime", "polygraphy", "jinja2"),
    "report": ("jinja2",),
    "build": ("onnx",),
}
"""Packages each verb imports; `build` needs a builder besides."""


class Ability(msgspec.Struct, frozen=True):
    """A verb, whether this machine can do it, and what is missing for it."""

    verb: str
    able: bool
    missing: tuple[str, ...]


class Findings(msgspec.Struct, frozen=True):
    """The findings of `doctor`.

    Attributes:
        machine: name -> value, such as python, system, cores, memory_gib, gpu, jetson.
        packages: version by name; None where it is not installed; "?" where it does not say;
            "broken: ..." where it is installed and cannot be imported.
        abilities: one a verb.
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
        for ability in self.abilities:
            state = "yes" if ability.able else "no: install " + ", ".join(ability.missing)
            rows.append(f"  {ability.verb:18} {state}")
        return "\n".join(rows)


def examine() -> Findings:
    """Examine the machine. Changes nothing and uses no network."""
    packages = {name: _installed(name, module) for name, module in PACKAGES.items()}
    abilities = []
    for verb, needed in NEEDS.items():
        missing = tuple(name for name in needed if not _usable(packages[name]))
        if verb == "build" and not installed():
            missing += ("tensorrt or tensorrt-rtx-cu13",)
        abilities.append(Ability(verb, not missing, missing))
    return Findings(_machine(), packages, tuple(abilities), _builders(), _plugins())


def _builders() -> tuple[str, ...]:
    lines = []
    for flavour in installed():
        try:
            check_version(flavour)
            where = "the GPU of this machine"
            if flavour.module == "tensorrt_rtx":
                where += f", or rtx:{','.join(map(str, RTX_CAPABILITIES))} without one"
            lines.append(f"{flavour.title} {flavour.version}, builds for {where}")
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


def _usable(found: str | None) -> bool:
    return found is not None and not found.startswith("broken")


def _installed(name: str, module: str) -> str | None:
    if find_spec(module) is None:
        return None
    if module not in ("torch", "tensorrt"):  # seconds to import; their metadata suffices
        try:
            importlib.import_module(module)
        except Exception as error:
            return f"broken: {error}".splitlines()[0]
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
    query = "--query-gpu=name,compute_cap,driver_version,memory.total"
    return _first_line("nvidia-smi", query, "--format=csv,noheader") or "none seen"


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
