"""Progress on stderr: steps of a known number of parts, and steps of unknown length."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Final, Protocol

SILENCE: Final = 30.0
"""Seconds after which a step says that it still runs, where stderr is not a terminal."""


class Progress(Protocol):
    """The calls by which a verb reports how far it is."""

    def step(
        self, text: str, total: int | None = None
    ) -> AbstractContextManager[Callable[[], None]]:
        """Begin a step of ``total`` parts (None: unknown); call the result after each part."""
        ...


class Silent:
    """Progress that prints nothing."""

    @contextmanager
    def step(self, text: str, total: int | None = None) -> Iterator[Callable[[], None]]:
        """See :class:`Progress`."""
        yield lambda: None


class Numbered:
    """Progress through a known number of steps: ``2/7 tracing the graph``.

    Args:
        progress: shows the steps.
        steps: how many there will be.
    """

    def __init__(self, progress: Progress, steps: int) -> None:
        self._progress, self._steps, self._begun = progress, steps, 0

    def step(
        self, text: str, total: int | None = None
    ) -> AbstractContextManager[Callable[[], None]]:
        """See :class:`Progress`."""
        self._begun += 1
        return self._progress.step(f"{self._begun}/{self._steps} {text}", total)


class Bars:
    """One line on stderr for each step: a bar where the length is known, a spinner otherwise.

    Where stderr is not a terminal, each step is one plain line when it ends. A step that takes
    long says every half minute that it still runs.

    Args:
        silence: seconds between those lines.
    """

    def __init__(self, silence: float = SILENCE) -> None:
        from rich.console import Console

        self._console = Console(stderr=True)
        self._silence = silence

    @contextmanager
    def step(self, text: str, total: int | None = None) -> Iterator[Callable[[], None]]:
        """See :class:`Progress`."""
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            SpinnerColumn,
            TextColumn,
            TimeElapsedColumn,
        )
        from rich.progress import Progress as RichProgress

        if not self._console.is_terminal:
            start = time.perf_counter()
            with self._still_running(text, start):
                yield lambda: None
            self._console.print(f"{text}  {time.perf_counter() - start:.1f} s", highlight=False)
            return
        length = [SpinnerColumn()] if total is None else [BarColumn(24), MofNCompleteColumn()]
        columns = (TextColumn("{task.description:32}"), *length, TimeElapsedColumn())
        with RichProgress(*columns, console=self._console) as progress:
            task = progress.add_task(text, total=total)
            yield lambda: progress.advance(task)
            if total is None:
                progress.update(task, total=1, completed=1)

    @contextmanager
    def _still_running(self, text: str, start: float) -> Iterator[None]:
        """Print a line from time to time until the step ends."""
        ended = threading.Event()

        def report() -> None:
            while not ended.wait(self._silence):
                so_far = time.perf_counter() - start
                self._console.print(f"{text}  {so_far:.0f} s so far", highlight=False)

        thread = threading.Thread(target=report, daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()


@contextmanager
def progress_bar(text: str) -> Iterator[Callable[[int, int], None]]:
    """Give a function to call with the parts done and the total; its first call shows a bar."""
    bars, seen = Bars(), 0
    open_step: Callable[[], None] | None = None
    with ExitStack() as stack:

        def report(done: int, total: int) -> None:
            nonlocal open_step, seen
            if open_step is None:
                open_step = stack.enter_context(bars.step(text, total))
            for _ in range(done - seen):
                open_step()
            seen = max(seen, done)

        yield report
