"""Progress on stderr: steps whose length is known, and steps that only take time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Protocol


class Progress(Protocol):
    """What a verb calls to say how far it is."""

    def step(
        self, text: str, total: int | None = None
    ) -> AbstractContextManager[Callable[[], None]]:
        """A step of ``total`` parts (None: unknown); call what it gives once a part is done."""
        ...


class Silent:
    """Says nothing."""

    @contextmanager
    def step(self, text: str, total: int | None = None) -> Iterator[Callable[[], None]]:
        """See :class:`Progress`."""
        yield lambda: None


class Bars:
    """One line a step on stderr: a bar where the length is known, a spinner elsewhere.

    Where stderr is not a terminal each step is one plain line once it is done.
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
    """A bar for work that tells how many of how many are done, once the first telling comes."""
    bars, seen = Bars(), 0
    open_step: Callable[[], None] | None = None
    with ExitStack() as stack:

        def tell(done: int, total: int) -> None:
            nonlocal open_step, seen
            if open_step is None:
                open_step = stack.enter_context(bars.step(text, total))
            for _ in range(done - seen):
                open_step()
            seen = max(seen, done)

        yield tell
