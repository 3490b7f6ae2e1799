"""Run every kernel once at small sizes, under the sanitizer.

    python -m scripts.gpu_check.small_run LIBRARY [beyond]

With ``beyond`` the sampler writes 256 bytes beyond its output, which the sanitizer has to report.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from scripts.gpu_check.cases import SMALL_CASES
from scripts.gpu_check.launchers import Launchers


def run(library: Path, device: torch.device) -> list[str]:
    """Run the small cases; return a line for each whose outputs are wrong."""
    launchers = Launchers(library)
    wrong = []
    for name, case in SMALL_CASES.items():
        prepared = case(launchers, device)
        prepared.poison(77)
        prepared.launch()
        said = prepared.wrong()
        if said:
            wrong.append(f"{name}: {said}")
    return wrong


def beyond(library: Path) -> None:
    """Have the sampler write 64 floats beyond its output: a planted error."""
    features = torch.zeros((1, 1, 4, 4), device="cuda")
    points = torch.zeros((1, 192, 2), device="cuda")
    out = torch.zeros((1, 1, 128), device="cuda")
    Launchers(library).sample(features, points, out)
    torch.cuda.synchronize()


def main() -> int:
    """Run the command line; return 1 where a case is wrong."""
    library = Path(sys.argv[1])
    if sys.argv[2:] == ["beyond"]:
        beyond(library)
        return 0
    wrong = run(library, torch.device("cuda"))
    torch.cuda.synchronize()
    for line in wrong:
        print(f"error: {line}", file=sys.stderr)
    print("all agree" if not wrong else f"{len(wrong)} cases are wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
