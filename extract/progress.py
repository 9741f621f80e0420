"""Progress: a bar on a terminal, plain lines in a log."""

import sys
import time
from types import TracebackType

LINE_SECONDS = 15.0  # between two lines of a log


class Progress:
    """Counts things done, for a person to see, on stderr.

    Args:
        label: what is counted, e.g. "breastmnist".
        total: how many; None if unknown.
        unit: "images" or "MB".
        done: how many were there before.
    """

    def __init__(self, label: str, total: int | None, unit: str = "images", done: int = 0) -> None:
        self.label, self.total, self.unit = label, total, unit
        self.done = self.first = done
        self.started = self.printed = time.monotonic()
        self._printed_any = False
        self._bar = None

    def __enter__(self) -> "Progress":
        if sys.stderr and sys.stderr.isatty():  # None where a daemon closed it
            from rich.console import Console
            from rich.progress import (
                BarColumn,
                MofNCompleteColumn,
                TextColumn,
                TimeRemainingColumn,
            )
            from rich.progress import Progress as Bar

            self._bar = Bar(
                TextColumn("{task.description}"),
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

    def reach(self, done: int, total: int | None = None) -> None:
        """Say how many are done by now."""
        self.done, self.total = done, total or self.total
        text = f"{self.rate:.3g} {self.unit}/s"
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
        left = f", {(self.total - self.done) / self.rate:.0f} s left" if self.total else ""
        print(
            f"  {self.label}: {self.done:_}{of} {self.unit}, {self.rate:.3g} {self.unit}/s{left}",
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

    def __enter__(self) -> "CheckProgress":
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
