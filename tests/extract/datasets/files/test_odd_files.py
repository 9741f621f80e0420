"""What stands under a name of ours but is no file: a pipe, a link in circles, a folder nobody may write."""

import errno
import os
import signal

import numpy as np
import pytest
from answering import make_row, scores_file
from features import make_spec, write_file
from reading import rows_printed

import cache.cli
import extract.cli
import probe.cli
from cache.errors import RequestError
from cache.format.read import read_header
from cache.labels.tables import read_csv
from cache.store import FeatureWriter
from probe.results import write_row

pytestmark = pytest.mark.posix


@pytest.fixture(autouse=True)
def no_hanging():
    """Whoever waits for a pipe would wait for ever."""

    def fail(*unused):
        raise TimeoutError("it hangs")

    before = signal.signal(signal.SIGALRM, fail)
    signal.alarm(300)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


ODD = {
    "pipe": lambda path: os.mkfifo(path),
    "loop": lambda path: path.symlink_to(path),
    "device": lambda path: path.symlink_to("/dev/zero"),
    "nowhere": lambda path: path.symlink_to("nowhere"),
    "folder": lambda path: path.mkdir(),
}


def said(capsys, main, *words):
    status = main([str(word) for word in words])
    found = capsys.readouterr()
    return status, found.out, found.err


@pytest.mark.parametrize("kind", ODD)
def test_a_feature_file_that_is_none(tmp_path, capsys, kind):
    write_file(tmp_path / "f" / "toys" / "whole.h5", make_spec(120))
    odd = tmp_path / "f" / "toys" / "odd.h5"
    ODD[kind](odd)
    places = ["--features", tmp_path / "f"]
    asked = ["--kind", "knn", "--k", "3", "--results", tmp_path / "r", "--resamples", "5"]
    status, out, err = said(capsys, cache.cli.main, "ls", *places)
    assert (status, "complete" in out, len(err.splitlines())) == (1, True, 1)
    status, out, err = said(capsys, cache.cli.main, "verify", *places)
    assert (status, "all 1 units right" in out, len(err.splitlines())) == (1, True, 1)
    assert f"{odd} is not a regular file; delete or rename it" in err
    status, _, err = said(capsys, cache.cli.main, "verify", odd)
    assert (status, "not a regular file; delete or rename it" in err) == (1, True)
    status, out, err = said(capsys, probe.cli.main, *asked, *places)
    assert (status, "1 row with scores" in out, "odd.h5" in err) == (1, True, True)
    status, out, err = said(capsys, probe.cli.main, *asked, tmp_path / "f/toys/whole.h5", odd)
    assert (status, "1 row with scores" in out, "odd.h5" in err) == (1, True, True)
    for words in (["show", odd], ["rm", "--yes", odd], ["export", odd, "-o", tmp_path / "o.h5"]):
        status, _, err = said(capsys, cache.cli.main, *words)
        assert (status, len(err.splitlines())) == (1, 1)
    whole = tmp_path / "f/toys/whole.h5"
    status, _, err = said(capsys, cache.cli.main, "export", whole, "-o", odd, "--overwrite")
    assert status == (1 if kind == "folder" else 0)  # what stands there is replaced, not followed


@pytest.mark.parametrize("kind", ODD)
def test_a_row_its_scores_or_a_table_that_is_none(tmp_path, capsys, kind):
    row = write_row(tmp_path, make_row())
    ODD[kind](row.parent / "odd.json")
    status, out, err = said(capsys, probe.cli.main, "table", "--results", tmp_path)
    assert (status, len(rows_printed(out)), len(err.splitlines())) == (1, 1, 1)
    assert "odd.json: not a regular file; delete it, or move it elsewhere" in err
    scores_file(row).unlink()
    ODD[kind](row.with_suffix(".npz"))
    if kind != "folder":
        write_row(tmp_path, make_row())
        assert scores_file(row).is_file()  # the odd one gave way
    ODD[kind](tmp_path / "odd.csv")
    with pytest.raises(RequestError, match=r"odd\.csv is not a regular file; expected"):
        read_csv(tmp_path / "odd.csv")


@pytest.mark.parametrize("kind", [kind for kind in ODD if kind != "folder"])
def test_what_is_only_remembered_is_found_again(tmp_path, monkeypatch, kind, write_npz):
    """Digests, facts of files and leaks beside the features: losing them costs time alone."""
    data = write_npz(tmp_path / "x.npz", counts=(6, 3, 3), side=32)
    words = "--model test_vit --weights random --size 32 --device cpu --store float16".split()
    words += ["--data", f"npz:{data}", "--features", str(tmp_path / "f")]
    (tmp_path / "f").mkdir()
    ODD[kind](tmp_path / "f" / ".digests.json")
    assert extract.cli.main(words) == 0
    assert (tmp_path / "f" / ".digests.json").is_file()
    (leaks,) = (tmp_path / "f" / "x" / ".leaks").glob("*.npz")
    leaks.unlink()
    ODD[kind](leaks)
    (path,) = (tmp_path / "f").glob("*/*.h5")
    words = ["--kind", "knn", "--k", "1", str(path), "--resamples", "5"]
    assert probe.cli.main([*words, "--results", str(tmp_path / "r")]) == 0
    assert leaks.is_file()
    assert not leaks.is_symlink()


def no_writing(monkeypatch):
    """As in a folder that is mounted read-only; chmod doesn't keep root out."""

    def refuse(self, *args, **how):
        raise OSError(errno.EROFS, "Read-only file system", self.lock_file)

    monkeypatch.setattr("cache.locks.FileLock.acquire", refuse)


def test_a_complete_file_in_a_folder_that_cannot_be_written_is_complete(tmp_path, monkeypatch):
    spec = make_spec()
    path = write_file(tmp_path / "toys" / "x.h5", spec)
    no_writing(monkeypatch)
    with FeatureWriter(path, spec) as writer:
        assert (writer.was_complete, writer.todo, writer.finish({})) == (True, [], True)


@pytest.mark.parametrize(
    "why", ["nothing there", "unfinished", "damaged", "relabelled", "overwrite"]
)
def test_what_must_be_written_there_is_one_line(tmp_path, monkeypatch, why):
    spec = make_spec()
    path = tmp_path / "toys" / "x.h5"
    if why == "unfinished":
        with FeatureWriter(path, spec):
            pass
    elif why != "nothing there":
        write_file(path, spec)
    if why == "damaged":
        with path.open("r+b") as file:
            file.seek(read_header(path).arrays["head"].offset)
            file.write(bytes(6))
    if why == "relabelled":
        spec = make_spec(labels=np.arange(700) % 2)
    no_writing(monkeypatch)
    with pytest.raises(RequestError, match=r"can't write to .*toys \(Read-only.*--features DIR"):
        FeatureWriter(path, spec, overwrite=why == "overwrite")
