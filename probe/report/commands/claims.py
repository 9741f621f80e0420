"""``report claims``: which orders of the papers' tables hold."""

import argparse
from collections.abc import Iterator, Sequence

from cache.commands.terminal import Parser
from cache.errors import RequestError
from probe.report.commands.claim import add_papers, claims_table, papers_of
from probe.report.commands.which import add_format, print_page
from probe.report.formats.cells import COUNT, UNIT, Cell, Column, Page, Table
from probe.report.published.numbers import Number, published
from probe.report.statistics.claims import (
    CONTRADICTED,
    HOLDS,
    NEEDS_SCORES,
    UNTOLD,
    Claim,
    best_against_second,
    expected_false,
    summarise,
)

EXAMPLES = """\
examples:
  report claims                                   of every paper
  report claims --paper doerrich2024 --list
  report claims --paper wu2025 --like linear --seeds-as-one
"""
LEAD = (
    "What each column of the papers' tables says by its order: its best is better than its second. "
    "A column is one data set at one size of input, way of resizing and mode of training, so that what "
    "is printed at several sizes counts at each. Images are taken to be independent"
)


def make_parser(prog: str) -> Parser:
    """The flags."""
    parser = Parser(
        prog=prog,
        description="Judge what the papers' tables say by their order: whether the best of each "
        "column is better than the second. By accuracies of one run alone; all else needs the scores.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_papers(parser)
    parser.add_argument("--list", action="store_true", help="each claim, a line each")
    add_format(parser)
    parser.set_defaults(prog=prog)
    return parser


def run(options: argparse.Namespace) -> int:
    """Judge, and print."""
    papers = papers_of(options)
    numbers = [n for n in published() if not papers or n.paper.name in papers]
    chosen = [n for n in numbers if not options.like or options.like in n.mode.split("/")]
    if not chosen:
        modes = ", ".join(sorted({part for n in numbers for part in n.mode.split("/")}))
        raise RequestError(f"no numbers of {options.like!r}: there are those of {modes}")
    print_page(options, make_page(chosen, options.seeds_as_one, options.list))
    return 0


def make_page(numbers: Sequence[Number], seeds_as_one: bool, is_listed: bool) -> Page:
    """The page: counts of each paper and metric, and the claims themselves where they are asked for."""
    groups: dict[tuple[str, str], list[Number]] = {}
    for n in numbers:
        groups.setdefault((n.paper.name, n.metric), []).append(n)
    rows, every = [], []
    for (paper, metric), of in groups.items():
        claims = best_against_second(of, seeds_as_one=seeds_as_one)
        every += claims
        rows.append((Cell(paper), Cell(metric), *_counts(claims)))
    names = ["columns", "hold", "can't be told", "of these never", "contradicted"]
    names += ["need the scores", "expected false"]
    columns = (Column("paper"), Column("metric"), *(Column(n, is_right=True) for n in names))
    never = "never: the lead is too small to hold, however the answers agreed"
    whole = (Cell("all"), Cell(), *_counts(every))
    below = (never, *_sizes(numbers), summarise(every))
    table = Table(columns, (*rows, whole), below=below, feet=1)
    tables = (table, *([claims_table(every, "Each claim")] if is_listed else []))
    return Page(tables, lead=(LEAD,))


def _sizes(numbers: Sequence[Number]) -> Iterator[str]:
    """How many columns are of which size of input, of papers that printed several."""
    for paper in dict.fromkeys(n.paper.name for n in numbers):
        counts: dict[int | None, int] = {}
        for metric in dict.fromkeys(n.metric for n in numbers if n.paper.name == paper):
            for size in sorted({n.size for n in numbers if n.paper.name == paper and n.size}):
                of = [
                    n for n in numbers if (n.paper.name, n.metric, n.size) == (paper, metric, size)
                ]
                counts[size] = counts.get(size, 0) + len(best_against_second(of))
        if len(counts) > 1:
            said = ", ".join(f"{n} at {size} px" for size, n in counts.items())
            yield f"columns of {paper}: {said}"


def _counts(claims: Sequence[Claim]) -> list[Cell]:
    n = {
        v: sum(c.verdict == v for c in claims) for v in (HOLDS, UNTOLD, CONTRADICTED, NEEDS_SCORES)
    }
    beyond = sum(c.is_beyond_answers for c in claims)
    counts = [len(claims), n[HOLDS], n[UNTOLD], beyond, n[CONTRADICTED], n[NEEDS_SCORES]]
    cells = [Cell(value=count, form=COUNT) for count in counts]
    return [*cells, Cell(value=expected_false(claims), form=UNIT)]
