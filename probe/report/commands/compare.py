"""``report compare``: which differences of two sides are real."""

import argparse
from collections.abc import Sequence

from cache.commands.terminal import Parser, complain, split_words
from cache.errors import RequestError
from cache.places import results_root
from probe.report.commands.which import add_format, add_rows, people_of, print_page, read_rows
from probe.report.findings.comparisons import Asking, Comparison, compare, metrics_for
from probe.report.findings.headline import NAMED, Headline, headline, read_record
from probe.report.pages.comparison import make_page
from probe.report.pages.notes import as_few
from probe.report.rows.fields import metric_named
from probe.report.rows.ledger import read_question
from probe.report.rows.sides import pair_up, read_side
from probe.report.statistics.claims import Asked

EXAMPLES = """\
examples:
  report compare dinov2 vit                       encoders, on every data set that both were asked on
  report compare dinov2 vit --kind linear --data breastmnist --margin 0.02
  report compare kind=knn kind=linear --model vit
  report compare "vit and size=224" "vit and size=112" --metric acc,f1_macro
  report compare 3f2a91 before                    rows by the start of their id, or by tag
  report compare dinov2 vit --question "dinov2 > vit by auc on breastmnist"
"""


def make_parser(prog: str) -> Parser:
    """The flags."""
    parser = Parser(
        prog=prog,
        description="Compare two sides on the same test samples: the difference A less B, with its "
        "interval and p. A and B are encoders as --model calls them, conditions as of --where, tags, "
        "or rows by file or the start of their id. Pairs are rows that were asked alike, but for "
        "what A and B name. Over data sets the exact signed-rank test.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("a", metavar="A", help="one side")
    parser.add_argument("b", metavar="B", help="the other")
    add_rows(parser, files=False)
    tests = parser.add_argument_group("what is compared")
    tests.add_argument(
        "--metric",
        metavar="NAMES",
        help="metrics, comma separated (auc,acc; of several labels auc,average_precision; of grades "
        "kappa too; of numbers mae,r2)",
    )
    tests.add_argument("--level", type=float, default=0.95, metavar="L", help="of intervals (0.95)")
    tests.add_argument(
        "--margin",
        type=float,
        metavar="M",
        help="also whether they are equivalent: the 90 %% interval lies within M, in the metric's "
        "unit, which was named before",
    )
    tests.add_argument(
        "--classes", action="store_true", help="every class, not the two that move most"
    )
    tests.add_argument(
        "--question",
        metavar="CLAIM",
        help='the comparison named in advance: "A > B by auc on DATA"; conditions make it one of '
        'several: "A and kind=linear > B and kind=linear by auc" (acc)',
    )
    add_format(parser)
    parser.set_defaults(prog=prog)
    return parser


def run(options: argparse.Namespace) -> int:
    """Compare, and print."""
    metrics = tuple(metric_named(word) for word in split_words("--metric", options.metric))
    asking = Asking(metrics, options.level, options.margin)
    question = read_question(options.question) if options.question else None
    rows, status = read_rows(options, options.prog)
    if not rows:
        return status
    a, b = read_side(options.a, rows), read_side(options.b, rows)
    found = pair_up(a, b)
    if not any(of.pairs for of in found):
        raise RequestError("; ".join(f"{of.dataset}: {of.lacking}" for of in found))
    people = people_of(options)
    comparisons, failed = [], []
    for pair in (pair for of in found for pair in of.pairs):
        try:
            comparisons.append(compare(pair, people, asking))
        except RequestError as error:
            failed.append(f"{pair.dataset}: {error}")
    for text in as_few(failed):
        complain(options.prog, text)
    if not comparisons:
        return 1
    heads = _headlines(options, comparisons, asking, question)
    if question and all(head.standing != NAMED for _, head in heads):
        complain(options.prog, f'"{question}" names none of these comparisons alone: no headline')
    print_page(options, make_page(a, b, found, comparisons, asking, heads, options.classes))
    return 1 if failed else status


def _headlines(
    options: argparse.Namespace,
    comparisons: Sequence[Comparison],
    asking: Asking,
    question: Asked | None,
) -> list[tuple[Comparison, Headline]]:
    """What each comparison may be called, from all rows that exist of its test set."""
    record, found = read_record(options.results or results_root()), []
    for of in comparisons:
        pair = of.pair.a, of.pair.b
        metrics = metrics_for(pair[0].first.row.encoded.task, asking)
        found.append((of, headline(pair, metrics, record, question)))
    return found
