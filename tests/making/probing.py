"""The command `probe`, run in this process, and the rows it leaves."""

import json

from probe.cli import main
from probe.run import Job, answer


def run(capsys, words):
    """Status, output and errors of ``probe`` with these words, a list or a line of them."""
    status = main(words.split() if isinstance(words, str) else [str(word) for word in words])
    said = capsys.readouterr()
    assert "Traceback" not in said.err
    return status, said.out, said.err


def rows(results):
    return [json.loads(path.read_text()) for path in sorted(results.glob("*/*.json"))]


def probe_file(config, features):
    """The rows of an open file."""
    return answer(Job(config, features.path), features=features)
