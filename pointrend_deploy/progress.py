"""Progress on stderr: steps of a known number of parts, and steps of unknown length."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Protocol


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


class Bars:
    """One line on stderr for each step: a bar where the length is known, a spinner otherwise.

    Where stderr is not a terminal, each step is one plain line when it ends.
    """

    def __init__(self) -> None:
        from rich.console import Console

        self._console = Console(stderr=True)

    @contextmanager
    def step(self, text: str, total: int | None = None) -> Iterator[Callable[[], None]]:
        """See :class:`Progress`."""
        import time

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
