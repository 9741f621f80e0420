"""``report ls``: which rows are stored, and what is wrong with them."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from cache.commands.names import counted, format_bytes
from cache.commands.terminal import Parser, complain, cut_text, split_words
from cache.places import features_root
from probe.report.commands.which import add_format, add_rows, find_rows, print_page
from probe.report.formats.cells import Cell, Column, Page, Table
from probe.report.pages.listing import MOST_SETTINGS, QUIET, RIGHT, USUAL, WIDTH
from probe.report.rows.beside import short_name
from probe.report.rows.contenders import Contender, differing
from probe.report.rows.fields import find_field, sorted_by, written
from probe.report.rows.stale import Fault, Shelf, read_shelf
from probe.report.rows.stored import StoredRow
from probe.results import BrokenRow, scores_path

WHAT = ("data", "model", "size", "kind")
RECORD = ("written", "id")
HEADINGS = {"data": "data set", "model": "encoder", "names": "tags"}
N_DIGITS = 8  # of an id: enough to name it
EXAMPLES = """\
examples:
  report ls --data breastmnist
  report ls --stale                rows whose features or labels are gone or older, and other faults
  report ls --sort=-written        the newest first
"""


def make_parser(prog: str) -> Parser:
    """The flags."""
    parser = Parser(
        prog=prog,
        description="List stored rows: data set, encoder, kind, what tells rows apart, date, the "
        "start of the id, tags, size on disk, and what is wrong: the feature file is gone, its labels, split or patients "
        "were changed since, scores are missing or damaged, or an earlier row_version wrote it.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_rows(parser)
    parser.add_argument(
        "--stale", action="store_true", help="only rows that something is wrong with"
    )
    parser.add_argument("--sort", metavar="FIELDS", help="order; --sort=-written: falling")
    add_format(parser)
    parser.set_defaults(prog=prog)
    return parser


def run(options: argparse.Namespace) -> int:
    """Print them."""
    rows, problems = find_rows(options)
    for problem in problems:
        complain(options.prog, f"{problem.path}: {problem.why}")
    if order := split_words("--sort", options.sort):
        rows = sorted_by(rows, order, lambda of: of)
    shelf = read_shelf(options.features or features_root())
    faults = [faults_of(shelf, of) for of in rows]
    if options.stale:
        kept = [number for number, found in enumerate(faults) if found]
        rows, faults = [rows[n] for n in kept], [faults[n] for n in kept]
    print_page(options, make_page(rows, faults, shelf, options.stale))
    return 1 if problems else 0


def faults_of(shelf: Shelf, of: StoredRow) -> list[Fault]:
    """What is wrong with a row; where there is no feature file at all, nobody knows what is stale."""
    return [fault for fault in shelf.faults_of(of) if not (shelf.is_empty and fault.is_stale)]


def no_features(shelf: Shelf) -> str:
    """That there are none, in words."""
    return f"no feature file below {shelf.folder}, so nobody knows which rows are stale"


def make_page(
    rows: Sequence[StoredRow],
    faults: Sequence[Sequence[Fault]],
    shelf: Shelf,
    only_faulty: bool = False,
) -> Page:
    """Rows as a table.

    Args:
        rows: R of them.
        faults: (R,) what is wrong with each.
        shelf: that told it.
        only_faulty: whether others were left out.
    """
    n_stale = sum(any(fault.is_stale for fault in found) for found in faults)
    total = format_bytes(sum(map(size_on_disk, rows)))
    nothing = f"nothing {'else ' if shelf.is_empty else ''}is wrong with any row"
    said = f"{counted(len(rows), 'row')}, {total}" if rows else nothing
    said += f"; {n_stale} stale: `report gc` deletes them" if n_stale else ""
    n_lost = sum(bool(of.lacking) for of in rows)
    said += f"; {n_lost} without scores: `report gc --damaged` deletes them" if n_lost else ""
    below = [no_features(shelf)] if shelf.is_empty else []
    below.append(said)
    names = [*WHAT, *telling(rows), *RECORD]
    names += ["names"] if any(of.names for of in rows) else []
    columns = [Column(HEADINGS.get(name, name), is_right=name in RIGHT) for name in names]
    columns.append(Column("on disk", is_right=True))
    if has_faults := any(faults):
        columns.append(Column("what is wrong"))
    cells = []
    for of, found in zip(rows, faults, strict=True):
        line = [Cell(_words(of, name)) for name in names]
        line.append(Cell(format_bytes(size_on_disk(of))))
        line += [Cell("; ".join(fault.why for fault in found))] if has_faults else []
        cells.append(tuple(line))
    if not cells:
        return Page((), lead=tuple(below))
    return Page((Table(tuple(columns), tuple(cells), below=tuple(below)),))


def telling(rows: Sequence[StoredRow]) -> list[str]:
    """Fields in which rows differ whose data set, encoder, size and kind are the same.

    Of rows that no usual field tells apart the first few settings, as paths in the row's JSON.
    """

    alike = _alike(rows, WHAT)
    names = [name for name in USUAL if name not in WHAT and _tells(name, alike)]
    n_usual, alike = len(names), _alike(rows, (*WHAT, *names))
    conditions = [[Contender((of,)).condition() for of in members] for members in alike]
    for name in dict.fromkeys(name for of in conditions for name in differing(of)):
        if "." in name and len(names) < n_usual + MOST_SETTINGS and _tells(name, alike):
            names.append(name)
            alike = _alike(rows, (*WHAT, *names))
    return names


def _tells(name: str, alike: Sequence[Sequence[StoredRow]]) -> bool:
    """Whether a field differs among rows that stand together."""
    said = [{_words(of, name) for of in members} for members in alike]
    quiet = {"", *QUIET.get(name, ())}
    return any(len(words) > 1 for words in said) and not set().union(*said) <= quiet


def _alike(rows: Sequence[StoredRow], names: Sequence[str]) -> list[list[StoredRow]]:
    """Rows of which fields say the same together."""
    found: dict[tuple[str, ...], list[StoredRow]] = {}
    for of in rows:
        found.setdefault(tuple(_words(of, name) for name in names), []).append(of)
    return list(found.values())


def describe_row(of: StoredRow) -> str:
    """A row in a line."""
    e = of.row.encoded
    return f"{of.id[:N_DIGITS]}  {e.dataset}, {short_name(e)}, {of.row.answered.kind}"


def size_on_disk(of: StoredRow) -> int:
    """Bytes of a row's file and of its scores."""
    assert of.path
    try:
        return _bytes(of.path) + _bytes(scores_path(of.path, of.content))
    except BrokenRow:
        return _bytes(of.path)


def _bytes(path: Path) -> int:
    try:
        return path.lstat().st_size
    except OSError:
        return 0


def _words(of: StoredRow, name: str) -> str:
    if name == "id":
        return of.id[:N_DIGITS]
    words = written(find_field(name).of(of))
    return cut_text(words, WIDTH) if "." in name else words
