"""The index of rows: with it, without it, damaged or late, the same is read."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys

import pytest
from answering import make_earlier, make_row, scores_file

from probe.report.rows import index
from probe.report.rows.index import DAMAGED, INDEX, MISSING
from probe.report.rows.stored import Wanted, read_stored, stored_files
from probe.results import delete_row, read_row, write_row

DATASETS = ("toys", "a:b/c", "a b c", "é")  # whose folders are toys, a-b-c twice, and unnamed


@pytest.fixture
def results(tmp_path):
    for number, dataset in enumerate(DATASETS):
        for seed in (2 * number, 2 * number + 1):
            write_row(tmp_path, make_row(dataset=dataset, seed=seed), f"tag {seed}")
    return tmp_path


def said(root):
    """Everything that is read, but for where it was remembered."""
    rows, problems = read_stored(root, stored_files(root))
    return (
        [(of.path, of.content, of.lacking, of.written, of.row.digest) for of in rows],
        [(problem.path, problem.why) for problem in problems],
    )


def without_index(root):
    shutil.rmtree(root / INDEX, ignore_errors=True)
    return said(root)


def count_reads(monkeypatch):
    """The files whose JSON is parsed from here on."""
    read = []
    monkeypatch.setattr(index, "read_row", lambda path: (read.append(path.name), read_row(path))[1])
    return read


def first_of(root):
    return stored_files(root)[0]


def edit(root):
    path = first_of(root)
    path.write_text(path.read_text().replace('"seconds": 0.1', '"seconds": 9.1'))


def edit_in_place_with_the_same_size_and_time(root):
    path = first_of(root)
    found = path.stat()
    with path.open("r+b") as file:
        at = file.read().index(b'"seconds": 0.1')
        file.seek(at)
        file.write(b'"seconds": 0.2')
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))


def replace(root):
    row = make_row(dataset="toys", seed=0, auc=0.99)
    write_row(root, dataclasses.replace(row, seconds=7.0), "another tag")


def damage_scores(root):
    path = scores_file(first_of(root))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    os.utime(path, (1e9, 1e9))


def swap(root):
    one, other, *_ = stored_files(root)
    text = one.read_text()
    one.write_text(other.read_text())
    other.write_text(text)


CHANGES = {
    "nothing": lambda root: None,
    "a row is new": lambda root: write_row(root, make_row("knn", dataset="toys")),
    "a data set is new": lambda root: write_row(root, make_row(dataset="new")),
    "a row is deleted": lambda root: delete_row(first_of(root), read_row(first_of(root))),
    "a file is deleted": lambda root: first_of(root).unlink(),
    "a folder is deleted": lambda root: shutil.rmtree(first_of(root).parent),
    "a row is replaced": replace,
    "a row is edited": edit,
    "a row is edited in secret": edit_in_place_with_the_same_size_and_time,
    "two rows change places": swap,
    "a row is renamed": lambda root: first_of(root).rename(first_of(root).with_name("x.json")),
    "a row is emptied": lambda root: first_of(root).write_text(""),
    "a row becomes an earlier one": lambda root: make_earlier(first_of(root)),
    "scores are deleted": lambda root: scores_file(first_of(root)).unlink(),
    "scores are damaged": damage_scores,
    "scores are emptied": lambda root: scores_file(first_of(root)).write_bytes(b""),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_what_changed_is_read_anew(results, change):
    before = said(results)
    assert len(before[0]) == 8
    change(results)
    found = said(results)
    assert found == said(results) == without_index(results)
    assert (found == before) == (change is CHANGES["nothing"])


def test_what_is_as_it_was_is_not_read(results, monkeypatch):
    said(results)
    read = count_reads(monkeypatch)
    checked = []
    monkeypatch.setattr(index, "check_scores", lambda path, row: checked.append(path))
    said(results)
    assert (read, checked) == ([], [])
    replace(results)
    said(results)
    assert len(read) == len(checked) == 1


def test_scores_that_come_back_are_whole_again(results):
    path = first_of(results)
    scores = scores_file(path)
    data = scores.read_bytes()
    scores.unlink()
    assert said(results)[1][0][1].endswith(MISSING)
    scores.write_bytes(b"other")
    assert said(results)[1][0][1].endswith(DAMAGED)
    scores.write_bytes(data)
    assert said(results)[1] == []


def cut(path):
    path.write_bytes(path.read_bytes()[:-10])


def forge(path):
    """Another value, as somebody would type it."""
    path.write_bytes(path.read_bytes().replace(b'"value": 0.7', b'"value": 0.9'))


def empty_entries(path):
    """Whole, but of another shape than ours."""
    from cache.checked_json import read_checked, write_checked

    write_checked(path, dict.fromkeys(read_checked(path), 7))


@pytest.mark.parametrize(
    "harm", [cut, forge, empty_entries, lambda path: path.write_bytes(b""), lambda p: p.unlink()]
)
def test_an_index_that_is_damaged_costs_time_alone(results, harm):
    wanted = said(results)
    for path in (results / INDEX).iterdir():
        harm(path)
    assert said(results) == wanted
    assert said(results) == wanted


def test_an_index_that_cannot_be_written_costs_time_alone(results):
    (results / INDEX).write_text("in the way")
    assert len(said(results)[0]) == 8
    assert said(results) == said(results)
    assert (results / INDEX).read_text() == "in the way"


@pytest.mark.posix
@pytest.mark.skipif(os.name == "posix" and os.geteuid() == 0, reason="root writes anywhere")
def test_a_folder_that_cannot_be_written_is_read(results):
    results.chmod(0o500)
    try:
        assert len(said(results)[0]) == 8
    finally:
        results.chmod(0o700)


def test_a_part_keeps_what_is_known_of_the_rest(results, monkeypatch):
    said(results)
    path = first_of(results)
    os.utime(path)
    read_stored(results, [path])
    read = count_reads(monkeypatch)
    said(results)
    assert read == []


def test_choosing_rows_remembers_all(results, monkeypatch):
    read_stored(results, stored_files(results), Wanted(datasets=["toys"]))
    read = count_reads(monkeypatch)
    assert len(said(results)[0]) == 8
    assert read == []


def test_the_index_forgets_what_is_gone(results):
    said(results)
    path = first_of(results)
    place = results / INDEX / f"{path.parent.name}.rows"
    assert path.name in place.read_text()
    path.unlink()
    said(results)
    assert path.name not in place.read_text()


def test_a_row_named_from_elsewhere_is_read_without_it(results, tmp_path):
    elsewhere = tmp_path / "one" / "row.json"
    elsewhere.parent.mkdir()
    shutil.copy(first_of(results), elsewhere)
    rows, problems = read_stored(results / "toys", [elsewhere])
    assert len(rows) == 1
    assert problems[0].why.endswith(MISSING)
    assert not (results / "toys" / INDEX).exists()


def test_two_processes_read_at_once(results):
    for seed in range(40):
        write_row(results, make_row("knn", dataset="toys", seed=seed))
    code = (
        "import sys, pathlib\n"
        "from probe.report.rows.stored import read_stored, stored_files\n"
        "root = pathlib.Path(sys.argv[1])\n"
        "for number in range(5):\n"
        "    rows, problems = read_stored(root, stored_files(root))\n"
        "    assert not problems and len(rows) == 48, (len(rows), problems)\n"
        "    (root / '.index' / 'toys.rows').unlink(missing_ok=True)\n"
    )
    words = [sys.executable, "-W", "error", "-c", code, str(results)]
    started = [subprocess.Popen(words) for _ in range(2)]
    assert [process.wait() for process in started] == [0, 0]
    assert said(results) == without_index(results)


def test_whatever_a_row_holds_is_remembered_as_it_is(results):
    row = make_row(dataset="toys", k=[1, 2.5, None, True, {"é\u2028": '\\ " \n'}])
    path = write_row(results, row)
    first, again = said(results), said(results)
    assert first == again
    (content,) = [content for place, content, *_ in again[0] if place == path]
    assert content == read_row(path)
    assert json.dumps(content)


def test_another_medprobe_reads_anew_what_it_adds_fields_to(results, monkeypatch):
    before = said(results)
    read = count_reads(monkeypatch)
    monkeypatch.setattr(index, "READER", "of a later version")
    assert said(results) == before
    assert len(read) == len(before[0])


def test_an_error_of_the_moment_is_not_remembered(results, monkeypatch):
    def fail(path, row):
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(index, "check_scores", fail)
    assert all("Too many open files" in why for _, why in said(results)[1])
    monkeypatch.undo()
    assert said(results)[1] == []
