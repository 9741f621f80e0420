"""``report sensitivity``: whether the order of encoders depends on the probe."""

import argparse

from cache.commands.terminal import Parser, split_words
from cache.errors import RequestError
from probe.report.commands.which import (
    USUAL_METRIC,
    add_format,
    add_rows,
    people_of,
    print_page,
    read_rows,
)
from probe.report.rows.contenders import contenders_of
from probe.report.rows.fields import find_field, metric_named, metrics_of, no_metric, usual_metric
from probe.report.rows.stored import StoredRow

EXAMPLES = """\
examples:
  report sensitivity                          kNN, ridge, logistic x last layer, best layer
  report sensitivity --metric auc,acc --data breastmnist
  report sensitivity --kind knn --by k        one kind, several k
  report sensitivity --by kind,shots --where "shots>0"
"""


def make_parser(prog: str) -> Parser:
    """The flags."""
    parser = Parser(
        prog=prog,
        description="Rank encoders under each probe, on each data set: kNN, ridge and logistic "
        "regression on the last layer and on the best one by val. Says how far two orders agree "
        "(Kendall's tau-b), what a tau can say of so few encoders, whose rank changes most, and "
        "whether by more than noise. Fits nothing: `probe --layer auto` answers of both layers.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_rows(parser)
    which = parser.add_argument_group("ranks")
    which.add_argument("--metric", metavar="NAMES", help=f"comma separated {USUAL_METRIC}")
    which.add_argument(
        "--by",
        metavar="FIELDS",
        help="what tells probes apart: kind, place (last layer, best layer), k, shots, pool... "
        "(kind,place,k)",
    )
    which.add_argument("--level", type=float, metavar="P", default=0.05, help="of tests (0.05)")
    which.add_argument("--no-tests", action="store_true", help="ranks and tau alone")
    add_format(parser)
    parser.set_defaults(prog=prog)
    return parser


def run(options: argparse.Namespace) -> int:
    """Read the rows, print their ranks.

    Raises:
        RequestError: no such field or metric; no two probes of two encoders each.
    """
    if not 0 < options.level < 1:
        raise RequestError(f"--level lies between 0 and 1, such as 0.05; found {options.level:g}")
    metrics = [metric_named(word) for word in split_words("--metric", options.metric)]
    rows, status = read_rows(options, options.prog)
    if rows:
        _print(options, metrics or [usual_metric(rows)], rows)
    return status


def _print(options: argparse.Namespace, metrics: list[str], rows: list[StoredRow]) -> None:
    from probe.report.pages.sensitivity import KINDS, USUAL, page_of_sensitivity

    if not metrics_of(rows) & set(metrics):
        raise no_metric(metrics[0], rows)
    by = split_words("--by", options.by) or USUAL
    for name in by:
        find_field(name)
    asked = [of for of in rows if options.kind or of.row.answered.kind in KINDS]
    people = None if options.no_tests else people_of(options)
    contenders = contenders_of(asked)
    print_page(options, page_of_sensitivity(contenders, metrics, people, by, options.level))
