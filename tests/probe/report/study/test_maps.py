"""Maps on a study's page."""

import re

import numpy as np
import pytest
from mapping import N_TEST, make_shown
from overlapping import TASK
from studying import HOSTILE

from probe.report.findings.headline import Record
from probe.report.formats.cells import Page
from probe.report.maps.sheet import Cell, Key, Layer, Maps, Sheet
from probe.report.rows.contenders import contenders_of
from probe.report.rows.ledger import read_ledger
from probe.report.rows.people import People
from probe.report.rows.stored import read_stored
from probe.report.study.document import _maps
from probe.report.study.make import Studied, make_study
from probe.report.study.maps import MOST_IMAGES, encoded, maps_of
from probe.report.study.parts import MapSheet


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    return make_shown(tmp_path_factory.mktemp("shown"))


@pytest.fixture(scope="module")
def rows(shown):
    return read_stored(shown.results, [shown.row])[0]


@pytest.fixture(scope="module")
def blocks(shown, rows):
    return list(maps_of(rows, People(shown.features)))


def test_a_page_of_masks_alone_has_them(shown, rows):
    people = People(shown.features)
    record = Record(rows, read_ledger(shown.results, rows))
    study = make_study(Studied(rows, contenders_of(rows), people, record, "dice"))
    sections = {section.name: section for section in study.sections}
    assert len(sections["maps"].blocks) == 2
    card = sections["data"].blocks[0]
    assert isinstance(card, Page)
    (table,) = card.tables
    assert [row[0].text for row in table.rows][:3] == [*TASK.class_names]
    test = shown.shapes.masks[-N_TEST:]
    place = [column.name for column in table.columns].index("test")
    assert table.rows[2][place].value == sum((mask == 2).any() for mask in test)


def test_each_token_file_has_a_sheet_and_one_of_the_worst_masks(blocks):
    assert [type(block) for block in blocks] == [MapSheet, MapSheet]
    first, worst = blocks
    assert first.title == "toy at 32 px on shapes"
    assert [
        column.title for column in first.sheet.columns
    ] == "image PCA true predicted errors".split()
    assert "smallest Dice" in worst.title
    said = [lines[1] for lines in worst.sheet.names]
    assert said == sorted(said)
    assert len(said) == min(N_TEST, MOST_IMAGES)


def test_its_pictures_lie_in_the_page_and_their_bytes_are_told(blocks):
    html = "\n".join(_maps(blocks[0]))
    pictures = re.findall(r'src="data:image/(?:png|jpeg);base64,([^"]+)"', html)
    assert len(pictures) == 5 * N_TEST
    n_bytes = sum(len(text) * 3 // 4 for text in pictures)
    told = float(re.search(r"([\d.]+) MB together", html)[1])  # type: ignore[index]
    assert told == pytest.approx(n_bytes / 1e6, rel=0.1)
    assert html.count('alt="errors of ') == N_TEST


def test_a_map_is_stored_as_what_is_smaller():
    rng = np.random.default_rng(0)
    flat = rng.integers(0, 255, (4, 4, 4)).astype(np.uint8)
    noise = rng.integers(0, 255, (224, 224, 4)).astype(np.uint8)
    for levels, kind in ((flat, "image/png"), (noise, "image/jpeg")):
        levels[..., 3] = 255
        assert encoded(Cell((Layer(levels),)))[1] == kind


def test_names_are_no_html():
    cell = Cell((), HOSTILE[0])
    column = Maps(HOSTILE[1], HOSTILE[0], (HOSTILE[1],), (cell,))
    sheet = Sheet(((HOSTILE[0], HOSTILE[1]),), (column,), (Key("masks", "#000000", HOSTILE[0]),), HOSTILE[1], HOSTILE[:2])  # fmt: skip
    html = "\n".join(_maps(MapSheet(HOSTILE[0], sheet)))
    assert "<script" not in html
    assert "<img src=x" not in html
