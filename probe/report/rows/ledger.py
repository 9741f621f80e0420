"""How often each test set was read, and by how many questions: what "best of K looked at" counts.

Two sources are joined: the ledger, which knows of rows that are gone, and the rows that are there,
for those of an earlier medprobe have no line.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from probe.ledger import Named, Reading, add_line, read_lines, utc
from probe.report.rows.fields import metric_named
from probe.report.rows.stored import StoredRow, read_stored, stored_files
from probe.report.statistics.claims import Asked, read_claim
from probe.results import reading_of


@dataclass(frozen=True)
class History:
    """Every reading of one test set that is known of, at least one."""

    readings: tuple[Reading, ...]  # by time
    stored: frozenset[str]  # ids of all rows that are there

    @property
    def dataset(self) -> str:
        return self.readings[0].dataset

    @property
    def test_set(self) -> str:
        return self.readings[0].test_set

    @cached_property
    def rows(self) -> frozenset[str]:
        """Ids of the rows that read it."""
        return frozenset(of.row for of in self.readings)

    @property
    def n_stored(self) -> int:
        """Rows that are there."""
        return len(self.rows & self.stored)

    @property
    def n_gone(self) -> int:
        """Rows that aren't."""
        return len(self.rows - self.stored)

    @property
    def n_replaced(self) -> int:
        """Readings whose row was replaced by another of the same id."""
        return len(self.readings) - len(self.rows)

    @cached_property
    def n_questions(self) -> int:
        """Different questions; folds of one rule, and seeds of a training, are of one."""
        return len({of.question for of in self.readings})

    @property
    def models(self) -> tuple[str, ...]:
        return tuple(sorted({of.model for of in self.readings}))

    @property
    def kinds(self) -> tuple[str, ...]:
        return tuple(sorted({of.kind for of in self.readings}))


@dataclass(frozen=True)
class Question:
    """A question that was named before its answer was looked at."""

    text: str
    time: str  # UTC
    read_before: Mapping[str, int]  # data set -> how often its test sets had been read until then


@dataclass(frozen=True)
class Ledger:
    """The ledger of a folder of results, and its rows."""

    histories: tuple[History, ...]  # by data set, the most read test set first
    questions: tuple[Question, ...]  # by time

    def looked_at(self, test_set: str) -> int:
        """How many different questions were asked of a test set: K of "best of K looked at".

        Args:
            test_set: a ``Row.test_set``, of a contender that of any of its rows.
        """
        return sum(of.n_questions for of in self.histories if of.test_set == test_set)


def read_ledger(root: Path, rows: Iterable[StoredRow] | None = None) -> Ledger:
    """The ledger of a folder of results.

    Args:
        root: the folder.
        rows: all rows below it, where they have been read already.

    Raises:
        OSError: it is there and can't be read.
    """
    lines = read_lines(root)
    if rows is None:
        rows, _ = read_stored(root, stored_files(root))
    known = {line.row for line in lines if isinstance(line, Reading)}
    tested = [of for of in rows if of.row.measured.test]
    stored = frozenset(of.id for of in tested)
    # Rows of earlier versions, whose place among the lines their time says.
    earlier = [reading_of(of.row, utc(of.written)) for of in tested if of.id not in known]
    readings = [*earlier, *(line for line in lines if isinstance(line, Reading))]
    return Ledger(_histories(readings, stored), tuple(_questions(lines, earlier)))


def read_question(text: str) -> Asked:
    """A question, "A > B by auc on DATA", its metric by its name in rows.

    Raises:
        RequestError: it isn't of that form, or there is no such metric.
    """
    asked = read_claim(text)
    return replace(asked, metric=metric_named(asked.metric)) if asked.metric else asked


def record_question(root: Path, question: str) -> None:
    """Write into the ledger that a question was named; once more says no more.

    Raises:
        OSError: the ledger can't be read or written.
    """
    root.mkdir(parents=True, exist_ok=True)
    if all(line.named != question for line in read_lines(root) if isinstance(line, Named)):
        add_line(root, Named(utc(), question))


def keep_readings(rows: Iterable[StoredRow]) -> None:
    """Write into the ledger what it doesn't know of rows that are about to be deleted.

    Rows of an earlier medprobe, and those that were copied here, have no line.

    Args:
        rows: that are stored.

    Raises:
        OSError: the ledger can't be read or written.
    """
    of_folder: dict[Path, list[StoredRow]] = defaultdict(list)
    for of in rows:
        if of.row.measured.test:
            assert of.path
            of_folder[of.path.absolute().parent.parent].append(of)
    for root, tested in of_folder.items():
        known = {line.row for line in read_lines(root) if isinstance(line, Reading)}
        for of in tested:
            if of.id not in known:
                add_line(root, reading_of(of.row, utc(of.written)))


def _histories(readings: Sequence[Reading], stored: frozenset[str]) -> tuple[History, ...]:
    found: dict[str, list[Reading]] = defaultdict(list)
    for of in sorted(readings, key=lambda of: of.time):
        found[of.test_set].append(of)
    histories = [History(tuple(each), stored) for each in found.values()]
    return tuple(sorted(histories, key=lambda of: (of.dataset, -len(of.readings), of.test_set)))


def _questions(lines: Sequence[Reading | Named], earlier: Sequence[Reading]) -> Iterator[Question]:
    read: Counter[str] = Counter()
    for line in lines:
        if isinstance(line, Reading):
            read[line.dataset] += 1
        else:
            older = Counter(of.dataset for of in earlier if of.time <= line.time)
            yield Question(line.named, line.time, dict(sorted((read + older).items())))
