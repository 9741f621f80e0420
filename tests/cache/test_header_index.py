"""The index of headers says what the files say, only faster, and is never believed when in doubt."""

import hashlib
import os
import shutil

import pytest
from features import make_spec, make_text_spec, make_token_spec, write_file, write_units

import cache.header_index
from cache.catalogue import Wish, find_features, list_files
from cache.cli import main
from cache.format.read import read_header
from cache.header_index import INDEX, NAME, HeaderIndex
from cache.store import FeatureWriter


@pytest.fixture
def root(tmp_path):
    """Two complete files, one of texts, and one that is begun."""
    folder = tmp_path / "features" / "toys"
    write_file(folder / "a.h5", make_spec())
    write_file(folder / "a_text.h5", make_text_spec(labels=[0, 1, 2]))
    with FeatureWriter(folder / "b.h5", make_spec(model="other")) as writer:
        write_units(writer, [0])
    return tmp_path / "features"


def read_all(root):
    index = HeaderIndex(root)
    found = {path.name: index.read_header(path) for path in list_files(root)}
    index.save()
    return found


def count_opened(monkeypatch):
    opened = []

    def noting(path):
        opened.append(path.name)
        return read_header(path)

    monkeypatch.setattr(cache.header_index, "read_header", noting)
    return opened


def test_remembered_headers_are_those_of_the_files(root, monkeypatch):
    first = read_all(root)
    opened = count_opened(monkeypatch)
    again = read_all(root)
    assert opened == ["b.h5.partial"]  # which changes while it is written
    assert sorted(again) == ["a.h5", "a_text.h5", "b.h5.partial"]
    for path in list_files(root):
        assert again[path.name] == first[path.name] == read_header(path)


def test_what_an_older_medprobe_does_not_know_is_not_remembered(root, monkeypatch):
    """It takes what it finds there, and would read tokens as pooled features."""
    write_file(root / "toys" / "a_8_tokens.h5", make_token_spec(20))
    read_all(root)
    assert "tokens" not in (root / INDEX / NAME).read_text()
    opened = count_opened(monkeypatch)
    read_all(root)
    assert opened == ["a_8_tokens.h5", "b.h5.partial"]


def replace(path):
    shutil.copy(path, path.with_suffix(".other"))
    path.with_suffix(".other").replace(path)


def touch(path):
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))


def damage_index(path):
    index = path.parents[1] / INDEX / NAME
    data = bytearray(index.read_bytes())
    data[len(data) // 2] ^= 1
    index.write_bytes(bytes(data))


def no_index(path):
    (path.parents[1] / INDEX / NAME).unlink()


@pytest.mark.parametrize("change", [replace, touch, damage_index, no_index])
def test_what_may_have_changed_is_read_again(root, monkeypatch, change):
    read_all(root)
    opened = count_opened(monkeypatch)
    change(root / "toys" / "a.h5")
    read_all(root)
    assert "a.h5" in opened
    opened.clear()
    read_all(root)
    assert "a.h5" not in opened


def test_a_damaged_file_is_named_every_time(root, capsys):
    path = root / "toys" / "a.h5"
    path.write_bytes(path.read_bytes()[:3000])
    for _ in range(2):
        assert main(["ls", "--features", str(root)]) == 1
        assert "a.h5" in capsys.readouterr().err


def test_lists_and_searches_open_only_what_they_need(root, monkeypatch, capsys):
    assert main(["ls", "--features", str(root)]) == 0
    first = capsys.readouterr().out
    opened = count_opened(monkeypatch)
    assert main(["ls", "--features", str(root)]) == 0
    assert capsys.readouterr().out == first
    (found,), _ = find_features(root, Wish())
    assert found.path.name == "a.h5"
    assert len(found.labels) == len(found.ids)
    assert set(opened) == {"b.h5.partial"}


@pytest.mark.parametrize("kept", ["[1]", "3", '{"toys/a.h5": 3}', '{"toys/a.h5": {}}'])
def test_an_index_of_something_else_is_as_good_as_none(root, kept):
    path = root / INDEX / NAME
    path.parent.mkdir()
    path.write_text(f"{hashlib.sha256(kept.encode()).hexdigest()}\n{kept}")
    assert sorted(read_all(root)) == ["a.h5", "a_text.h5", "b.h5.partial"]


def test_a_folder_that_cannot_be_written_is_listed_all_the_same(root, capsys):
    (root / INDEX).write_text("a file where the folder would be")
    assert main(["ls", "--features", str(root)]) == 0
    assert "a.h5" in capsys.readouterr().out
