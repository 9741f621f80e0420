"""Our numbers in the shape of a paper's table, and beside what papers printed."""

import math
import shlex
import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from probe.report.findings.fits import Fits, say_otherwise, say_several
from probe.report.formats.cells import PERCENT as IN_PERCENT
from probe.report.formats.cells import POINTS, SHARE, SIGNED, Cell, Column, Page, Table
from probe.report.published.names import SHORT_NAMES
from probe.report.published.numbers import PERCENT, STORED, Number, Paper, published
from probe.report.published.tables import PrintedTable, find_table
from probe.report.rows.contenders import Contender
from probe.report.rows.fields import written

LACKING = Cell("-")  # the paper has no number there
TOLD = ("dataset", "model", "mode", "metric", "size")  # of a table, above it where all share them
VALUES = "{}"  # stands in a command for the values of what a paper varied
GAP = (
    "gap: ours less published. It is no test: the published standard deviation is over trainings, "
    "our interval over test images"
)


def page_like(contenders: Sequence[Contender], name: str, published: bool = False) -> Page:
    """Our numbers in the shape of a paper's table.

    Args:
        contenders: of which the rows that fit are taken, see ``probe.report.findings.fits``.
        name: of the table, "wu2025:results1".
        published: whether the paper's own numbers stand below, with their footnotes.

    Raises:
        RequestError: there is no such table.
    """
    grid = Grid.of(find_table(name))
    fits = Fits(contenders)
    found = {number: fits.nearest(number) for number in grid.numbers}
    gaps = [number for number, fitting in found.items() if not fitting]
    ours = grid.table("ours", lambda number: _ours(number, found[number]))
    below = _shared(ours)
    tables = [grid.table("ours", lambda n: _ours(n, found[n], hidden=below), below=below)]
    if published:
        footnotes = Footnotes(grid)
        tables.append(grid.table("published", footnotes.cell, footnotes.of_row, footnotes.below))
    n, several = len(found), sum(len(fitting) > 1 for fitting in found.values())
    lead = f"{n - len(gaps) - several} of {n} cells are ours"
    lead += f"; of {several} more, several rows fit" if several else ""
    paper = grid.numbers[0].paper
    return Page(
        tuple(tables),
        f"{grid.printed.called}: {paper.title}; {grid.printed.place} ({paper.url})",
        (lead, *([_say_sd(paper)] if len(gaps) < n else [])),
        tuple(say_gaps(gaps)),
    )


def page_of_published(contenders: Sequence[Contender], metrics: Sequence[str] = ()) -> Page:
    """Each of our numbers beside those that papers printed: a table for each paper.

    Args:
        contenders: ours; one that fits none stands nowhere.
        metrics: by their names in rows; none named: all that papers have.
    """
    fits = Fits(contenders)
    found: dict[Paper, list[tuple[Number, Contender]]] = {}
    for number in published():
        if not metrics or number.our_metric in metrics:
            for contender in fits.all(number):
                found.setdefault(number.paper, []).append((number, contender))
    tables = [_beside(paper, pairs) for paper, pairs in found.items()]
    fitting = {id(contender) for pairs in found.values() for _, contender in pairs}
    lead = f"{len(fitting)} of our {len(contenders)} answers are in a paper's table"
    return Page(tuple(tables), lead=(lead,), notes=(GAP,) if tables else ())


Key = tuple[object, ...]


@dataclass(frozen=True)
class Grid:
    """A paper's table as rows and columns of its numbers."""

    printed: PrintedTable
    numbers: tuple[Number, ...]  # what the paper quotes behind its own
    rows: Mapping[Key, tuple[Number, ...]]  # in the paper's order
    keys: tuple[Key, ...]  # of its columns: what is over it, and its own

    @classmethod
    def of(cls, printed: PrintedTable) -> "Grid":
        found = published(printed.paper, table=printed.name)
        numbers = tuple(sorted(found, key=lambda number: bool(number.quoting)))
        rows: dict[Key, list[Number]] = {}
        for number in numbers:
            rows.setdefault(_row_key(printed, number), []).append(number)
        return cls(
            printed,
            numbers,
            {key: tuple(rows[key]) for key in _in_order(rows)},
            tuple(_in_order(dict.fromkeys(_column_key(printed, number) for number in numbers))),
        )

    def table(
        self,
        title: str,
        cell: Callable[[Number], Cell],
        notes_of: Callable[[Sequence[Number]], tuple[str, ...]] = lambda numbers: (),
        below: tuple[str, ...] = (),
    ) -> Table:
        """The paper's table of other cells.

        Args:
            title: what tells it from another one on the page.
            cell: of a number.
            notes_of: footnotes of a row.
            below: lines of the whole table.
        """
        lines = []
        for numbers in self.rows.values():
            there = {_column_key(self.printed, number): number for number in numbers}
            names = [Cell(_word(field, numbers[0])) for field in self.printed.rows]
            names[-1] = Cell(names[-1].text, notes=(*_quoted(numbers[0]), *notes_of(numbers)))
            cells = [cell(there[key]) if key in there else LACKING for key in self.keys]
            lines.append((*names, *cells))
        return Table(
            (*(Column(field) for field in self.printed.rows), *self.columns()),
            tuple(lines),
            title,
            self._above(),
            below,
        )

    def columns(self) -> list[Column]:
        """The columns of numbers."""
        firsts: dict[Key, Number] = {}
        for number in self.numbers:
            firsts.setdefault(_column_key(self.printed, number), number)
        over, name = self.printed.over, self.printed.column
        return [
            Column(_word(name, firsts[key]), _word(over, firsts[key]) if over else "", True)
            for key in self.keys
        ]

    def _above(self) -> tuple[tuple[str, str], ...]:
        """What all of the paper's own numbers share, and the unit."""
        own = [number for number in self.numbers if not number.quoting]
        used = {*self.printed.rows, self.printed.over, self.printed.column}
        told = [
            (field, words.pop())
            for field in TOLD
            if field not in used and len(words := {_word(field, n) for n in own}) == 1
        ]
        return (*told, ("in", own[0].paper.units))


class Footnotes:
    """A grid's footnotes, each once: of all numbers, of whole columns, of whole rows, of one number."""

    def __init__(self, grid: Grid) -> None:
        self._grid = grid
        own = [number for number in grid.numbers if not number.quoting]
        self._every = _in_all(number.notes for number in own)
        rows = {n: _in_all(m.notes for m in of) for of in grid.rows.values() for n in of}
        columns: dict[Key, list[Number]] = {}
        for number in own:
            columns.setdefault(_column_key(grid.printed, number), []).append(number)
        self._columns = {
            key: tuple(
                note
                for note in _in_all(number.notes for number in numbers)
                if any(note not in rows[number] for number in numbers)  # else rows say it
            )
            for key, numbers in columns.items()
        }

    @property
    def below(self) -> tuple[str, ...]:
        """Of all, and of columns, which they name."""
        whole: dict[str, list[str]] = {}
        for column, key in zip(self._grid.columns(), self._grid.keys, strict=True):
            for note in self._columns.get(key, ()):
                whole.setdefault(note, []).append(column.whole)
        said = [f"{', '.join(of)}: {n}" for n, of in whole.items() if n not in self._every]
        return (*self._every, *said)

    def of_row(self, numbers: Sequence[Number]) -> tuple[str, ...]:
        return _in_all(self._left(number) for number in numbers)

    def cell(self, number: Number) -> Cell:
        of_row = self.of_row(self._grid.rows[_row_key(self._grid.printed, number)])
        return _printed(number, tuple(n for n in self._left(number) if n not in of_row))

    def _left(self, number: Number) -> tuple[str, ...]:
        """Notes that aren't said of all, or of a column."""
        said = self._columns.get(_column_key(self._grid.printed, number), ())
        return tuple(n for n in number.notes if number.quoting or n not in (*self._every, *said))


def _in_all(notes: Iterable[Sequence[str]]) -> tuple[str, ...]:
    first, *rest = notes
    return tuple(note for note in first if all(note in of for of in rest))


def _row_key(printed: PrintedTable, number: Number) -> Key:
    return (bool(number.quoting), *(getattr(number, field) for field in printed.rows))


def _column_key(printed: PrintedTable, number: Number) -> Key:
    over = getattr(number, printed.over) if printed.over else ""
    return over, getattr(number, printed.column)


def _in_order(keys: Iterable[Key]) -> list[Key]:
    """Keys in the order of their first parts, then of their second ones: each as it came first."""
    there = list(keys)
    places = [
        {part: place for place, part in enumerate(dict.fromkeys(parts))}
        for parts in zip(*there, strict=True)
    ]
    return sorted(there, key=lambda key: [of[part] for of, part in zip(places, key, strict=True)])


def _word(field: str, number: Number) -> str:
    """A field of a number as the paper calls it."""
    if field == "mode":
        return number.our_mode.printed
    if field == "size":
        return f"{number.size} px" if number.size else ""
    return str(getattr(number, field))


def _quoted(number: Number) -> tuple[str, ...]:
    return (f"as {number.quoting} printed it",) if number.quoting else ()


def _scale(paper: Paper) -> float:
    return 100.0 if paper.units == PERCENT else 1.0


def _form(paper: Paper) -> str:
    return IN_PERCENT if paper.units == PERCENT else SHARE


def _printed(number: Number, notes: tuple[str, ...] = ()) -> Cell:
    """A published number, digit by digit."""
    scale = _scale(number.paper)
    sd = None if number.std is None else scale * number.std
    form = _form(number.paper)
    return Cell(number.printed, value=scale * number.value, sd=sd, form=form, notes=notes)


def _ours(number: Number, fitting: Sequence[Contender], hidden: Sequence[str] = ()) -> Cell:
    """What we have in a number's place; of several rows how many, and how to say which."""
    if not fitting:
        return Cell()
    if len(fitting) > 1:
        return Cell(f"{len(fitting)} rows", notes=(say_several(fitting),))
    note = say_otherwise(number, fitting[0])
    notes = (note,) if note and note not in hidden else ()
    return _value(number, fitting[0], notes)


def _value(
    number: Number,
    contender: Contender,
    notes: tuple[str, ...] = (),
    *,
    with_interval: bool = False,
) -> Cell:
    """Our number, in the paper's unit: of several trainings mean and deviation, else one run."""
    scale, form = _scale(number.paper), _form(number.paper)
    each = [of.row.measured.test[number.our_metric or ""] for of in contender.rows]
    values = [scale * found.value for found in each]
    if len(values) > 1:
        sd = math.nan if any(map(math.isnan, values)) else _deviation(number.paper)(values)
        return Cell(value=statistics.fmean(values), sd=sd, form=form, notes=notes)
    if not with_interval:
        return Cell(value=values[0], form=form, notes=notes)
    ends = scale * each[0].low, scale * each[0].high
    return Cell(value=values[0], low=ends[0], high=ends[1], form=form, notes=notes)


def _deviation(paper: Paper) -> Callable[[Sequence[float]], float]:
    return statistics.pstdev if paper.ddof == 0 else statistics.stdev


def _say_sd(paper: Paper) -> str:
    by = {0: "n", 1: "n - 1", None: "n - 1; the paper doesn't say by what"}[paper.ddof]
    return f"±: standard deviation over training seeds, divided by {by}; without it one run"


def _shared(table: Table) -> tuple[str, ...]:
    """Notes that all numbers of a table have."""
    numbers = [cell.notes for cell in table.cells() if cell.is_number]
    return _in_all(numbers) if numbers else ()


def say_gaps(gaps: Sequence[Number], lead: str = "Missing cells are made by:") -> list[str]:
    """The commands that make what is missing, and what none can make."""
    making: dict[str, list[Number]] = {}
    never: dict[str, None] = {}
    for number in gaps:
        if why := _why_never(number):
            never[why] = None
            continue
        command, size, flag = (
            number.our_mode.command,
            _size_flags(number),
            number.our_mode.varied[0],
        )
        varied = f" {flag}{VALUES}" if flag else ""
        if command.startswith("probe"):
            making.setdefault(f"extract{_preparing(number)}{size}", []).append(number)
            is_stored = number.paper.size_of == STORED and number.size
            which = f" --where source_size={number.size}" if is_stored else ""
            making.setdefault(command + which + varied, []).append(number)
        else:
            making.setdefault(command + size + varied, []).append(number)
    ordered = sorted(making, key=lambda command: not command.startswith("extract"))
    said = [words for command in ordered for words in _commands(command, making[command])]
    if said:
        said.insert(0, lead)
    if never:
        said.append(f"No command makes those of {'; '.join(never)}.")
    return said


def _why_never(number: Number) -> str:
    if not number.our_mode.ways:
        return f"{number.our_mode.printed} (no probe of ours)"
    if number.our_dataset is None:
        return f"{number.dataset} (no such data set)"
    if number.encoder is None:
        return f"{number.model} (no such encoder)"
    return "" if number.our_metric else f"{number.metric} (no such metric)"


def _preparing(number: Number) -> str:
    return "" if number.quoting else f" --protocol {number.paper.name}"


def _size_flags(number: Number) -> str:
    """Flags that say of which size images are: 224 pixels are what protocols mean."""
    if number.size in (None, 224):
        return ""
    if number.paper.size_of != STORED:
        return f" --size {number.size}"
    resize = " --resize pad-after-norm" if _pads_by_flag(number) else ""
    return f" --source-size {number.size}{resize}"


def _pads_by_flag(number: Number) -> bool:
    """wu2025's protocol enlarges; its code that pads isn't released."""
    return number.paper.name == "wu2025" and number.resize == "pad"


def _commands(start: str, numbers: Sequence[Number]) -> Iterator[str]:
    """One for encoders that lack the same of what a paper varied: blocks aren't stages."""
    lacking: dict[str, dict[str, None]] = {}
    for n in numbers:
        lacking.setdefault(n.encoder or "", {})[n.our_mode.varied[1]] = None
    for values in dict.fromkeys(map(tuple, lacking.values())):
        of = [n for n in numbers if tuple(lacking[n.encoder or ""]) == values]
        encoders = dict.fromkeys(SHORT_NAMES[n.encoder] for n in of if n.encoder)
        datasets = dict.fromkeys(n.our_dataset for n in of if n.our_dataset)
        words = ["--model", ",".join(encoders), "--data", ",".join(datasets)]
        yield f"{start.replace(VALUES, ','.join(values))} {shlex.join(words)}"


def _beside(paper: Paper, pairs: Sequence[tuple[Number, Contender]]) -> Table:
    """Our numbers, a paper's, and the gap."""
    ordered = sorted(pairs, key=lambda pair: (pair[1].dataset, pair[1].model))
    words = {
        "data": [contender.dataset for _, contender in ordered],
        "model": [contender.model for _, contender in ordered],
        **{
            name: [written(contender.field(name)) for _, contender in ordered]
            for name in ("kind", "protocol", "pool", "k")
        },
        "mode": [number.our_mode.printed for number, _ in ordered],
        "size": [_word("size", number) for number, _ in ordered],
        "metric": [number.our_metric or "" for number, _ in ordered],
        "table": [_table_of(number) for number, _ in ordered],
    }
    cells: list[list[Cell]] = []
    for number, contender in ordered:
        differs = contender.first.row.answered.protocol.get("differs", ())
        notes = tuple(filter(None, (say_otherwise(number, contender), *differs)))
        ours = _value(number, contender, notes, with_interval=True)
        form = POINTS if paper.units == PERCENT else SIGNED
        assert ours.value is not None
        gap = Cell(value=ours.value - _scale(paper) * number.value, form=form)
        cells.append([ours, _printed(number, (*_quoted(number), *number.notes)), gap])
    shown = [name for name, of in words.items() if name == "model" or len(set(of)) > 1]
    above = [(name, of[0]) for name, of in words.items() if name not in shown and of[0]]
    columns = [Column(name) for name in shown]
    columns += [Column(name, is_right=True) for name in ("ours", "published", "gap")]
    rows = tuple(
        (*(Cell(words[name][i]) for name in shown), *cells[i]) for i in range(len(ordered))
    )
    title = f"{paper.name}: {paper.title} ({paper.url})"
    return Table(tuple(columns), rows, title, (*above, ("in", paper.units)), (_say_sd(paper),))


def _table_of(number: Number) -> str:
    """Its table's short name: the paper's stands above."""
    return find_table(f"{number.paper.name}:{number.table}").called.partition(":")[2]
