"""``report claim``: whether one model is shown to be better than another."""

import argparse
import math
from collections.abc import Sequence

from cache.commands.terminal import Parser, split_words
from cache.errors import RequestError
from probe.report.commands.which import add_format, add_rows, people_of, print_page, read_rows
from probe.report.findings.claiming import Known, of_pair, printed_claims
from probe.report.formats.cells import COUNT, P_VALUE, SIGNED, Cell, Column, Page, Table
from probe.report.pages.comparison import tell
from probe.report.pages.notes import as_few
from probe.report.published.numbers import PAPERS
from probe.report.rows.sides import pair_up, read_side
from probe.report.rows.stored import StoredRow
from probe.report.statistics.claims import A_MEAN, Asked, Claim, read_claim, summarise

EXAMPLES = """\
examples:
  report claim "dinov2 > vit on breastmnist, dermamnist"    by rows, and by printed numbers
  report claim "dinov2 > vit by auc on breastmnist" --kind linear
  report claim "DINOv2 > CLIP on breastmnist" --paper wu2025 --like linear
  report claim "kind=linear > kind=knn on breastmnist" --model vit
"""
RULES = (
    "P(false) is the chance that A isn't better all the same. A claim holds where it is at most .05, of "
    "printed accuracies however the answers agree; it is contradicted by scores alone, from .95"
)
BY_P = (
    "What isn't accuracy of independent images goes by the one-sided p of the paired test, which is no "
    "chance that the claim is false: it holds at .025, as by the two-sided .05 of `report compare`, and is "
    "contradicted from .975"
)


def make_parser(prog: str) -> Parser:
    """The flags."""
    parser = Parser(
        prog=prog,
        description="Say whether a claim such as 'dinov2 > vit on breastmnist' holds, can't be told, "
        "or is contradicted: by the scores of stored rows that were asked alike, and by the numbers "
        "that papers printed. The metric is acc, where the claim doesn't say 'by auc'.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("claim", metavar="CLAIM", help='"A > B on DATA, DATA"')
    add_rows(parser, files=False)
    add_papers(parser)
    add_format(parser)
    parser.set_defaults(prog=prog)
    return parser


def add_papers(parser: Parser) -> None:
    """Add the flags that say which printed numbers."""
    papers = parser.add_argument_group("printed numbers")
    papers.add_argument(
        "--paper", metavar="NAMES", help=f"of these papers alone ({', '.join(PAPERS)})"
    )
    papers.add_argument(
        "--like",
        metavar="MODE",
        default="",
        help="of this training alone: linear, finetune, knn...",
    )
    papers.add_argument(
        "--seeds-as-one",
        action="store_true",
        help="take means over seeds for one run's accuracy, which they aren't",
    )


def papers_of(options: argparse.Namespace) -> tuple[str, ...]:
    """The papers that flags name.

    Raises:
        RequestError: there are no numbers of one.
    """
    names = split_words("--paper", options.paper)
    for name in names:
        if name not in PAPERS:
            raise RequestError(f"no numbers of {name!r}: there are those of {', '.join(PAPERS)}")
    return names


def run(options: argparse.Namespace) -> int:
    """Judge the claim, and print."""
    asked = read_claim(options.claim)
    papers = papers_of(options)
    rows, status = read_rows(options, options.prog, may_lack=True)
    known, notes = _of_rows(asked, rows, options)
    printed, said = printed_claims(asked, papers, options.like, seeds_as_one=options.seeds_as_one)
    if not known and not printed:
        raise RequestError("; ".join([f"nothing says anything of {asked}", *notes, *said]))
    tables = [_rows_table(known)] if known else []
    tables += [claims_table(printed, "By printed numbers")] if printed else []
    if any(c.why == A_MEAN for c in printed):
        notes.append("--seeds-as-one takes means over seeds for one run's accuracy")
    # What no paper says is no news where rows do.
    notes += said if not known or papers else []
    unique = tuple(dict.fromkeys(notes))
    print_page(
        options,
        Page(tuple(tables), title=str(asked), lead=_rules(known, printed), notes=unique),
    )
    return status


def _rules(known: Sequence[Known], printed: Sequence[Claim]) -> tuple[str, ...]:
    """What the numbers mean that are there."""
    of_p = [not math.isnan(of.claim.p) for of in known]
    rules = [RULES] if printed or not all(of_p) else []
    return (*rules, *([BY_P] if any(of_p) else []))


def _of_rows(
    asked: Asked, rows: Sequence[StoredRow], options: argparse.Namespace
) -> tuple[list[Known], list[str]]:
    """Claims of stored rows, and why there are none on a data set."""
    if asked.datasets:
        rows = [of for of in rows if of.row.encoded.dataset in asked.datasets]
    if not rows:
        return [], ["no stored rows of these data sets"]
    try:
        sides = read_side(asked.better, rows), read_side(asked.other, rows)
    except RequestError as error:
        return [], [f"rows: {error}"]
    people, known, notes = people_of(options), [], []
    found = pair_up(*sides)
    for of in found:
        notes += [f"rows of {of.dataset}: {of.lacking}"] if of.lacking else []
        for pair in of.pairs:
            try:
                known.append(of_pair(pair, asked.metric, people))
            except RequestError as error:
                notes.append(str(error))
    missing = [d for d in asked.datasets if d not in {of.dataset for of in found}]
    notes += [f"{name}: no stored rows" for name in missing]
    return known, as_few(notes)


def _rows_table(known: Sequence[Known]) -> Table:
    told = tell([of.pair for of in known])
    has_chance = any(math.isnan(of.claim.p) for of in known)
    has_p = any(not math.isnan(of.claim.p) for of in known)
    rows = []
    for of in known:
        c = of.claim
        notes = tuple(filter(None, [of.how, c.why]))
        row = [Cell(c.dataset), *([Cell(told.words[id(of.pair)])] if told.is_shown else [])]
        row.append(Cell(c.verdict, notes=notes))
        row += [Cell(value=c.best, form=P_VALUE)] if has_chance else []
        row += [Cell(value=c.p, form=P_VALUE)] if has_p else []
        row += [Cell(value=c.lead, form=SIGNED), _count(c.n)]
        rows.append(tuple(row))
    columns = [Column("data"), *([Column("asked")] if told.is_shown else []), Column("A > B")]
    columns += [Column("P(false)", is_right=True)] if has_chance else []
    columns += [Column("one-sided p", is_right=True)] if has_p else []
    columns += [Column(f"lead in {known[0].metric}", is_right=True)]
    columns.append(Column("samples", is_right=True))
    claims = [of.claim for of in known]
    title = f"By the scores of stored rows ({told.same})"
    # What else is said of claims is said of printed ones.
    below = (summarise(claims).partition(";")[0],)
    return Table(tuple(columns), tuple(rows), title=title, below=below)


def _count(n: int | None) -> Cell:
    return Cell(value=math.nan if n is None else n, form=COUNT)


def claims_table(claims: Sequence[Claim], title: str) -> Table:
    """Claims of printed numbers, a line each, with how many hold."""
    rows = []
    for c in claims:
        notes = (c.why,) if c.why else ()
        row = [Cell(c.setting), Cell(c.dataset), Cell(c.a), Cell(c.b)]
        row += [Cell(c.verdict, notes=notes), Cell(value=c.best, form=P_VALUE)]
        row += [Cell(value=c.worst, form=P_VALUE), Cell(value=c.lead, form=SIGNED)]
        row.append(_count(c.n))
        rows.append(tuple(row))
    names = ["at best", "at worst"]
    columns = [Column(n) for n in ("setting", "data", "A", "B", "A > B")]
    columns += [Column(n, over="P(false)", is_right=True) for n in names]
    columns += [Column("lead", is_right=True), Column("images", is_right=True)]
    below = (summarise(claims),) if claims else ()
    return Table(tuple(columns), tuple(rows), title=title, below=below)
