"""``report ledger``: how often each test set was read."""

import argparse
from pathlib import Path

from cache.commands.terminal import Parser, split_words
from cache.errors import RequestError
from cache.places import results_root
from probe.report.commands.which import add_format, print_page
from probe.report.pages.ledger import make_page
from probe.report.rows.ledger import read_ledger


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
