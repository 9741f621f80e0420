"""What files say reaches the terminal as text: nothing in it moves a cursor or passes for ours."""

import ast
import dataclasses
import re
import shlex

import numpy as np
import pytest
from answering import make_row
from features import forge_table, make_spec, write_file
from here import REPOSITORY

import cache.cli
import probe.cli
from cache.commands.terminal import in_line, printable
from cache.format.read import read_header
from cache.format.spec import Samples
from probe.results import Answered, write_row

# Clears the screen, rings, goes back over the line, does either by C1, turns letters round, twice.
HOSTILE = "a\x1b[2J\x07\r\x9b2J\u202eb\u2066\u200f"
CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("é ü 漢字 العربية \t|\n", "é ü 漢字 العربية \t|\n"),
        ("\x1b[31m", r"\x1b[31m"),
        ("\r\x00\x7f", r"\x0d\x00\u007f"),
        ("\x85\x9b", r"\u0085\u009b"),
        ("\u202ecod.exe\u2069\u2028", r"\u202ecod.exe\u2069\u2028"),
    ],
)
def test_control_characters_are_escaped_and_letters_are_not(text, shown):
    assert printable(text) == shown


def test_what_stands_in_a_line_stays_in_it():
    assert in_line("a\nb\tc\x1b") == r"a\nb\tc\x1b"


def hostile_spec(command="extract --model toy --data toys"):
    n = 120
    ids = np.array([f"{HOSTILE}{i:03}" for i in range(n)])
    split = np.minimum(np.arange(n) * 3 // n, 2).astype(np.uint8)
    meta = {"sex": np.array([HOSTILE] * n)}
    return dataclasses.replace(
        make_spec(n, note=HOSTILE),
        model=HOSTILE,
        encoder=f"x\n{HOSTILE}",
        dataset=f"toys{HOSTILE}",
        class_names=("a", f"b\n{HOSTILE}", HOSTILE),
        notes={"seen": f"yes: {HOSTILE}", HOSTILE: f"{HOSTILE}\nmade by         us"},
        versions={HOSTILE: HOSTILE},
        samples=Samples(ids, split, np.arange(n) % 3, np.array(ids), meta),
        command=command,
    )


def said(capsys, main, *words):
    """All that a command says, and its status."""
    status = main([str(word) for word in words])
    found = capsys.readouterr()
    assert not CONTROL.search(found.out + found.err)
    return status, found.out + found.err


def test_nothing_that_a_file_says_moves_the_cursor(tmp_path, capsys):
    path = tmp_path / "f" / "toys" / f"x{HOSTILE}.h5"
    write_file(path, hostile_spec())
    other = tmp_path / "g" / "toys" / "other.h5"
    write_file(other, make_spec(120))
    status, text = said(capsys, cache.cli.main, "show", path)
    assert (status, text.count("\nmade by")) == (0, 0)
    assert r"a\x1b[2J\x07\x0d\u009b2J\u202eb\u2066\u200f" in text
    assert said(capsys, cache.cli.main, "ls", "--features", tmp_path / "f")[0] == 0
    assert said(capsys, cache.cli.main, "verify", path)[0] == 0
    assert said(capsys, cache.cli.main, "diff", path, other)[0] == 1
    assert said(capsys, cache.cli.main, "rm", path)[0] == 1  # not without an answer
    words = ["--kind", "knn", "--k", "3", "--results", tmp_path / "r", "--resamples", "5"]
    status, text = said(capsys, probe.cli.main, *words, "--features", tmp_path / "f")
    assert status == 0
    told, above = (line for line in text.splitlines() if r"toysa\x1b" in line)
    assert told.startswith(r"toysa\x1b")
    assert above.startswith(r"data toysa\x1b")
    assert said(capsys, probe.cli.main, *words, path, "--layer", "99")[0] == 1
    assert said(capsys, probe.cli.main, *words, path, "--target", f"meta:{HOSTILE}")[0] == 1
    assert said(capsys, probe.cli.main, "table", "--results", tmp_path / "r")[0] == 0
    with pytest.raises(SystemExit):
        said(capsys, cache.cli.main, "verify", f"--{HOSTILE}")
    assert not CONTROL.search(capsys.readouterr().err)


def test_rows_of_others_are_shown_escaped(tmp_path, capsys):
    row = dataclasses.replace(
        make_row(dataset=HOSTILE),
        marks=(f"{HOSTILE}\n[2] ours",),
        answered=Answered({"kind": "linear"}, {HOSTILE: 1}),
    )
    write_row(tmp_path, row)
    status, text = said(capsys, probe.cli.main, "table", "--results", tmp_path)
    assert status == 0
    assert "\n[2] ours" not in text


@pytest.mark.parametrize(
    ("command", "shown"),
    [
        ("extract --model toy --data toys", "extract --model toy --data toys"),
        ("rm -rf ~", "extract --model toy --data toys"),
        ("extract --data x; rm -rf ~", "extract --data 'x;' rm -rf '~'"),
        ("extract --data $(rm x) `rm y`\nrm z", "extract --data '$(rm' 'x)' '`rm' 'y`' rm z"),
        ("extract 'never closed", "extract --model toy --data toys"),
        ("extract\x1b[2J", "extract --model toy --data toys"),
    ],
)
def test_the_command_of_a_file_is_no_cure_that_a_shell_could_mistake(
    tmp_path, capsys, command, shown
):
    path = write_file(tmp_path / "x.h5", dataclasses.replace(make_spec(), command=command))
    header = read_header(path)
    assert header.cure == shown
    assert shlex.split(header.cure) == header.command
    forge_table(path, "samples/split", lambda values: values + 9)
    status, text = said(capsys, cache.cli.main, "verify", path)
    assert (status, text.splitlines()[-1]) == (1, f"  {shown}")


def test_every_command_prints_through_this_door():
    """``print`` stands in terminal.py alone, and where what is printed was escaped before."""
    found = set()
    for package in ("cache", "extract", "probe", "finetune"):
        for path in (REPOSITORY / package).rglob("*.py"):
            calls = [
                n.func for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Call)
            ]
            if any(isinstance(call, ast.Name) and call.id == "print" for call in calls):
                found.add(path.relative_to(REPOSITORY).as_posix())
    # The second prints a progress that is escaped, the third the table of encoders into a file.
    assert found == {
        "cache/commands/terminal.py",
        "extract/machine/progress.py",
        "extract/encoders/document.py",
    }
