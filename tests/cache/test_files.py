"""Files are written whole, by every writer through one door, and the dead leave nothing behind."""

import ast
import multiprocessing
import os
import signal
import threading
import time

import pytest
from here import REPOSITORY

from cache import files
from cache.errors import RequestError
from cache.files import NewFile, append, locked, open_no_link, work_folder, write_asked, write_whole


def write(path, content=b"new", **how):
    with write_whole(path, **how) as file:
        file.write(content)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_what_is_written_takes_the_place_of_what_was_there(tmp_path):
    path = tmp_path / "x.json"
    path.write_bytes(b"old, and longer")
    write(path)
    assert path.read_bytes() == b"new"
    assert names(tmp_path) == ["x.json"]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_after_an_error_the_old_file_stands_alone(tmp_path, error):
    path = tmp_path / "x.json"
    path.write_bytes(b"old")

    def fail():
        with write_whole(path) as file:
            file.write(b"half")
            raise error

    with pytest.raises(type(error)):
        fail()
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["x.json"]


def test_what_may_not_be_replaced_is_not(tmp_path):
    path = tmp_path / "x.png"
    write(path, overwrite=False)
    with pytest.raises(FileExistsError):
        write(path, b"other", overwrite=False)
    assert path.read_bytes() == b"new"
    assert names(tmp_path) == ["x.png"]


def test_of_a_disk_that_fails_no_empty_file_is_left(tmp_path, monkeypatch):
    def fail(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", fail)
    with pytest.raises(OSError, match="No space"):
        write(tmp_path / "x.png", overwrite=False)
    assert names(tmp_path) == []


@pytest.mark.posix
@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: path.symlink_to(os.devnull)])
def test_what_is_no_file_is_not_replaced(tmp_path, make):
    path = tmp_path / "x.csv"
    make(path)
    with (
        pytest.raises(RequestError, match=r"can't write .*x\.csv: not a regular file"),
        write_asked(path),
    ):
        pass
    assert not path.is_file()
    assert names(tmp_path) == ["x.csv"]


@pytest.mark.posix
def test_what_the_process_has_open_is_not_replaced(tmp_path):
    with (tmp_path / "log").open("w") as log:
        path = tmp_path / "stdout"
        path.symlink_to(f"/proc/self/fd/{log.fileno()}")
        with pytest.raises(RequestError, match="not a regular file"), write_asked(path):
            pass
    assert path.is_symlink()


@pytest.mark.posix
def test_a_link_is_replaced_and_never_written_through(tmp_path, monkeypatch):
    """Neither where the file will be, nor where it is made, nor where lines are added."""
    precious = tmp_path / "precious"
    precious.write_bytes(b"mine")
    folder = tmp_path / "results"
    folder.mkdir()
    (folder / "x.json").symlink_to(precious)
    # The names of earlier versions, which anybody could guess.
    for number in (1, os.getpid()):
        (folder / f".y.json.{number}").symlink_to(precious)
    # Even where chance gives the name of a link, which it doesn't.
    tokens = iter(["0" * 16, "1" * 16])
    (folder / f".y.json.{'0' * 16}.medprobe").symlink_to(precious)
    write(folder / "x.json")
    monkeypatch.setattr(files.secrets, "token_hex", lambda n: next(tokens))
    with pytest.raises(FileExistsError):
        write(folder / "y.json")
    write(folder / "y.json")
    (folder / "log.jsonl").symlink_to(precious)
    with pytest.raises(OSError, match="log.jsonl"):
        append(folder / "log.jsonl", "line\n")
    with pytest.raises(OSError, match="log.jsonl"):
        open_no_link(folder / "log.jsonl", "wb")
    assert precious.read_bytes() == b"mine"
    assert not (folder / "x.json").is_symlink()
    assert (folder / "y.json").read_bytes() == b"new"


def half_write(folder, ready):
    """A writer that gets no further."""
    new = NewFile(folder / "x.json")
    new.file.write(b"half")
    new.file.flush()
    with work_folder(folder / "y.h5") as made:
        (made / "y.h5").write_bytes(b"half")
        ready.set()
        time.sleep(600)


@pytest.mark.posix
def test_what_a_kill_leaves_is_deleted_by_the_next_writer_and_no_sooner(tmp_path):
    spawn = multiprocessing.get_context("spawn")
    ready = spawn.Event()
    writer = spawn.Process(target=half_write, args=(tmp_path, ready))
    writer.start()
    assert ready.wait(120)
    foreign = [".x.json.1234", ".y.h5.0123456789abcdef", ".0123456789abcdef.medprobe.txt"]
    for name in foreign:
        (tmp_path / name).touch()
    (tmp_path / ".z.0123456789abcdef.medprobe").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / ".f.0123456789abcdef.medprobe")
    before = names(tmp_path)
    assert len([name for name in before if name.endswith(".medprobe")]) == 4
    write(tmp_path / "other.json")
    assert names(tmp_path) == sorted([*before, "other.json"])  # its writer lives
    os.kill(writer.pid, signal.SIGKILL)
    writer.join()
    write(tmp_path / "other.json")
    links = [".z.0123456789abcdef.medprobe", ".f.0123456789abcdef.medprobe"]
    assert names(tmp_path) == sorted([*foreign, *links, "other.json"])


def test_swept_between_making_and_locking(tmp_path, monkeypatch):
    """Another writer may take a file, or folder, that isn't locked yet for a leftover."""
    take, swept = files._take_lock, []

    def take_late(descriptor, **how):
        if len(swept) in (0, 2):
            for path in tmp_path.glob(".*.medprobe"):
                path.rmdir() if path.is_dir() else path.unlink()
        swept.append(descriptor)
        return take(descriptor, **how)

    monkeypatch.setattr(files, "_take_lock", take_late)
    write(tmp_path / "x.json")
    with work_folder(tmp_path / "y.h5") as folder:
        (folder / "y.h5").touch()
    assert len(swept) == 4
    assert names(tmp_path) == ["x.json"]


def test_swept_while_it_waits_for_its_lock(tmp_path, monkeypatch):
    """The other writer has the lock already, and deletes a moment later."""
    hold, sweepers = files._hold, []

    def sweep(path, descriptor):
        time.sleep(0.1)
        path.unlink()
        os.close(descriptor)

    def hold_late(descriptor, path):
        if not sweepers:
            others = os.open(path, os.O_RDONLY)
            assert files._take_lock(others)
            sweepers.append(threading.Thread(target=sweep, args=(path, others)))
            sweepers[0].start()
        return hold(descriptor, path)

    monkeypatch.setattr(files, "_hold", hold_late)
    write(tmp_path / "x.json")
    sweepers[0].join()
    assert names(tmp_path) == ["x.json"]


def add_one(path, n):
    for _ in range(n):
        with locked(path.parent):
            write(path, str(int(path.read_text()) + 1).encode())


def test_a_locked_folder_is_changed_by_one_at_a_time(tmp_path):
    path = tmp_path / "count"
    path.write_text("0")
    fork = multiprocessing.get_context("fork")
    writers = [fork.Process(target=add_one, args=(path, 50)) for _ in range(2)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert path.read_text() == "100"


def test_the_longest_name_has_a_temporary_one(tmp_path):
    path = tmp_path / ("ä" * 125 + ".json")  # 255 bytes
    write(path)
    assert names(tmp_path) == [path.name]


# What the feature file is made of: written in place, under locks of its own.
IN_PLACE = {
    "cache/format/create.py",
    "cache/locks.py",
    "cache/store.py",
    "cache/files.py",
    "cache/commands/terminal.py",
}
CALLS = {"write_text", "write_bytes", "rename", "touch", "mkstemp", "NamedTemporaryFile", "getpid"}


def test_every_file_is_written_through_this_door():
    """No module opens a file for writing, or names one by the number of its process, by itself."""
    found, n_modules = [], 0
    for package in ("cache", "extract", "probe", "finetune"):
        for path in sorted((REPOSITORY / package).rglob("*.py")):
            name = path.relative_to(REPOSITORY).as_posix()
            n_modules += 1
            if name not in IN_PLACE:
                tree = ast.parse(path.read_text())
                found += [f"{name}: {call}" for call in filter(None, map(writing, ast.walk(tree)))]
    assert n_modules > 150
    assert found == []


def writing(node):
    """How a node writes a file by itself, if it does."""
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name | ast.Attribute):
        return None
    of_module = isinstance(node.func, ast.Attribute)
    name = node.func.attr if of_module else node.func.id
    words = [a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str)]
    if name == "open" and any(set(word) & set("wax+") and len(word) < 4 for word in words):
        return ast.unparse(node)
    if name in CALLS:
        return ast.unparse(node)
    if name == "replace" and of_module and len(node.args) == 1 and not node.keywords:
        return ast.unparse(node)  # Path.replace; of texts it has two arguments
    return None


def test_the_look_for_writers_finds_them():
    for text in ["p.open('w')", "open(p, 'ab')", "p.write_text(t)", "p.replace(q)", "os.getpid()"]:
        assert writing(ast.parse(text).body[0].value), text
    for text in ["p.open('rb')", "t.replace('a', 'b')", "dataclasses.replace(a, b=1)"]:
        assert not writing(ast.parse(text).body[0].value), text
