"""The command `cache`, run in this process."""

from cache.cli import main


def run(capsys, *words):
    """Status, output and errors of ``cache`` with these words."""
    status = main([str(word) for word in words])
    said = capsys.readouterr()
    assert "Traceback" not in said.err
    return status, said.out, said.err


def answered(capsys, *words):
    """The output of a run that ends well."""
    status, out, _ = run(capsys, *words)
    assert status == 0
    return out


def refused(capsys, *words):
    """The errors of a run that ends with status 1."""
    status, _, err = run(capsys, *words)
    assert status == 1
    return err
