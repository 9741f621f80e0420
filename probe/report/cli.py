"""The command ``report``: what stored rows say together."""

import sys
from collections.abc import Sequence
from importlib import import_module

from cache.commands.terminal import Parser, run_command
from cache.errors import RequestError

# A module of ``commands`` each, imported when it is called: --help waits for none.
COMMANDS = {
    "table": "stored rows as a table; of one metric, encoders x data sets, best ones marked",
    "compare": "paired difference of two models, with interval and p",
    "pairs": "whether two encoders are better together, and how alike they are",
    "decide": "the smallest difference that a test set can show",
    "claim": "whether a claim such as 'dinov2 > vit on breastmnist' holds",
    "claims": "the same of all that the papers' tables say by their order",
    "sensitivity": "whether the order of encoders depends on the probe",
    "checklist": "CLAIM, TRIPOD+AI or STARD-AI, filled in with what rows and files know",
    "figure": "a picture of rows, and its data frame",
    "maps": "what patch tokens see: components, parts, attention; masks and errors over images",
    "page": "a whole study as one HTML file that works without a network",
    "wrong": "the most confident wrong answers with their nearest training images; labels to look at",
    "export": "rows as csv, parquet, or MedMNIST's evaluator has them",
    "ls": "list rows: data set, encoder, date, and which are stale",
    "rm": "delete rows",
    "gc": "delete rows whose features or labels are gone, and what kills left",
    "ledger": "how often each test set was read",
}
DESCRIPTION = (
    "Tables, comparisons and claims from stored rows. Reads rows and feature files; fits nothing."
)


def make_parser() -> Parser:
    """What ``report --help`` says."""
    parser = Parser(prog="report", commands=tuple(COMMANDS), description=DESCRIPTION)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, told in COMMANDS.items():
        commands.add_parser(name, help=told, add_help=False)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    if words[:1] and words[0] in COMMANDS:
        return run_named(words[0], words[1:])
    make_parser().parse_args(words)
    return 2


def run_named(name: str, arguments: Sequence[str], prog: str = "") -> int:
    """Run one command.

    Args:
        name: one of ``COMMANDS``.
        arguments: what was typed behind it.
        prog: what it was called as; "": "report NAME".
    """
    prog = prog or f"report {name}"

    def run() -> int:  # imports take most of a second, in which Ctrl-C may come, too
        from probe.report.commands.which import parse

        command = import_module(f"probe.report.commands.{name}")
        parser = command.make_parser(prog)
        options = parse(parser, arguments)
        if check := getattr(command, "check", None):  # of flags that don't go together
            try:
                check(options)
            except RequestError as error:
                parser.error(str(error))
        return command.run(options)

    return run_command(prog, run)
