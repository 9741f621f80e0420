"""``report page``: a whole study as one HTML file, to send and to open anywhere."""

import argparse
import shlex
from pathlib import Path

from cache.commands.names import counted
from cache.commands.terminal import Parser, show
from cache.errors import RequestError
from cache.files import write_asked
from cache.places import results_root
from probe.report.commands.which import USUAL_METRIC, add_rows, metric_of, people_of, read_rows
from probe.report.rows.contenders import contenders_of
from probe.report.rows.ledger import read_ledger, read_question

EXAMPLES = """\
examples:
  report page -o study.html                               all rows
  report page -o study.html --data breastmnist --metric acc
  report page -o study.html --title "Breast ultrasound" --question "dinov2 > vit by auc on breastmnist"
"""
WHICH = ("data", "model", "kind", "name", "where")
FLAGS = (*WHICH, "metric", "title", "question")  # that make the page again


def make_parser(prog: str) -> Parser:
    """The flags."""
    parser = Parser(
        prog=prog,
        description="Write a study as one HTML file that works without a network: question and "
        "headline, data, who can still be first, comparisons, curves, answers, what the test sets can "
        "decide, how often test was read, all rows, and how it was made. Tables sort and filter; each "
        "plot has its data as CSV. Needs plotly: pip install 'medprobe[report]'.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_rows(parser, files=False)
    what = parser.add_argument_group("what stands on it")
    what.add_argument("--metric", metavar="NAME", help=USUAL_METRIC)
    what.add_argument("--title", metavar="TEXT", default="", help="(encoders and data sets)")
    what.add_argument(
        "--question",
        metavar="CLAIM",
        help='the comparison named in advance: "A > B by auc on DATA"; conditions make it one of '
        'several: "A and kind=linear > B and kind=linear by auc" (acc)',
    )
    parser.add_argument("--output", "-o", type=Path, metavar="FILE", help="a file.html")
    parser.set_defaults(prog=prog)
    return parser


def check(options: argparse.Namespace) -> None:
    """Refuse to write nowhere.

    Raises:
        RequestError: no file is named, or one of another kind.
    """
    if options.output is None:
        raise RequestError("name a file: -o study.html")
    if options.output.suffix.lower() not in (".html", ".htm"):
        raise RequestError(f"-o takes a file that ends in .html; not {str(options.output)!r}")


def run(options: argparse.Namespace) -> int:
    """Read the rows, make the page, write it.

    Raises:
        RequestError: plotly isn't installed, no row has the metric, or the file can't be written.
    """
    from probe.report.findings.headline import Record, read_record
    from probe.report.study.document import check_plotly, write
    from probe.report.study.make import Studied, make_study

    check_plotly()
    question = read_question(options.question) if options.question else None
    rows, status = read_rows(options, options.prog)
    if not rows:
        return status
    metric, root = metric_of(options, rows), options.results or results_root()
    is_all = not any(getattr(options, name) for name in WHICH)  # ten thousand are read once then
    record = Record(rows, read_ledger(root, rows)) if is_all else read_record(root)
    studied = Studied(
        *(rows, contenders_of(rows), people_of(options), record, metric, question),
        *(options.title, typed(options)),
    )
    text = write(make_study(studied))
    with write_asked(options.output) as file:
        file.write(text.encode())
    show(f"{options.output}: {counted(len(rows), 'row')}, {len(text) / 1e6:.1f} MB")
    return status


def typed(options: argparse.Namespace) -> str:
    """The line that makes the page; folders, which are the reader's own, aren't in it."""
    words = options.prog.split()
    for name in FLAGS:
        value = getattr(options, name)
        for each in value if isinstance(value, list) else [value]:
            words += [f"--{name}", each] if each else []
    return shlex.join([*words, "-o", options.output.name])
