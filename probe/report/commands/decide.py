"""``report decide``: the smallest difference that a test set can show."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from cache.commands.names import counted
from cache.commands.terminal import Parser, split_words
from cache.errors import RequestError
from cache.features import Features
from cache.places import features_root, results_root
from cache.task import NEVER_WRONG, REGRESSION
from probe.report.commands.which import add_format, add_rows, people_of, print_page, read_rows
from probe.report.findings.deciding import (
    NO_SHARES,
    Asked,
    Assumed,
    Shown,
    choose,
    from_labels,
    from_rows,
)
from probe.report.findings.division import tested
from probe.report.pages.deciding import make_page
from probe.report.rows.contenders import contenders_of
from probe.report.rows.ledger import read_ledger, read_question, record_question
from probe.report.rows.people import People
from probe.report.rows.stored import StoredRow
from probe.report.statistics.decide import DIFFERENCES, Power

EXAMPLES = """\
examples:
  report decide --data breastmnist            before any row is there, from the labels that test has
  report decide                               of every data set that has rows, or features
  report decide --data breastmnist --margin 0.03 --power 0.9
  report decide --data breastmnist --question "dinov2 > vit by auc on breastmnist"
  report decide --question "dinov2 and kind=linear > vit and kind=linear by auc"
"""


def make_parser(prog: str) -> Parser:
    """The flags."""
    parser = Parser(
        prog=prog,
        description="Say which differences in AUC and accuracy a test set can show, and how many "
        "samples, or patients, would show others. From the scores of stored rows that read test, of "
        "the pair whose difference scatters as those of half of all pairs do; only how much it "
        "scatters is used. Else from the classes of the test samples, which are counted, and from "
        "what is assumed; no scores on test are needed or made. Patients count as patients.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_rows(parser, files=False)
    wanted = parser.add_argument_group("how sure")
    wanted.add_argument(
        "--margin", type=float, metavar="D", help="the difference that n is given for (.01 .02 .05)"
    )
    wanted.add_argument(
        "--power", type=float, default=0.8, metavar="P", help="how often it is shown (0.8)"
    )
    wanted.add_argument(
        "--level", type=float, default=0.05, metavar="P", help="chance of a false difference (0.05)"
    )
    assumed = parser.add_argument_group("what is assumed where no row read test")
    usual = Assumed()
    assumed.add_argument(
        "--auc", type=float, default=usual.auc, metavar="A", help=f"of both models ({usual.auc:g})"
    )
    assumed.add_argument(
        "--correlation",
        type=float,
        default=usual.correlation,
        metavar="R",
        help=f"of the errors of both AUCs; 0.8 of like models ({usual.correlation:g})",
    )
    assumed.add_argument(
        "--disagreement",
        type=float,
        default=usual.disagreement,
        metavar="Q",
        help="share of samples that one of the two alone gets right; 0.05 of like models, 0.2 of "
        f"unlike ({usual.disagreement:g})",
    )
    parser.add_argument(
        "--question",
        metavar="CLAIM",
        help='write into the ledger, with its time, what will be compared: "A > B by auc on DATA" '
        "(acc). It is the headline where it names one pair alone of all rows; conditions help: "
        '"A and kind=linear > B and kind=linear by auc"',
    )
    add_format(parser)
    parser.set_defaults(prog=prog)
    return parser


def run(options: argparse.Namespace) -> int:
    """Decide for each data set, and print."""
    differences = DIFFERENCES if options.margin is None else (options.margin,)
    assumed = Assumed(options.auc, options.correlation, options.disagreement)
    asked = Asked(differences, Power(options.level, options.power), assumed)
    question = str(read_question(options.question)) if options.question else ""
    rows, status = read_rows(options, options.prog, may_lack=True)
    files = _files(options.features or features_root())
    names = split_words("--data", options.data) or sorted(
        {of.row.encoded.dataset for of in rows} | {f.dataset for f in files}
    )
    if not names:
        where = options.features or features_root()
        raise RequestError(f"no rows, and no feature files in {where}; `extract` makes some")
    shown: list[Shown] = []
    notes: list[str] = []
    for name in names:
        found, said = _decide(name, rows, files, options, asked)
        shown += found
        notes += said
    if question:
        notes.append(_record(options.results or results_root(), question))
    print_page(options, make_page(shown, asked, notes))
    return status


def _record(root: Path, question: str) -> str:
    """Write a question into the ledger; says since when it stands there, and what was read before."""
    record_question(root, question)
    known = next(of for of in read_ledger(root).questions if of.text == question)
    datasets = read_question(question).datasets
    read = ", ".join(
        f"{counted(n, 'reading')} of {name}"
        for name, n in known.read_before.items()
        if name in datasets or not datasets
    )
    before = f"after {read}" if read else "before its test sets were read"
    return f'named on {known.time[:10]}, {before}: "{question}"'


def _files(folder: Path) -> list[Features]:
    """One feature file of each data set, whichever comes first."""
    return list({of.dataset: of for of in reversed(People(folder).files)}.values())[::-1]


def _decide(
    name: str,
    rows: Sequence[StoredRow],
    files: Sequence[Features],
    options: argparse.Namespace,
    asked: Asked,
) -> tuple[list[Shown], list[str]]:
    """What a data set can show, and what is to be said of it."""
    of_set = contenders_of([of for of in rows if of.row.encoded.dataset == name])
    chosen = choose(name, of_set)
    notes = list(chosen.notes)
    people = people_of(options)
    if found := from_rows(name, chosen, people, asked):
        return found, notes
    if of_set and all(of.first.row.encoded.task in NEVER_WRONG for of in of_set):
        return [], [*notes, f"{name}: {NO_SHARES}"]
    features = tested(of_set, people) or next((f for f in files if f.dataset == name), None)
    if features is None:
        raise RequestError(
            f"{name}: no two rows that read one test set, and no feature file of it; name its folder "
            "with --features DIR, or make one by `extract`"
        )
    if features.task == REGRESSION:
        return [], [*notes, f"{name}: {NO_SHARES}"]
    return from_labels(features, asked), notes
