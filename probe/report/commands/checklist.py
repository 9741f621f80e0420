"""``report checklist``: a reporting checklist, filled in with what rows and files know."""

import argparse

from cache.commands.terminal import Parser
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
from probe.report.published.checklists import CHECKLISTS, find_checklist
from probe.report.rows.contenders import contenders_of
from probe.report.rows.ledger import read_question

EXAMPLES = """\
examples:
  report checklist claim2024 --data breastmnist --kind linear -o claim.md
  report checklist tripod-ai --prevalence 0.05 -o tripod.md
  report checklist stard-ai --question "dinov2 > vit by auc on scans" -o stard.md
"""


def make_parser(prog: str) -> Parser:
    """The flags."""
    parser = Parser(
        prog=prog,
        description="Fill in a reporting checklist: who is in which split, what was left out, counts and "
        "rates at thresholds fixed on val, calibration, leaks, how often test was read, versions and "
        "licences, as far as rows and feature files know; AUTHOR stands where only people can say. Of "
        "several answers to one test set it tells the one that the headline names first.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    names = [checklist.name for checklist in CHECKLISTS]
    parser.add_argument("checklist", choices=names, help="which")
    add_rows(parser, files=False)
    told = parser.add_argument_group("what is told")
    told.add_argument("--metric", metavar="NAME", help=f"that the best is by {USUAL_METRIC}")
    told.add_argument(
        "--prevalence",
        type=float,
        metavar="P",
        help="share of the positive class that predictive values are told at, too, 0 to 1",
    )
    told.add_argument(
        "--positive",
        metavar="CLASS",
        default="",
        help="of two classes, the one that a yes is (the second)",
    )
    told.add_argument(
        "--question",
        metavar="CLAIM",
        help='the comparison named in advance: "A > B by auc on DATA"',
    )
    add_format(parser, usual="markdown")
    parser.set_defaults(prog=prog)
    return parser


def run(options: argparse.Namespace) -> int:
    """Read the rows, fill the checklist in."""
    from probe.report.findings.headline import read_record
    from probe.report.findings.reported import Reports, report_on
    from probe.report.pages.checklist import page_of_checklist

    p = options.prevalence
    if p is not None and not 0 < p < 1:
        raise RequestError(f"--prevalence lies between 0 and 1, such as 0.05; found {p:g}")
    question = None if options.question is None else read_question(options.question)
    rows, status = read_rows(options, options.prog)
    if not rows:
        return status
    metric, people = metric_of(options, rows), people_of(options)
    record = read_record(options.results or results_root())
    reported = report_on(contenders_of(rows), metric, record, people, question, options.positive)
    if not reported:
        raise RequestError("none of these rows has read test: a checklist has nothing to tell")
    reports = Reports(tuple(reported), record, people, metric, question, p)
    print_page(options, page_of_checklist(find_checklist(options.checklist), reports))
    return status
