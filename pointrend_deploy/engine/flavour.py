"""TensorRT or TensorRT-RTX: which is installed, and the calls in which they differ.

All other calls are the same on TensorRT 10.3 to 11.x and on TensorRT-RTX. ``trt`` is the imported
module. Calls of full TensorRT were checked against the signatures that its Python bindings of
10.3.0, 10.16.1 and 11.4.0 document, not on a GPU.
"""

from __future__ import annotations

import platform
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, Literal

from pointrend_deploy.errors import DeployError
from pointrend_deploy.packages import install_line, on_jetson, pip_install

Module = Literal["tensorrt", "tensorrt_rtx"]
MODULES: Final[tuple[Module, ...]] = ("tensorrt", "tensorrt_rtx")
OLDEST: Final[dict[Module, tuple[int, int]]] = {"tensorrt": (10, 3), "tensorrt_rtx": (1, 0)}
RTX_CAPABILITIES: Final = (75, 80, 86, 89, 120, 121)
"""What TensorRT-RTX 1.7 builds for and runs on: no Jetson (87, 110), no data-centre GPU past 80."""
_DISTRIBUTIONS: Final[dict[Module, tuple[str, ...]]] = {
    "tensorrt": ("tensorrt", "tensorrt-cu13", "tensorrt-cu12", "tensorrt-cu11"),
    "tensorrt_rtx": ("tensorrt-rtx-cu13", "tensorrt-rtx-cu12", "tensorrt-rtx"),
}
_UNSUPPORTED: Final[dict[Module, tuple[str, ...]]] = {
    "tensorrt": (),
    "tensorrt_rtx": ("NonMaxSuppression", "RoiAlign"),
}


@dataclass(frozen=True)
class Flavour:
    """An installed builder.

    Attributes:
        module: what Python imports.
        version: as its package says, ``?`` where it says nothing.
    """

    module: Module
    version: str

    @property
    def title(self) -> str:
        """Name for people."""
        return "TensorRT" if self.module == "tensorrt" else "TensorRT-RTX"

    @property
    def short(self) -> str:
        """Name in paths."""
        return "trt" if self.module == "tensorrt" else "rtx"

    @property
    def unsupported_ops(self) -> tuple[str, ...]:
        """Standard ONNX ops that it parses, or seems to, and cannot build."""
        return _UNSUPPORTED[self.module]


def installed() -> tuple[Flavour, ...]:
    """Find the installed builders without importing them; full TensorRT first."""
    return tuple(Flavour(name, _version(name)) for name in MODULES if find_spec(name) is not None)


def flavour_of(module: Module) -> Flavour:
    """Find the installed builder of that name.

    Raises:
        DeployError: it is not installed, or too old.
    """
    for flavour in installed():
        if flavour.module == module:
            check_version(flavour)
            return flavour
    title = "TensorRT" if module == "tensorrt" else "TensorRT-RTX"
    raise DeployError(f"{title} is not installed", how_to_install(module))


def how_to_install(module: Module, packages: Sequence[str] = ()) -> str:
    """Return what installs a builder on this machine.

    Args:
        module: of the builder.
        packages: further packages of `build` that are not installed; they are installed with it.
    """
    if module == "tensorrt_rtx" and platform.machine() == "x86_64":
        return install_line("rtx")
    if module == "tensorrt_rtx":
        return (
            f"TensorRT-RTX has no package for {platform.machine()}: build with --target this on "
            "the device, or with --target rtx:86 on an x86-64 machine"
        )
    if not on_jetson():
        with_it = install_line("gpu", packages) if packages else pip_install()
        line = f"with an NVIDIA GPU `{with_it} tensorrt`"
        if platform.machine() == "x86_64":
            line += f"; without one `{install_line('rtx')}`, and build with --target rtx:86"
        return line
    apt = "`sudo apt install python3-libnvinfer`, JetPack's own TensorRT"
    if packages:
        apt = f"`{install_line('jetson', packages)}`, and {apt}"
    if sys.prefix == sys.base_prefix:
        return apt
    return (
        f"{apt}, and this package in a virtual environment that sees it: "
        "`python3 -m venv --system-site-packages .venv`"
    )


def check_version(flavour: Flavour) -> None:
    """Raise DeployError where a builder is older than what the plugins and strong typing need."""
    numbers = re.match(r"(\d+)\.(\d+)", flavour.version)
    oldest = OLDEST[flavour.module]
    if numbers and (int(numbers[1]), int(numbers[2])) < oldest:
        raise DeployError(
            f"{flavour.title} {flavour.version} is too old: {oldest[0]}.{oldest[1]} is the oldest "
            "that builds these graphs",
            "JetPack 6.1 and later have TensorRT 10.3",
        )


def _version(module: Module) -> str:
    for distribution in _DISTRIBUTIONS[module]:
        try:
            return version(distribution)
        except PackageNotFoundError:
            continue
    return "?"


def network_flags(trt: Any) -> int:
    """Flags of a strongly typed network: 10.x needs to be asked, 11 and RTX know nothing else."""
    member = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    return 0 if member is None else 1 << int(member)


def register_standard_plugins(trt: Any, logger: Any) -> None:
    """TensorRT's own plugins, which serve some standard ops, RoiAlign among them."""
    trt.init_libnvinfer_plugins(logger, "")


def configure(trt: Any, config: Any, workspace_mib: int, capability: int | None) -> None:
    """Set up a builder: FP32 that is FP32, a bound on its workspace, the GPU it builds for.

    Args:
        trt: the module.
        config: its IBuilderConfig.
        workspace_mib: bound on a layer's scratch memory.
        capability: 86 for compute capability 8.6; None for the GPU at hand. Only TensorRT-RTX
            builds for one that is not there.

    Raises:
        DeployError: the builder knows no such capability.
    """
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, workspace_mib << 20)
    config.clear_flag(trt.BuilderFlag.TF32)
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    known = getattr(trt, "ComputeCapability", None)
    if known is None:
        if capability is not None:
            raise DeployError(
                f"TensorRT {trt.__version__} builds for the GPU it runs on only",
                "use --target this on that machine, or --target rtx:86 with TensorRT-RTX",
            )
        return
    wanted = "CURRENT" if capability is None else f"SM{capability}"
    member = getattr(known, wanted, None)
    if member is None:
        raise DeployError(f"TensorRT-RTX {trt.__version__} does not build for {wanted}")
    config.num_compute_capabilities = 1
    config.set_compute_capability(member, 0)


def has_timing_cache(trt: Any) -> bool:
    """Whether timings can be kept from one build to the next; in TensorRT-RTX they are no-ops."""
    return not hasattr(trt, "ComputeCapability")


def load_timing_cache(trt: Any, config: Any, data: bytes) -> bool:
    """Give a builder the timings of an earlier build, or none where it refuses them.

    Returns:
        Whether they were taken.
    """
    taken = bool(config.set_timing_cache(config.create_timing_cache(data), False))
    if not taken:
        config.set_timing_cache(config.create_timing_cache(b""), False)
    return taken and bool(data)


def timing_cache(config: Any) -> bytes:
    """Return the timings of a build, to be reused by the next."""
    return bytes(memoryview(config.get_timing_cache().serialize()))


def layers_from_engine(
    trt: Any, logger: Any, engine: bytes, shapes: Mapping[str, tuple[int, ...]]
) -> str:
    """Return the engine inspector's JSON; deserialises the engine, so it needs a GPU.

    Args:
        trt: the module.
        logger: of this process.
        engine: as it was built.
        shapes: of each input with a dynamic dimension; without them the inspector gives no types.

    Raises:
        DeployError: TensorRT does not take back what it just built.
    """
    loaded = trt.Runtime(logger).deserialize_cuda_engine(engine)
    if loaded is None:
        raise DeployError("the engine cannot be deserialised on the machine that built it")
    inspector = loaded.create_engine_inspector()
    if shapes:
        context = loaded.create_execution_context()
        for name, shape in shapes.items():
            context.set_input_shape(name, shape)
        inspector.execution_context = context
    return str(inspector.get_engine_information(trt.LayerInformationFormat.JSON))


def prepare_import(module: Module, folder: Path) -> list[Any]:
    """Load what must be loaded before the module; keep the returned objects alive.

    The parser of TensorRT-RTX opens ``libtensorrt_rtx.so``, and its wheel has
    ``libtensorrt_rtx.so.1`` only; where it is not found the first plugin node ends the process.

    Args:
        module: what will be imported.
        folder: an empty folder for links that outlives the process's use of the module.
    """
    if module != "tensorrt_rtx":
        return []
    spec = find_spec("tensorrt_rtx_libs")
    if spec is None or spec.origin is None:  # libraries of the system, which have both names
        return []
    import ctypes

    for path in sorted(Path(spec.origin).parent.glob("*.so*")):
        for name in {path.name, path.name.split(".so")[0] + ".so"}:
            if not (folder / name).exists():
                (folder / name).symlink_to(path)
    names = ("libtensorrt_rtx.so.1", "libtensorrt_onnxparser_rtx.so.1")
    return [ctypes.CDLL(str(folder / name)) for name in names if (folder / name).exists()]
