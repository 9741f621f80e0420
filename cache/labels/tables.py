"""Tables of text: CSV files as users have them, read strictly.

Spreadsheets write commas, semicolons or tabs between cells, by country; which one is seen from the
header line. Nothing is guessed beyond that, and nothing is repaired: a row that lacks a cell would
move every label behind it by one column.
"""

import csv
import difflib
import io
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cache.errors import RequestError
from cache.files import no_file, write_whole

SHOWN = 30  # names in a message
DATASET = "dataset"  # the column in which a table of ids says whose they are
DELIMITERS = (",", ";", "\t")  # of equally frequent ones the first
EXCEL = re.compile(r'"?sep=(.)"?', re.IGNORECASE)
QUOTED = re.compile(r'"[^"]*"')
NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?", re.ASCII)


@dataclass(frozen=True)
class Table:
    """A CSV file, column after column. Values are text, stripped; empty where nothing stands."""

    path: Path
    columns: Mapping[str, tuple[str, ...]]  # in the order of the header
    lines: tuple[int, ...]  # where each row begins in the file, as a text editor counts, from 1

    @property
    def n_rows(self) -> int:
        return len(self.lines)


def read_csv(path: Path) -> Table:
    """Read a table: UTF-8, a header line, the same number of cells in every row.

    Cells are separated by comma, semicolon or tab, or as Excel's first line "sep=;" says; quotes are
    those of RFC 4180. Blank lines are passed over, and so are two columns without a name: a last
    one that is empty in every row, and a first one that numbers the rows, as pandas and R write it.

    Args:
        path: the file; a byte order mark at its beginning is fine.

    Raises:
        RequestError: no file, not UTF-8, no header, a column name twice or empty, a row with more
            or fewer cells, no rows; line and column are named.
    """
    rows = _read_rows(path, _read_text(path))
    head = next(rows, None)
    if head is None:
        raise RequestError(f"{path} is empty; a table begins with a line of column names")
    first, names = head
    _check_header(path, first, names)
    columns: list[list[str]] = [[] for _ in names]
    lines = []
    same: dict[str, str] = {}  # a label stands in many rows, and once in memory
    for line, cells in rows:
        if len(cells) != len(names):
            raise RequestError(f"{path}, line {line}: {_wrong_length(cells, names)}")
        lines.append(line)
        for column, cell in zip(columns, cells, strict=True):
            column.append(same.setdefault(cell, cell))
    if not lines:
        raise RequestError(f"{path} has 0 rows; expected one for each image below the header")
    if not names[-1]:  # a comma at every line's end, as in NIH's table of 2017
        if any(columns.pop()):
            raise RequestError(f"{path}, line {first}: column {len(names)} has no name")
        names.pop()
    if not names[0]:
        if not _is_index(columns.pop(0)):
            raise RequestError(f"{path}, line {first}: column 1 has no name; give it one")
        names.pop(0)
    return Table(path, dict(zip(names, map(tuple, columns), strict=True)), tuple(lines))


def write_csv(path: Path, rows: Iterable[Sequence[object]]) -> None:
    """Write a table, the line of column names first; it is there whole, or not at all.

    Raises:
        OSError: it can't be written.
    """
    with write_whole(path) as file:
        text = io.TextIOWrapper(file, encoding="utf-8", newline="")
        csv.writer(text, lineterminator="\n").writerows(rows)
        text.detach()  # flushes, and leaves the file open


def column(table: Table, name: str) -> tuple[str, ...]:
    """One column's values.

    Raises:
        RequestError: there is no such column; near names come first.
    """
    if name not in table.columns:
        raise RequestError(f"no column {name!r} in {table.path}; {near_columns(table, name)}")
    return table.columns[name]


def check_dataset(table: Table, dataset: str) -> None:
    """Refuse a table of another data set's ids: many begin with the same, as train/000000.

    Raises:
        RequestError: it names another one. Without the column ``DATASET``, or where that is empty,
            nobody knows.
    """
    for name, line in zip(table.columns.get(DATASET, ()), table.lines, strict=False):
        if name not in ("", dataset):
            raise RequestError(
                f"{table.path}, line {line}: these are ids of {name}, and {dataset} is asked; name "
                f"another file, or take out the column {DATASET} if they are the same samples"
            )


def near_columns(table: Table, name: str) -> str:
    """ "it has a, b, c; did you mean a?" """
    has = f"it has {list_columns(table)}"
    lower = {known.lower(): known for known in table.columns}
    near = difflib.get_close_matches(name.lower(), lower, n=2)
    return f"{has}; did you mean {' or '.join(lower[n] for n in near)}?" if near else has


def list_columns(table: Table) -> str:
    """The names, as many as a message can hold."""
    names = list(table.columns)
    return ", ".join(names[:SHOWN]) + (" ..." if len(names) > SHOWN else "")


def is_number(text: str) -> bool:
    """Whether a cell is a finite number. Narrower than ``float``: no "nan", no "1_000"."""
    return NUMBER.fullmatch(text) is not None and math.isfinite(float(text))


def _read_text(path: Path) -> str:
    if not path.is_file():
        raise RequestError(f"{no_file(path)}; expected a CSV file")
    content = path.read_bytes()
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = _line_at(error.object, error.start)
        raise RequestError(
            f"{path}, line {line}: not UTF-8 (byte {error.object[error.start]:#04x}); save the "
            "table as UTF-8"
        ) from error
    if "\0" in text:
        line = _line_at(content, content.index(0))
        raise RequestError(f"{path}, line {line}: a NUL byte; that is no text, save the table anew")
    return text


def _line_at(content: bytes, position: int) -> int:
    return len(content[: position + 1].splitlines())


def _read_rows(path: Path, text: str) -> Iterator[tuple[int, list[str]]]:
    """Each row's first line and its cells, stripped; blank lines are left out."""
    first = next((line for line in io.StringIO(text, newline=None) if line.strip()), "")
    said = EXCEL.fullmatch(first.strip("\n"))
    delimiter = said[1] if said else _delimiter(first)
    # newline="": the reader must see line ends inside quotes as they are.
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    line = 1
    try:
        for cells in reader:
            stripped = [cell.strip() for cell in cells]
            if len(stripped) > 1 or any(stripped):
                if said is None:
                    yield line, stripped
                said = None  # its own line is no row
            line = reader.line_num + 1
    except csv.Error as error:
        raise RequestError(f"{path}, line {line}: {error}; is a quote left open?") from error


def _delimiter(header: str) -> str:
    bare = QUOTED.sub("", header)
    return max(DELIMITERS, key=bare.count)


def _is_index(cells: Sequence[str]) -> bool:
    """Whether a column only numbers the rows."""
    return all(map(is_number, cells)) and len(set(cells)) == len(cells)


def _check_header(path: Path, line: int, names: list[str]) -> None:
    where = f"{path}, line {line}"
    if all(map(is_number, names)) or not any(names):
        raise RequestError(
            f"{where}: no header (found {', '.join(names[:3])}); a table begins with a line of "
            "column names"
        )
    if "" in names[1:-1]:
        raise RequestError(f"{where}: column {names.index('', 1) + 1} has no name; give it one")
    twice = next((name for name, n in Counter(filter(None, names)).items() if n > 1), None)
    if twice is not None:
        raise RequestError(f"{where}: two columns are named {twice!r}; rename one")


def _wrong_length(cells: list[str], names: list[str]) -> str:
    found = f"expected {len(names)} cells as in the header, found {len(cells)}"
    if len(cells) < len(names):
        return f"{found}: none in column {names[len(cells)]!r}"
    extra = f"{cells[len(names)]!r} stands behind column {names[-1]!r}"
    return f"{found}: {extra}; does a cell need quotes?"
