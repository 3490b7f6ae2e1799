"""Whether an engine may be loaded here, found out before it is: an engine is native code.

TensorRT itself refuses some of what is refused here, but only while it reads the file.
"""

from __future__ import annotations

import platform
from dataclasses import dataclass
from pathlib import Path

from pointrend_deploy.build_records import EngineRecord
from pointrend_deploy.bundle import Bundle, sha256_of
from pointrend_deploy.engine.flavour import Module
from pointrend_deploy.errors import DeployError

_BUILD = "build it here: pointrend-deploy build BUNDLE --target this"


@dataclass(frozen=True)
class Host:
    """What is about to load an engine.

    Attributes:
        builder: ``tensorrt`` or ``tensorrt_rtx``.
        version: its ``__version__``.
        capability: compute capability of the GPU, 87 for 8.7; None without one.
        plugin_sha256: of the plugin library that is loaded; None without one.
        platform: system and processor, "Linux aarch64".
    """

    builder: Module
    version: str
    capability: int | None
    plugin_sha256: str | None
    platform: str = f"{platform.system()} {platform.machine()}"


def check_engine(bundle: Bundle, name: str, host: Host) -> tuple[Path, ...]:
    """Files of the engines in one folder of a bundle, once nothing speaks against loading them.

    Args:
        bundle: opened.
        name: of the folder under ``engines/``: rtx-sm86-fp32-plugin.
        host: what would load them.

    Returns:
        One path a graph, in the order they run.

    Raises:
        DeployError: not built, built by or for something else, built from a graph or with a
            plugin library that has changed since, or the file itself has changed.
    """
    record = bundle.manifest.engines.get(name)
    if record is None:
        have = ", ".join(bundle.manifest.engines) or "none"
        raise DeployError(f"the bundle {bundle.path} has no engine {name}, but {have}", _BUILD)
    if reason := mismatch(record, host):
        raise DeployError(f"the engine {name} {reason}", _BUILD)
    paths = []
    for engine in record.engines:
        if bundle.manifest.files.get(engine.source) != engine.source_sha256:
            raise DeployError(
                f"the engine {name} was built from another {engine.source} than the bundle's",
                _BUILD,
            )
        path = bundle.file(engine.file)
        if sha256_of(path) != engine.sha256:  # a writer stopped half-way leaves the old one
            raise DeployError(f"{path} is not the engine that was built as {name}", _BUILD)
        paths.append(path)
    return tuple(paths)


def mismatch(record: EngineRecord, host: Host) -> str:
    """Why an engine cannot run under a host, as the end of a sentence; empty where it can."""
    titles = {"tensorrt": "TensorRT", "tensorrt_rtx": "TensorRT-RTX"}
    built, here = (
        f"{titles[builder]} {version}"
        for builder, version in ((record.builder, record.version), (host.builder, host.version))
    )
    if built != here:
        return f"was built by {built}, and this is {here}"
    if record.platform != host.platform:
        return f"was built on {record.platform}, and this is {host.platform}"
    if record.capability != host.capability:
        this = "there is no GPU here" if host.capability is None else f"this one is of {_dot(host)}"
        return f"is for a GPU of compute capability {record.capability / 10:.1f}; {this}"
    if record.plugin_sha256 is not None and record.plugin_sha256 != host.plugin_sha256:
        if host.plugin_sha256 is None:
            return "needs the plugin library, and none is loaded"
        return "was built with another plugin library than the one that is loaded"
    return ""


def _dot(host: Host) -> str:
    return f"{(host.capability or 0) / 10:.1f}"
