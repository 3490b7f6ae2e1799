"""The GPU an engine is built for: the one of this machine, or one that TensorRT-RTX knows.

The GPU of this machine is read from the CUDA driver itself, so neither a package nor nvidia-smi is
needed.
"""

from __future__ import annotations

import ctypes
import re
from dataclasses import dataclass

from pointrend_deploy.engine.flavour import (
    RTX_CAPABILITIES,
    Flavour,
    flavour_of,
    how_to_install,
    installed,
)
from pointrend_deploy.errors import DeployError, UsageError
from pointrend_deploy.packages import on_jetson, pip_install

_MAJOR = 75  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR of cuda.h
_MINOR = 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR


@dataclass(frozen=True)
class Gpu:
    """The first GPU.

    Attributes:
        name: as the driver calls it.
        capability: compute capability as in sm_86: 86 for 8.6, 120 for 12.0.
    """

    name: str
    capability: int


@dataclass(frozen=True)
class Target:
    """A builder and the GPU it builds for.

    Attributes:
        flavour: the builder.
        capability: compute capability, 86 for 8.6.
        gpu: the GPU, where it is the one of this machine.
    """

    flavour: Flavour
    capability: int
    gpu: Gpu | None = None

    def folder(self, precision: str, ops: str) -> str:
        """Name of the engine's folder: rtx-sm86-fp32-plugin."""
        return f"{self.flavour.short}-sm{self.capability}-{precision}-{ops}"


def parse_targets(text: str, installed_only: bool = True) -> tuple[Target, ...]:
    """``this`` or ``rtx:86,89,120`` -> the targets, each of them possible here.

    Args:
        text: as the command line has it.
        installed_only: with False, ``rtx:...`` is taken where TensorRT-RTX is not installed too.

    Raises:
        UsageError: neither of the two forms, or a capability TensorRT-RTX does not build for.
        DeployError: no GPU here for ``this``, or the builder is not installed.
    """
    text = text.strip().lower()
    if text == "this":
        return (_this_machine(),)
    match = re.fullmatch(r"rtx:(\d{2,3}(?:,\d{2,3})*)", text)
    if not match:
        raise UsageError(f"--target {text} is not a target", "use this, or rtx:86,89,120")
    capabilities = [int(part) for part in match[1].split(",")]
    for capability in capabilities:
        if capability not in RTX_CAPABILITIES:
            raise UsageError(
                f"TensorRT-RTX does not build for compute capability {capability}",
                f"it builds for {', '.join(map(str, RTX_CAPABILITIES))}; on a Jetson, build with "
                "--target this on the Jetson",
            )
    flavour = flavour_of("tensorrt_rtx") if installed_only else Flavour("tensorrt_rtx", "?")
    return tuple(Target(flavour, capability) for capability in dict.fromkeys(capabilities))


def _this_machine() -> Target:
    found = installed()
    if not found:
        raise DeployError(
            "neither TensorRT nor TensorRT-RTX is installed", how_to_install("tensorrt")
        )
    gpu = first_gpu()
    if gpu is None:
        raise DeployError(
            "this machine has no NVIDIA GPU that its driver shows",
            "build on the device with --target this, or here for a GPU that need not be here with "
            "--target rtx:86",
        )
    flavour = flavour_of(found[0].module)
    check_gpu(flavour, gpu)
    return Target(flavour, gpu.capability, gpu)


def runs_on(flavour: Flavour, gpu: Gpu) -> bool:
    """Whether engines of a builder run on a GPU.

    TensorRT-RTX builds for any GPU that is here, and its runtime then refuses the engine on those
    that it is not made for (1.7.1 on an H100, of compute capability 9.0). Full TensorRT is assumed
    to run on all.
    """
    return flavour.module != "tensorrt_rtx" or gpu.capability in RTX_CAPABILITIES


def check_gpu(flavour: Flavour, gpu: Gpu) -> None:
    """Check that engines of a builder run on a GPU. Raises DeployError where they do not."""
    if runs_on(flavour, gpu):
        return
    runs = ", ".join(f"{capability / 10:.1f}" for capability in RTX_CAPABILITIES)
    full = how_to_install("tensorrt") if on_jetson() else f"install it: `{pip_install()} tensorrt`"
    raise DeployError(
        f"{flavour.title} {flavour.version} runs no engine on this GPU, {gpu.name} of compute "
        f"capability {gpu.capability / 10:.1f}; it runs them on {runs}",
        f"full TensorRT runs on this GPU, {full}; or build for another GPU, such as with "
        "--target rtx:86",
    )


def first_gpu() -> Gpu | None:
    """The first GPU; None where there is no driver or no GPU."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
    device, major, minor = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    name = ctypes.create_string_buffer(256)
    failed = (
        driver.cuInit(0)
        or driver.cuDeviceGet(ctypes.byref(device), 0)
        or driver.cuDeviceGetName(name, len(name), device)
        or driver.cuDeviceGetAttribute(ctypes.byref(major), _MAJOR, device)
        or driver.cuDeviceGetAttribute(ctypes.byref(minor), _MINOR, device)
    )
    if failed:
        return None
    return Gpu(name.value.decode(errors="replace"), major.value * 10 + minor.value)
