"""Progress: a bar on a terminal, plain lines in a log."""

from __future__ import annotations

import datetime
import sys
import time
from collections.abc import Iterable
from types import TracebackType
from typing import TYPE_CHECKING

from cache.commands.terminal import printable

if TYPE_CHECKING:
    from rich.console import RenderableType

LINE_SECONDS = 15.0  # between two lines of a log


def per_second(rate: float, unit: str) -> str:
    """Three digits or whole ones: "4.17 images/s", "1_870 images/s"."""
    number = f"{rate:.3g}" if rate < 1000 else f"{rate:_.0f}"
    return f"{number} {unit}/s"


def time_left(seconds: float) -> str:
    """ "44 s left", "3:05:00 left"."""
    if seconds < 600:
        return f"{seconds:.0f} s left"
    return f"{datetime.timedelta(seconds=round(seconds))} left"


class Progress:
    """Counts things done, for a person to see, on stderr.

    Args:
        label: what is counted, e.g. "breastmnist".
        total: how many; None if unknown.
        unit: "images" or "MB".
        done: how many were there before.
    """

    def __init__(self, label: str, total: int | None, unit: str = "images", done: int = 0) -> None:
        self.label, self.total, self.unit = printable(label), total, unit
        self.done = self.first = done
        self.note = ""
        self.started = self.printed = time.monotonic()
        self._printed_any = False
        self._bar = None

    def __enter__(self) -> Progress:
        if sys.stderr and sys.stderr.isatty():  # None where a daemon closed it
            from rich.console import Console
            from rich.progress import (
                BarColumn,
                MofNCompleteColumn,
                TextColumn,
                TimeRemainingColumn,
            )
            from rich.progress import Progress as Bar
            from rich.table import Column
            from rich.text import Text

            progress = self

            class NotedBar(Bar):
                """A long note stands below: beside the bar it would push count and time out."""

                def get_renderables(self) -> Iterable[RenderableType]:
                    yield from super().get_renderables()
                    if progress.note:
                        yield Text(f"  {progress.note}", overflow="ellipsis", no_wrap=True)

            self._bar = NotedBar(
                # Wrapped where the terminal is narrow, so that nothing else is cut.
                TextColumn("{task.description}", table_column=Column()),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[rate]}"),
                TimeRemainingColumn(),
                console=Console(stderr=True),
                transient=True,
            )
            self._bar.start()
            self._task = self._bar.add_task(
                self.label, total=self.total, completed=self.done, rate=""
            )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
        elif self._printed_any and error is None:
            self._print()  # a log's last line shouldn't leave the end open

    @property
    def rate(self) -> float:
        """Things a second, since the start."""
        return (self.done - self.first) / max(time.monotonic() - self.started, 1e-9)

    def reach(self, done: int, total: int | None = None, note: str = "") -> None:
        """Say how many are done by now; ``note`` is shown in place of the rate."""
        self.done, self.total, self.note = done, total or self.total, printable(note)
        text = "" if note else per_second(self.rate, self.unit)
        if self._bar is not None:
            self._bar.update(self._task, completed=done, total=self.total, rate=text)
        elif time.monotonic() - self.printed >= LINE_SECONDS:
            self.printed = time.monotonic()
            self._printed_any = True
            self._print()

    def _print(self) -> None:
        if not sys.stderr:
            return
        of = f"/{self.total:_}" if self.total else ""
        rate = self.rate
        left = f", {time_left((self.total - self.done) / rate)}" if self.total and rate else ""
        text = self.note or per_second(self.rate, self.unit)
        print(
            printable(f"  {self.label}: {self.done:_}{of} {self.unit}, {text}{left}"),
            file=sys.stderr,
        )

    def advance(self, n: int) -> None:
        """Say that ``n`` more are done."""
        self.reach(self.done + n)


class CheckProgress:
    """Progress of check passes, one data set after the other; nothing where none is needed."""

    def __init__(self) -> None:
        self._name = ""
        self._progress: Progress | None = None

    def __enter__(self) -> CheckProgress:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._progress is not None:
            self._progress.__exit__(None, None, None)
            self._progress = None

    def report(self, name: str, n: int, n_all: int) -> None:
        """Say that ``n`` more files of a data set were opened, of ``n_all`` it has."""
        if name != self._name or self._progress is None:
            self.__exit__()
            self._name = name
            self._progress = Progress(f"check {name}", n_all, "files").__enter__()
        self._progress.advance(n)
