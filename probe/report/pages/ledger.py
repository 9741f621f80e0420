"""The page of ``report ledger``: how often each test set was read, and what was named beforehand."""

from cache.errors import RequestError
from probe.report.formats.cells import COUNT, Cell, Column, Page, Table
from probe.report.rows.ledger import History, Ledger, Question, read_question

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
