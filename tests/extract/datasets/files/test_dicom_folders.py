"""Folders of DICOM files as data sets: what is said of them, which are taken, what the key has."""

from pathlib import Path

import numpy as np
import pytest
from making_dicom import write_dicom
from PIL import Image

from extract.datasets.files.folders import list_folder
from extract.datasets.files.images import FileImages, Reading, open_files

RAMP = (np.arange(8 * 512) % 4096).astype(np.uint16).reshape(64, 64)  # all of 12 bit
WINDOW = {"WindowCenter": 2000, "WindowWidth": 3000}


def open_folder(root: Path, **reading: object) -> FileImages:
    return open_files(list_folder(root), Reading(**reading), root.parent / "index")


def fill(root: Path, suffix: str, *tags: dict) -> Path:
    """A folder of two classes with DICOM files of 12 bit, the tags in turn."""
    for i in range(4):
        (root / "ab"[i % 2]).mkdir(parents=True, exist_ok=True)
        path = root / "ab"[i % 2] / f"{i}{suffix}"
        write_dicom(path, RAMP, **{"BitsStored": 12, **tags[i // 2 % len(tags)]})
    return root


@pytest.mark.parametrize(
    ("tags", "window", "count"),
    [
        ([{}], None, 0),
        ([WINDOW], None, 4),
        ([WINDOW, {}], None, 2),
        ([WINDOW], "0,4095", 0),
        ([WINDOW], "full", 0),
    ],
)
def test_header_windows_are_counted_where_they_are_used(tmp_path, tags, window, count):
    notes = open_folder(fill(tmp_path / "scans", ".dcm", *tags), window=window).notes
    said = [note for note in notes if "windows of their own headers" in note]
    assert [note.split(" are")[0] for note in said] == [f"{count} of 4 files"] * bool(count)


@pytest.mark.parametrize(
    ("pixels", "tags", "window", "said"),
    [
        (RAMP, {}, None, ""),  # fills what it has
        (RAMP // 8, {}, None, "only 511 of 4095; --window 0,511 would"),
        (RAMP // 8, {"RescaleIntercept": -1024, "RescaleSlope": 1}, None,
         "only -513 of 3071; --window -1024,-513 would"),
        (RAMP // 8, WINDOW, None, ""),
        (RAMP // 8, {}, "0,511", ""),
        (RAMP, {"BitsStored": 16}, None, "only 4095 of 65535; --window 0,4095 would"),
        (RAMP * 0, {}, None, ""),
    ],
)  # fmt: skip
def test_a_range_is_called_unused_where_it_is(tmp_path, pixels, tags, window, said):
    for name in ("a/1.dcm", "b/2.dcm"):
        (tmp_path / "scans" / name).parent.mkdir(parents=True)
        write_dicom(tmp_path / "scans" / name, pixels, **{"BitsStored": 12, **tags})
    notes = open_folder(tmp_path / "scans", window=window).notes
    found = [note for note in notes if "files reach" in note]
    assert len(found) == bool(said)
    assert not said or said in found[0]


def test_pictures_of_16_bit_that_use_12_are_told(tmp_path):
    for name in ("a/1.png", "b/2.png"):
        (tmp_path / "scans" / name).parent.mkdir(parents=True)
        Image.fromarray(RAMP).save(tmp_path / "scans" / name)
    notes = open_folder(tmp_path / "scans").notes
    assert any("reach only 4095 of 65535; --window 0,4095 would" in note for note in notes)


@pytest.mark.parametrize("name", ["IM{:06d}", "1.2.840.113619.2.5.{}", "I.{:03d}"])
@pytest.mark.parametrize("headless", [False, True])
def test_dicom_without_an_ending_is_taken(tmp_path, name, headless):
    root = tmp_path / "scans"
    for i in range(4):
        path = root / "ab"[i % 2] / "study" / name.format(i)
        path.parent.mkdir(parents=True, exist_ok=True)
        data = write_dicom(path, RAMP, BitsStored=12).read_bytes()
        path.write_bytes(data[132:] if headless else data)
    for other in ("DICOMDIR", "README", "3.1", "x.json", "4.bak", "empty"):  # DICOM, but for README
        (root / "a" / other).write_bytes((root / "a/study" / name.format(0)).read_bytes())
    for other in ("README", "3.1", "empty"):
        (root / "a" / other).write_bytes(b"no DICOM" * (other != "empty"))
    images = open_folder(root)
    assert sorted(images.listing.ids) == sorted(
        f"{'ab'[i % 2]}/study/{name.format(i)}" for i in range(4)
    )
    assert images.n_rows == 4
    assert any(note.startswith("passed over: ") for note in images.notes)


def test_only_files_that_were_read_wrongly_have_another_key(tmp_path):
    right = open_folder(fill(tmp_path / "right", ".dcm", {}))
    assert right.key == {"decoder": 1, "window": "as each file says", "skipped": 0}
    shifted = fill(tmp_path / "shifted", ".dcm", {})
    write_dicom(shifted / "a" / "0.dcm", RAMP << 4, BitsStored=12, HighBit=15)
    assert open_folder(shifted).key["decoder"] == 2
