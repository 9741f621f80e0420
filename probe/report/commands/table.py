"""``report table``: stored rows as a table."""

import argparse

from cache.commands.terminal import Parser, show
from probe.report.commands.which import add_rows, read_rows
from probe.report.table import format_table

EXAMPLES = """\
examples:
  report table                                every stored row
  report table --data breastmnist             of one data set
  report table --kind linear,finetune --model dinov2
  report table results/breastmnist/*.json     rows by file
"""


def make_parser(prog: str) -> Parser:
    """The flags."""
    parser = Parser(
        prog=prog,
        description="Print stored rows, of probe and of finetune, as tables. Nothing is "
        "computed. Files that hold no whole row, and rows whose scores are missing or damaged, are "
        "named, and the status is 1.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_rows(parser)
    parser.set_defaults(prog=prog)
    return parser


def run(options: argparse.Namespace) -> int:
    """Read the rows, print those that are asked for."""
    rows, status = read_rows(options, options.prog)
    if rows:
        show(format_table([of.row for of in rows], with_kind=True))
    return status
