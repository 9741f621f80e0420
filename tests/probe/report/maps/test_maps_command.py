"""``report maps``."""

import pytest
from mapping import make_shown

from probe.report.cli import main

pytest.importorskip("matplotlib")


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    return make_shown(tmp_path_factory.mktemp("shown"))


def words(shown, *more):
    places = ("--features", str(shown.features), "--results", str(shown.results))
    return ["maps", *places, "--data", "shapes", *map(str, more)]


@pytest.mark.parametrize(
    ("form", "magic"), [("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF")]
)
def test_a_picture_is_written_the_same_each_time(shown, tmp_path, capsys, form, magic):
    path = tmp_path / f"maps.{form}"
    more = ("--what", "pca,kmeans,norm,overlay", "--images", "wrong:2", "-o", path)
    assert main(words(shown, *more)) == 0
    assert "2 images, 7 columns" in capsys.readouterr().out
    first = path.read_bytes()
    assert first.startswith(magic)
    assert main(words(shown, *more)) == 0
    assert path.read_bytes() == first


@pytest.mark.parametrize(
    ("more", "status", "told"),
    [
        ((), 2, "name a file"),
        (("-o", "maps.gif"), 2, "ends in"),
        (("-o", "maps.png", "--what", "cosine"), 2, "--patch ID:ROW,COLUMN"),
        (("-o", "maps.png", "--what", "pca", "--patch", "a:1,1"), 2, "belongs to --what cosine"),
        (("-o", "maps.png", "--patch", "a:1"), 2, "takes ID:ROW,COLUMN"),
        (("-o", "maps.png", "--images", "random:99"), 2, "48 images at most"),
        (("-o", "maps.png", "--threshold", "high"), 2, "otsu, zero, none"),
        (("-o", "maps.png", "--layer", "last"), 2, "--layer takes numbers"),
        (("-o", "maps.png", "--width", "60", "--layer", "5,11"), 1, "columns don't fit 60 mm"),
        (("-o", "maps.png", "--row", "gone.json"), 1, "gone.json"),
    ],
)
def test_what_is_refused(shown, tmp_path, monkeypatch, capsys, more, status, told):
    monkeypatch.chdir(tmp_path)
    assert status_of(words(shown, *more)) == status
    assert told in capsys.readouterr().err
    assert not [*tmp_path.iterdir()]


def status_of(arguments):
    try:
        return main(arguments)
    except SystemExit as error:
        return error.code


def test_a_file_by_path_and_one_that_holds_no_tokens(shown, tmp_path, capsys):
    results = ("--results", str(shown.results), "-o", str(tmp_path / "maps.png"))
    assert main(["maps", str(shown.path), *results]) == 0
    assert status_of(["maps", str(shown.path), "--data", "shapes", *results]) == 2
    assert main(["maps", str(shown.masks), *results]) == 1
