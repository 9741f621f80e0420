"""``report ledger``: how often each test set was read."""

import argparse
from pathlib import Path

from cache.commands.terminal import Parser, split_words
from cache.errors import RequestError
from cache.places import results_root
from probe.report.commands.which import add_format, print_page
from probe.report.formats.cells import COUNT, Cell, Column, Page, Table
from probe.report.rows.ledger import History, Ledger, Question, read_ledger, read_question

N_DIGITS = 8  # of a test set's digest
HEADINGS = (
    *("data set", "test set", "target", "split", "readings", "rows", "gone", "replaced"),
    *("questions", "encoders x kinds", "first", "last"),
)
NUMBERS = HEADINGS[4:10]
LEGEND = (
    "A reading is a row that was written and had read test. questions: different ones, whose best "
    "is a best of as many looked at; folds of one rule, and seeds of a training, are of one. "
    "Rows of earlier versions, and copied ones, count until something other than `report` deletes them."
)


def make_parser(prog: str) -> Parser:
    """The flags."""
    parser = Parser(
        prog=prog,
        description="Say how often each test set was read, by rows that are there and rows that "
        "are gone, and which questions were named beforehand. Times are UTC.",
    )
    parser.add_argument("--data", metavar="NAMES", help="data sets, comma separated")
    parser.add_argument(
        "--results", type=Path, metavar="DIR", help="($MEDPROBE_RESULTS or ./results)"
    )
    add_format(parser)
    parser.set_defaults(prog=prog)
    return parser


def run(options: argparse.Namespace) -> int:
    """Print it."""
    root, datasets = options.results or results_root(), split_words("--data", options.data)
    page = make_page(read_ledger(root), datasets)
    if not page.tables:
        raise RequestError(
            f"no row in {root} has read test" + (" of these data sets" * bool(datasets))
        )
    print_page(options, page)
    return 0


def make_page(ledger: Ledger, datasets: tuple[str, ...] = ()) -> Page:
    """A ledger as tables.

    Args:
        ledger: the ledger.
        datasets: which; none: all.
    """
    histories = [of for of in ledger.histories if not datasets or of.dataset in datasets]
    tables = []
    if histories:
        rows = [_row(of) for of in histories]
        # Who lays nothing over stored labels and splits needs no column for it.
        kept = [n for n, name in enumerate(HEADINGS) if any(row[n] != Cell() for row in rows)]
        columns = tuple(Column(HEADINGS[n], is_right=HEADINGS[n] in NUMBERS) for n in kept)
        lines = tuple(tuple(row[n] for n in kept) for row in rows)
        tables.append(Table(columns, lines, below=(LEGEND,)))
    if ledger.questions and (histories or not datasets):
        headings = (Column("question named beforehand"), Column("named"), Column("readings before"))
        rows = tuple(_question_row(of, datasets) for of in ledger.questions)
        tables.append(Table(headings, rows))
    return Page(tuple(tables))


def _row(of: History) -> tuple[Cell, ...]:
    first, last = of.readings[0], of.readings[-1]
    counts = len(of.readings), of.n_stored, of.n_gone, of.n_replaced, of.n_questions
    return (
        *map(Cell, (of.dataset, of.test_set[:N_DIGITS], last.target, last.split)),
        *(Cell(value=float(n), form=COUNT) for n in counts),
        Cell(f"{len(of.models)} x {len(of.kinds)}"),
        *(Cell(each.time[:10]) for each in (first, last)),
    )


def _question_row(of: Question, datasets: tuple[str, ...]) -> tuple[Cell, ...]:
    before = [f"{n} of {d}" for d, n in of.read_before.items() if not datasets or d in datasets]
    try:
        read_question(of.text)
        why = ()
    except RequestError as error:
        why = (f"no headline: {error}",)
    return Cell(of.text, notes=why), Cell(of.time), Cell(", ".join(before) or "none")
