"""``report table``: stored rows as tables, a line each, or one metric of encoders x data sets."""

import argparse
from collections.abc import Sequence

from cache.commands.terminal import Parser, split_words
from cache.errors import RequestError
from cache.places import results_root
from probe.report.commands.which import add_format, add_rows, people_of, print_page, read_rows
from probe.report.formats.cells import Page
from probe.report.pages.classes import CLASS, SIZE, page_of_classes
from probe.report.pages.listing import numbers_named, page_of_rows
from probe.report.rows.contenders import Contender, contenders_of
from probe.report.rows.fields import find_field, metric_named, sorted_by
from probe.report.rows.stored import StoredRow
from probe.report.statistics.bands import PREFIX, parse_by

EXAMPLES = """\
examples:
  report table                                every stored row
  report table --data breastmnist             of one data set
  report table --where "auc>0.9" --sort=-auc --columns model,kind,auc,C
  report table --metric auc                   encoders x data sets, best ones marked
  report table --metric auc --kind knn --across k
  report table --metric acc --by model,kind --across shots --data breastmnist
  report table --metric auc --format latex > table.tex
  report table --like wu2025:results1         in the shape of a paper's table
  report table --published                    beside what papers printed
  report table --by meta:sex --data scans     by subgroup
  report table --by class --data liver        by class
  report table --by size --data liver         masks by the size of the structure
"""
ROWS, METRIC, SUBGROUPS, CLASSES = "rows", "metric", "subgroups", "classes"
LIKE, PUBLISHED = "like", "published"
READS = {  # which flags each page reads; any other is refused
    ROWS: ("columns", "sort"),
    METRIC: ("metric", "by", "across", "sort", "family", "level", "no_tests", "question"),
    SUBGROUPS: ("by", "metric", "sort", "sensitivity"),
    CLASSES: ("by", "metric", "sort"),
    LIKE: ("like", "published"),
    PUBLISHED: ("published", "metric"),
}
CALLED = {
    ROWS: "a table of rows, without --metric",
    METRIC: "a table of one metric: add --metric auc",
    SUBGROUPS: "subgroups: --by meta:COLUMN",
    CLASSES: "numbers by class or by size of structures: --by class, --by size",
    LIKE: "a paper's table: --like PAPER:TABLE",
    PUBLISHED: "printed numbers: --published",
}
SEVERAL = "rows are of several folders of results: nobody knows how many were looked at"
OF_TESTS = ("family", "level", "question")


def make_parser(prog: str) -> Parser:
    """The flags."""
    parser = Parser(
        prog=prog,
        description="Print stored rows, of probe and of finetune. Without --metric each is a line; "
        "what differs among them gets a column. With it, the table is of that metric alone, and "
        "every encoder is marked that no test puts below another (not separated from the best). "
        "Rows that were asked about other samples, or otherwise, are tables of their own. Files "
        "that hold no whole row, and rows whose scores are missing or damaged, are named, and the "
        "status is 1.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_rows(parser)
    shape = parser.add_argument_group("what stands where")
    shape.add_argument("--metric", metavar="NAME", help="one metric: auc, acc, f1_macro...")
    shape.add_argument(
        "--by",
        metavar="FIELDS",
        help="with --metric: what a line is (model); meta:COLUMN: each row by subgroup of its test "
        "samples, as meta:sex, or meta:age:40,60 in bands; class: each class of each row; size, without "
        "--metric: of masks each size of structures",
    )
    shape.add_argument(
        "--sensitivity",
        type=float,
        metavar="S",
        help="of --by meta: that val's threshold reaches, 0 to 1 (the largest Youden's J)",
    )
    shape.add_argument(
        "--across", metavar="FIELD", help="what a column is: data, size, layer, shots, k... (data)"
    )
    shape.add_argument(
        "--columns", metavar="FIELDS", help="fields and metrics to show; +C adds one to the usual"
    )
    shape.add_argument("--sort", metavar="FIELD", help="order of the lines; --sort=-auc: falling")
    tests = parser.add_argument_group("tests of --metric")
    tests.add_argument(
        "--family",
        choices=("column", "table"),
        help="whether the level is that of each column or of the whole table (column)",
    )
    tests.add_argument(
        "--level", type=float, metavar="P", help="chance of any false difference (0.05)"
    )
    tests.add_argument("--no-tests", action="store_true", default=None, help="numbers alone")
    tests.add_argument(
        "--question",
        metavar="CLAIM",
        help='the comparison named in advance: "A > B by auc on DATA"; conditions make it one of '
        'several: "A and kind=linear > B and kind=linear by auc" (acc)',
    )
    papers = parser.add_argument_group("papers")
    papers.add_argument(
        "--like", metavar="PAPER:TABLE", help="in the shape of a paper's table, as wu2025:results1"
    )
    papers.add_argument(
        "--published",
        action="store_true",
        default=None,
        help="beside the numbers that papers printed",
    )
    add_format(parser)
    parser.set_defaults(prog=prog)
    return parser


def run(options: argparse.Namespace) -> int:
    """Read the rows, print those that are asked for."""
    # A paper's table says something without rows of ours.
    may_lack = which_page(options) == LIKE and bool(options.published)
    rows, status = read_rows(options, options.prog, may_lack=may_lack)
    if rows or may_lack:
        print_page(options, make_page(options, rows))
    return status


def which_page(options: argparse.Namespace) -> str:
    """What flags ask for."""
    if options.like is not None:
        return LIKE
    if options.published:
        return PUBLISHED
    if str(options.by or "").startswith(PREFIX):
        return SUBGROUPS
    if options.by == CLASS or (options.by == SIZE and options.metric is None):
        return CLASSES
    return ROWS if options.metric is None else METRIC


def check(options: argparse.Namespace) -> None:
    """Refuse flags that nothing would come of.

    Raises:
        RequestError: there is one.
    """
    page = which_page(options)
    for name in dict.fromkeys(name for names in READS.values() for name in names):
        if getattr(options, name) is None or name in READS[page]:
            continue
        homes = " or ".join(CALLED[of] for of, names in READS.items() if name in names)
        raise RequestError(f"--{name.replace('_', '-')} belongs to {homes}")
    if options.no_tests and (used := [n for n in OF_TESTS if getattr(options, n) is not None]):
        raise RequestError(f"--{used[0]} is of the tests that --no-tests leaves out")
    if options.level is not None and not 0 < options.level < 1:
        raise RequestError(f"--level lies between 0 and 1, such as 0.05; found {options.level:g}")


def make_page(options: argparse.Namespace, rows: list[StoredRow]) -> Page:
    """The page that flags ask for."""
    page = which_page(options)
    if page == SUBGROUPS:
        return _of_groups(options, rows)
    if page == CLASSES:
        metrics = [metric_named(word) for word in split_words("--metric", options.metric)]
        return page_of_classes(_sorted(options, rows), metrics, [options.by])
    if page in (LIKE, PUBLISHED):
        return _of_papers(options, rows)
    if page == METRIC:
        return _of_metric(options, rows)
    words = split_words("--columns", options.columns)
    for word in words:
        _check_column(word)
    return page_of_rows(_sorted(options, rows), words)


def _sorted(options: argparse.Namespace, rows: list[StoredRow]) -> list[StoredRow]:
    order = split_words("--sort", options.sort)
    return sorted_by(rows, order, lambda of: of) if order else rows


def _of_papers(options: argparse.Namespace, rows: list[StoredRow]) -> Page:
    from probe.report.pages.papers import page_like, page_of_published

    contenders = contenders_of(rows)
    if options.like is not None:
        return page_like(contenders, options.like, published=bool(options.published))
    metrics = [metric_named(word) for word in split_words("--metric", options.metric)]
    return page_of_published(contenders, metrics)


def _check_column(word: str) -> None:
    name = word.removeprefix("+")
    if numbers_named(name) is None:
        find_field(name)


def _of_groups(options: argparse.Namespace, rows: list[StoredRow]) -> Page:
    from probe.report.pages.subgroups import page_of_subgroups

    metrics = [metric_named(word) for word in split_words("--metric", options.metric)]
    return page_of_subgroups(
        *(_sorted(options, rows), parse_by(options.by), people_of(options), metrics),
        sensitivity=options.sensitivity,
    )


def _of_metric(options: argparse.Namespace, rows: list[StoredRow]) -> Page:
    from probe.report.findings.claiming import ACC
    from probe.report.findings.headline import leads, read_record
    from probe.report.findings.parts import A_COLUMN, Shape
    from probe.report.pages.matrix import page_of_metric
    from probe.report.rows.ledger import read_question

    by = split_words("--by", options.by) or ("model",)
    order = split_words("--sort", options.sort)
    if len(order) > 1:
        raise RequestError(f"--sort takes one column here; not {options.sort!r}")
    shape = Shape(
        by=by,
        across="data" if options.across is None else options.across,
        family=options.family or A_COLUMN,
        level=options.level or 0.05,
        is_tested=not options.no_tests,
        sort="".join(order),
    )
    for name in (*by, shape.across):
        find_field(name)
    metric, people = metric_named(options.metric), people_of(options)
    question = None if options.question is None else read_question(options.question)
    compared = question.metric or ACC if question else metric

    # Rows by file may be of several folders, of which no ledger counts all.
    roots = {of.path.parent.parent for of in rows if of.path and options.files}
    record = None
    if shape.is_tested and len(roots) < 2:
        record = read_record(roots.pop() if roots else options.results or results_root())

    def lead_of(sets: Sequence[Sequence[Contender]]) -> tuple[str, ...]:
        if record is None:
            return (SEVERAL,) if shape.is_tested else ()
        return leads(sets, compared, record, question, people)

    ledger = record.ledger if record else None
    return page_of_metric(contenders_of(rows), metric, shape, people, lead_of, ledger)
