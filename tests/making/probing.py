"""The command `probe`, run in this process, and the rows it leaves."""

import json
import os
from pathlib import Path

from probe.cli import main
from probe.run import Job, answer


def run(capsys, words):
    """Status, output and errors of ``probe`` with these words, a list or a line of them."""
    status = main(words.split() if isinstance(words, str) else [str(word) for word in words])
    said = capsys.readouterr()
    assert "Traceback" not in said.err
    return status, said.out, said.err


def answered(capsys, words):
    """The output of a run without a complaint."""
    status, out, err = run(capsys, words)
    assert (status, err) == (0, ""), err
    return out


def refused(capsys, words):
    """The errors of a run that ends with status 1."""
    status, _, err = run(capsys, words)
    assert status == 1
    return err


def rows(results=None):
    """The stored rows in the order of their files, of where the environment points the command."""
    results = results or Path(os.environ["MEDPROBE_RESULTS"])
    return [json.loads(path.read_text()) for path in sorted(results.glob("*/*.json"))]


def probe_file(config, features):
    """The rows of an open file."""
    return answer(Job(config, (features.path,)), files=(features,))
