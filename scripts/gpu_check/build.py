"""Part build: the kernels for this GPU, and the plugins where TensorRT's headers are here."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from pointrend_deploy.engine.targets import first_gpu
from scripts.gpu_check.parts import ROOT, WORK, give

SCRIPT = ROOT / "scripts" / "build_plugins.sh"


def build(capability: int, work: Path) -> dict[str, Any]:
    """Build for one compute capability; ``plugins`` says why where it was left out.

    Raises:
        subprocess.CalledProcessError: the kernels do not compile, or the plugins do not though
            there are headers.
    """
    environment = {
        **os.environ,
        "CUDA_ARCHITECTURES": f"{capability}-real",
        "STRICT": "ON",
        "DOWNLOAD": "OFF",
        "PYTHON": sys.executable,
    }

    def run(*words: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(SCRIPT), *map(str, words)],
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )

    kernels = run("--kernels", work / "kernels").stdout.splitlines()[-1]
    result: dict[str, Any] = {"architecture": f"sm_{capability}", "kernels": kernels}
    try:
        headers = run("--headers").stdout.strip()
    except subprocess.CalledProcessError:
        return {**result, "plugins": "left out: no TensorRT headers on this machine"}
    plugins = run(work / "plugins").stdout.splitlines()[-1]
    return {**result, "plugins": plugins, "headers": headers}


def main() -> int:
    """Build for this machine's GPU."""
    gpu = first_gpu()
    if gpu is None:
        print("error: no GPU", file=sys.stderr)
        return 1
    try:
        result = build(gpu.capability, WORK)
    except subprocess.CalledProcessError as error:
        print(f"error: {' '.join(error.cmd)} ended with {error.returncode}", file=sys.stderr)
        return 1
    give({**result, "summary": [f"plugins: {result['plugins']}"]})
    return 0


if __name__ == "__main__":
    sys.exit(main())
