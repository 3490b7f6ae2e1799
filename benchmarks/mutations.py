"""Damage files of every kind that the program reads, ten thousand times, and read them.

    python benchmarks/mutations.py [--count 10000] [--first 0] [--kind NAME] [--workers 2]

Each file is read in a process of its own pool. A DeployError is a good end, and so is an answer.
What is counted as a fault: any other exception, a process that dies, a file that takes more than
10 s, and a file or folder that appears outside the folder of that read. The same --first and
--count give the same damage. Faults are printed with kind and seed; the exit code is 1 if there is
one. The suite reads a few of the same (tests/test_mutations.py).
"""

from __future__ import annotations

import argparse
import multiprocessing as mp
import os
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Final

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.fixtures.mutations import Kind, kinds, read_damaged

LIMIT_S: Final = 10.0


def work(pipe: Connection, root: str) -> None:
    """Read damaged files that are named through a pipe, and tell how each ended."""
    folder = Path(root)
    (folder / "sound").mkdir()
    known = {kind.name: kind for kind in kinds(folder / "sound")}
    (folder / "cwd").mkdir()
    os.chdir(folder / "cwd")
    pipe.send("ready")
    while (task := pipe.recv()) is not None:
        name, seed = task
        place = folder / "reads" / f"{name}-{seed}"
        place.mkdir(parents=True)
        before = _outside(folder)
        try:
            end = read_damaged(known[name], seed, place)
        except Exception:
            end = f"FAULT {traceback.format_exc(limit=-4)}"
        if _outside(folder) != before:
            end = f"FAULT wrote outside its folder: {sorted(_outside(folder) - before)}"
        pipe.send(end)


def _outside(folder: Path) -> set[str]:
    return {
        str(path) for part in (folder / "sound", folder / "cwd") for path in part.rglob("*")
    } | {path.name for path in folder.iterdir()} - {"reads"}


class Worker:
    """A process that reads; another one takes its place if it dies or hangs."""

    def __init__(self) -> None:
        self.task: tuple[str, int] | None = None
        self.begun = 0.0
        self._start()

    def _start(self) -> None:
        self._folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        context = mp.get_context("spawn")
        self.pipe, other = context.Pipe()
        self.process = context.Process(target=work, args=(other, self._folder.name), daemon=True)
        self.process.start()
        other.close()
        self.pipe.recv()

    def close(self) -> None:
        """End the process."""
        self.pipe.send(None)
        self.process.join()
        self._folder.cleanup()

    def give(self, task: tuple[str, int]) -> None:
        """Begin to read one file."""
        self.task, self.begun = task, time.monotonic()
        self.pipe.send(task)

    def ended(self) -> str:
        """Tell how the read ended; empty while it goes on."""
        try:
            if self.pipe.poll(0.05):
                return str(self.pipe.recv())
        except (EOFError, ConnectionError):
            self.process.join()
            code = self.process.exitcode
            self._start()
            return f"FAULT the process died ({code})"
        if time.monotonic() - self.begun > LIMIT_S:
            self.process.kill()
            self.process.join()
            self._start()
            return f"FAULT more than {LIMIT_S:g} s"
        return ""


def tasks(known: Sequence[Kind], first: int, count: int) -> list[tuple[str, int]]:
    """List what is read: every kind as often as its weight says."""
    names = [kind.name for kind in known for _ in range(kind.weight)]
    return [(names[i % len(names)], i) for i in range(first, first + count)]


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return 1 if there was a fault."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--kind", help="only files of this name")
    parser.add_argument("--workers", type=int, default=2)
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        known = [k for k in kinds(Path(folder)) if given.kind in (None, k.name)]
    todo = tasks(known, given.first, given.count)[::-1]
    workers = [Worker() for _ in range(given.workers)]
    found: Counter[tuple[str, str]] = Counter()
    faults = 0
    while todo or any(worker.task for worker in workers):
        for worker in workers:
            if worker.task is None and todo:
                worker.give(todo.pop())
            elif worker.task is not None and (end := worker.ended()):
                kind, seed = worker.task
                worker.task = None
                found[kind, end.split()[0]] += 1
                if end.startswith("FAULT"):
                    faults += 1
                    print(f"{kind}, seed {seed}: {end}", flush=True)
    for worker in workers:
        worker.close()
    for name in dict.fromkeys(kind.name for kind in known):
        counts = {end: found[name, end] for end in ("read", "refused", "FAULT")}
        print(f"{name:44}{counts['read']:6} read {counts['refused']:6} refused", end="")
        print(f" {counts['FAULT']:4} faults" if counts["FAULT"] else "")
    print(f"{sum(found.values())} files, {faults} faults")
    return 1 if faults else 0


if __name__ == "__main__":
    raise SystemExit(main())
