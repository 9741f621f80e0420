"""`report table`: flags that nothing would come of are usage errors, whatever page is asked for."""

import pytest
from answering import make_row

from probe.report.cli import main
from probe.report.commands.table import READS
from probe.results import write_row

PAGES = {
    "rows": "",
    "metric": "--metric auc",
    "subgroups": "--by meta:site",
    "like": "--like wu2025:results1",
    "published": "--published",
}
VALUES = {
    "columns": "auc", "sort": "auc", "metric": "acc", "by": "model", "across": "size",
    "family": "table", "level": "0.1", "no_tests": "", "question": "a>b", "sensitivity": "0.9",
    "like": "wu2025:results1", "published": "",
}  # fmt: skip
# A page that --by, --metric, --like or --published would make another is none that ignores them.
DECIDE = {"metric", "by", "like", "published"}
UNREAD = [
    (page, name)
    for page in PAGES
    for name in VALUES
    if name not in READS[page] and (name not in DECIDE or (page, name) == ("like", "metric"))
]


@pytest.mark.parametrize(("page", "name"), UNREAD)
def test_a_flag_that_a_page_does_not_read_is_refused(tmp_path, capsys, page, name):
    write_row(tmp_path, make_row())
    flag = f"--{name.replace('_', '-')}"
    words = f"--results {tmp_path} {PAGES[page]} {flag} {VALUES[name]}".split()
    with pytest.raises(SystemExit) as end:
        main(["table", *words])
    assert end.value.code == 2
    assert f"report table: {flag} belongs to " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--by model", "--by belongs to a table of one metric"),
        ("--metric auc --no-tests --level 0.1", "--level is of the tests that --no-tests leaves"),
        ("--metric auc --level 2", "--level lies between 0 and 1"),
    ],
)
def test_flags_that_do_not_go_together_are_refused(tmp_path, capsys, words, said):
    with pytest.raises(SystemExit) as end:
        main(["table", "--results", str(tmp_path), *words.split()])
    assert end.value.code == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("flag", ["metric", "by", "sort", "across", "question", "like", "columns"])
def test_an_empty_word_never_means_the_usual(tmp_path, capsys, flag):
    """An unset variable of a shell must not come to mean "all"."""
    write_row(tmp_path, make_row())
    more = [] if flag in ("metric", "sort", "like", "columns") else ["--metric", "auc"]
    assert main(["table", "--results", str(tmp_path), *more, f"--{flag}="]) == 1
    assert capsys.readouterr().err.startswith("report table: ")
