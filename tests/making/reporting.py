"""The command `report`, run in this process."""

from probe.report.cli import main


def run(capsys, *words):
    """Status, output and errors of ``report`` with these words."""
    status = main([str(word) for word in words])
    said = capsys.readouterr()
    assert "Traceback" not in said.err
    return status, said.out, said.err


def answered(capsys, *words):
    """The output of a run without a complaint."""
    status, out, err = run(capsys, *words)
    assert (status, err) == (0, "")
    return out


def refused(capsys, *words):
    """The errors of a run that ends with status 1."""
    status, _, err = run(capsys, *words)
    assert status == 1
    return err
