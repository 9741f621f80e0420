"""What every command answers to words that it doesn't know."""

import importlib
import os
import re

import pytest

from cache.commands.names import counted
from cache.commands.terminal import run_command


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("probe --knd knn", "unrecognized arguments: --knd; near names: --kind"),
        ("probe tabel", "no command 'tabel'; near names: table; see probe --help"),
        ("probe table --dta x", "--dta; near names: --data; see probe table"),
        ("extract modles", "no command 'modles'; near names: models"),
        ("extract --modle=vit", "--modle=vit; near names: --model"),
        ("extract models --redy", "near names: --ready"),
        ("extract --zzz", "unrecognized arguments: --zzz; see extract --help"),
        ("finetune --itrations 3", "near names: --iterations"),
        ("cache ls --fetures x", "near names: --features"),
        ("cache lss", "invalid choice: 'lss'"),
        (f"probe {'x' * 300}", "see probe --help"),
    ],
)
def test_unknown_words_are_named_with_what_is_like_them(words, expected, capsys):
    command, *arguments = words.split()
    with pytest.raises(SystemExit, match="2"):
        importlib.import_module(f"{command}.cli").main(arguments)
    (line,) = capsys.readouterr().err.splitlines()
    assert expected in line


def test_a_file_named_like_a_command_is_a_file(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tables").write_text("")
    with pytest.raises(SystemExit):
        importlib.import_module("probe.cli").main(["tables"])
    assert "no command" not in capsys.readouterr().err


@pytest.mark.parametrize("command", ["cache", "extract", "probe", "finetune"])
def test_every_command_says_its_version(command, capsys):
    with pytest.raises(SystemExit, match="0"):
        importlib.import_module(f"{command}.cli").main(["--version"])
    assert re.fullmatch(rf"{command}, of medprobe \d[\w.]+\n", capsys.readouterr().out)


def test_one_is_not_many():
    assert [counted(n, "encoder") for n in (0, 1, 2000)] == [
        "0 encoders",
        "1 encoder",
        "2_000 encoders",
    ]


@pytest.mark.parametrize("own", [None, "ACTIVE"])
def test_threads_sleep_while_they_wait_unless_a_user_says_otherwise(monkeypatch, own):
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    if own:
        monkeypatch.setenv("OMP_WAIT_POLICY", own)
    seen = []
    assert run_command("x", lambda: seen.append(os.environ["OMP_WAIT_POLICY"]) or 0) == 0
    assert seen == [own or "PASSIVE"]
