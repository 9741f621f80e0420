"""Flags, choices and defaults of every command, as ``--help`` says them; and how rows are compared."""

import argparse
import re

import pytest
from golden import TOLERANCE, Recording, differences

import cache.cli
import extract.cli
import finetune.cli
import probe.cli
import probe.report.cli

MAINS = {
    c.__name__.split(".")[-2]: c.main
    for c in (cache.cli, extract.cli, probe.cli, probe.report.cli, finetune.cli)
}
COMMANDS = [
    "probe",
    "probe table",
    "extract",
    "extract models",
    "extract data",
    "extract data add",
    "extract data remove",
    "extract data show",
    "extract data twins",
    "finetune",
    "cache",
    "report",
    *(f"report {name}" for name in probe.report.cli.COMMANDS),
]


class Caught(BaseException):
    """The parser of a command, before it has parsed a word."""


@pytest.fixture(scope="module")
def of_help():
    recording = Recording("help")
    yield recording
    recording.finish()


def parser_of(command, monkeypatch):
    def parse(parser, *unused, **also_unused):
        raise Caught(parser)

    monkeypatch.setattr(argparse.ArgumentParser, "parse_known_args", parse)
    name, *words = command.split()
    with pytest.raises(Caught) as caught:
        MAINS[name]([*words, "--help"])
    return caught.value.args[0]


def flags(parser):
    """Names of each flag -> its choices, what its help has in brackets, the way it is typed.

    In brackets stands the default in words, wherever it is kept: in argparse or in a dataclass.
    """
    found = {}
    for action in parser._actions:
        name = " ".join(action.option_strings) or str(action.metavar or action.dest)
        if isinstance(action, argparse._SubParsersAction):
            for word, below in action.choices.items():
                found |= {f"{word} {flag}": facts for flag, facts in flags(below).items()}
            continue
        text = " ".join((action.help or "").split()) % {**vars(action), "prog": parser.prog}
        choices = [str(word) for word in action.choices or ()]
        takes = "nothing" if action.nargs == 0 else str(action.metavar or "")
        many = str(action.nargs) if action.nargs in ("*", "+", "?") else ""
        found[name] = [choices, re.findall(r"\(([^()]*)\)", text), takes, many]
    return dict(sorted(found.items()))


@pytest.mark.parametrize("command", COMMANDS)
def test_no_flag_goes_or_takes_other_words(command, monkeypatch, of_help):
    """A new flag is no difference; one that is gone, or has another default, is."""
    found = flags(parser_of(command, monkeypatch))
    recorded = of_help.known.get((command, "flags"), found)
    of_help.check(command, {"flags": {flag: v for flag, v in found.items() if flag in recorded}})


ROW = {"a": {"n": 3, "v": 0.5, "marks": ["x"]}, "b.npz": [1.0, 2.0]}


@pytest.mark.parametrize(
    ("other", "place"),
    [
        ({**ROW, "a": {**ROW["a"], "n": 4}}, ".a.n"),
        ({**ROW, "a": {**ROW["a"], "n": 3.0}}, ".a.n"),
        ({**ROW, "a": {**ROW["a"], "v": 0.500002}}, ".a.v"),
        ({**ROW, "a": {**ROW["a"], "marks": ["y"]}}, ".a.marks[0]"),
        ({**ROW, "a": {**ROW["a"], "marks": []}}, ".a.marks"),
        ({**ROW, "a": {"v": 0.5, "n": 3, "marks": ["x"]}}, ".a: order of names"),
        ({**ROW, "b.npz": [1.0, 2.00001]}, ".b.npz[1]"),
        ({"a": ROW["a"]}, ": names"),
        ({**ROW, "c": 1}, ": names"),
    ],
)
def test_every_difference_is_seen(other, place):
    assert not list(differences(ROW, {**ROW, "a": {**ROW["a"], "v": 0.5000001}}, TOLERANCE))
    (line,) = differences(ROW, other, TOLERANCE)
    assert line.startswith(place)
