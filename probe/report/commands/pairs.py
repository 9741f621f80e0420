"""``report pairs``: what two encoders know together."""

import argparse

from cache.commands.names import choose_named
from cache.commands.terminal import Parser, complain, split_words
from cache.errors import RequestError
from cache.places import results_root
from probe.report.commands.which import (
    USUAL_METRIC,
    add_format,
    add_rows,
    metric_of,
    people_of,
    print_page,
    read_rows,
)
from probe.report.findings.comparisons import Asking
from probe.report.findings.complement import candidates, study
from probe.report.findings.headline import read_record
from probe.report.pages.notes import as_few
from probe.report.pages.pairs import make_page
from probe.report.rows.beside import part_names
from probe.report.rows.contenders import contenders_of
from probe.report.rows.fields import metrics_of, no_metric
from probe.report.rows.stored import StoredRow

EXAMPLES = """\
examples:
  probe --kind linear --model all+ --pairs --data breastmnist     makes the rows
  report pairs --data breastmnist
  report pairs --data breastmnist --model vit,resnet50 -o pairs.html
  report pairs --where "shots=5" --no-cka
"""
NONE = (
    "no two encoders were asked alike on one data set; `probe --kind linear --model all+ --pairs{}` "
    "asks each alone, side by side, and averages their scores"
)


def make_parser(prog: str) -> Parser:
    """The flags."""
    parser = Parser(
        prog=prog,
        description="Whether two encoders are better together: side by side (`probe --model a+b`), or by "
        "the mean of their scores, each compared with both alone on the same test samples. Says how "
        "alike they are: CKA of their features, the share of equal answers, errors in common beside "
        "what chance would give; and which pair is best without test. Fits nothing.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_rows(parser, files=False)
    tests = parser.add_argument_group("what is compared")
    tests.add_argument("--metric", metavar="NAME", help=USUAL_METRIC)
    tests.add_argument("--level", type=float, default=0.95, metavar="L", help="of intervals (0.95)")
    tests.add_argument("--no-cka", action="store_true", help="read no features")
    add_format(parser)
    parser.set_defaults(prog=prog)
    return parser


def _read(options: argparse.Namespace) -> tuple[list[StoredRow], int]:
    """Rows of the named encoders, alone and together, and the status that complaints ask for."""
    words = split_words("--model", options.model)
    every, status = read_rows(argparse.Namespace(**{**vars(options), "model": None}), options.prog)
    parts = {part.digest: part for of in every for part in of.row.encoded.parts}
    kept = {part.digest for part in choose_named(words, list(parts.values()), part_names)}
    rows = [of for of in every if kept.issuperset(p.digest for p in of.row.encoded.parts)]
    return (rows, status) if rows or not words else read_rows(options, options.prog)


def run(options: argparse.Namespace) -> int:
    """Read the rows, compare, print.

    Raises:
        RequestError: no two encoders were asked alike, or no row has the metric.
    """
    rows, status = _read(options)
    if not rows:
        return status
    metric = metric_of(options, rows)
    if metric not in metrics_of(rows):
        raise no_metric(metric, rows)
    having = [c for c in contenders_of(rows) if c.value(metric) is not None]
    found = candidates(having)
    if not found:
        raise RequestError(NONE.format(f" --data {options.data}" if options.data else ""))
    people, asking = people_of(options), Asking((metric,), options.level)
    studies, failed = [], []
    for of in found:
        try:
            studies.append(study(of, people, asking, not options.no_cka))
        except RequestError as error:
            failed.append(f"{of[0].a.dataset}: {error}")
    for text in as_few(failed):
        complain(options.prog, text)
    if not studies:
        return 1
    record = read_record(options.results or results_root())
    print_page(options, make_page(studies, metric, options.level, record))
    return 1 if failed else status
