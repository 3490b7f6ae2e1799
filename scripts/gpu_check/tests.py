"""Part tests: run the tests marked ``gpu``. The part fails where none of them ran."""

from __future__ import annotations

import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

from scripts.gpu_check.parts import RESULT, ROOT, give


def counts(report: Path) -> dict[str, Any]:
    """Count the tests that passed, failed and were skipped, from pytest's JUnit file."""
    cases = list(ET.parse(report).getroot().iter("testcase"))
    skipped = [case for case in cases if case.find("skipped") is not None]
    failed = [
        case for case in cases if case.find("failure") is not None or case.find("error") is not None
    ]
    return {
        "passed": len(cases) - len(skipped) - len(failed),
        "skipped": len(skipped),
        "failed": [str(case.get("name")) for case in failed],
        "slowest_s": sorted(
            ((float(case.get("time") or 0), str(case.get("name"))) for case in cases), reverse=True
        )[:5],
    }


def main() -> int:
    """Run the tests and give the counts; return 0 where all passed and none was skipped."""
    report = Path(os.environ.get(RESULT, "build/gpu_tests.json")).with_suffix(".xml")
    report.unlink(missing_ok=True)
    options = ("-q", "-m", "gpu", "-p", "no:cacheprovider", "-p", "no:randomly")
    command = [sys.executable, "-m", "pytest", "tests/gpu", *options, f"--junit-xml={report}"]
    done = subprocess.run(command, cwd=ROOT, check=False)
    if not report.is_file():
        print("error: pytest wrote no report", file=sys.stderr)
        return 1
    found = counts(report)
    summary = f"{found['passed']} passed, {found['skipped']} skipped, {len(found['failed'])} failed"
    give({**found, "summary": [summary, *(f"failed: {name}" for name in found["failed"])]})
    return 0 if done.returncode == 0 and found["passed"] and not found["skipped"] else 1


if __name__ == "__main__":
    sys.exit(main())
