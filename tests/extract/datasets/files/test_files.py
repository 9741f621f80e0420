"""Files of images as a data set: rows, digests, the check pass, decoding, labels that change."""

import dataclasses
import json
import os
import shutil
import time
import unicodedata
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from squaring import square

import extract.datasets.files.index as file_index
from cache import CacheError, RequestError, open_features
from cache.leak_memory import count_leaks
from extract.cli import main
from extract.datasets.dataset import PIECE_BYTES, as_stored
from extract.datasets.drawn import SplitWish
from extract.datasets.files.folders import list_folder
from extract.datasets.files.images import Reading, open_dataset, open_files
from extract.datasets.files.options import TableOptions
from extract.datasets.files.tables import list_table
from extract.datasets.looks import image_hash, thumbnail
from extract.datasets.sources import FileWishes, find_source
from extract.datasets.volumes import Slicing
from extract.encoders.encoder import Weights, describe, load_encoder
from extract.machine.workers import map_ordered
from extract.prepare.transforms import Transform

MODEL = ["--model", "test_vit", "--size", "32", "--weights", "random", "--workers", "0"]
N = 40


def picture(seed: int, height: int, width: int, colour: bool = False) -> np.ndarray:
    shape = (height, width, 3) if colour else (height, width)
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def save(path: Path, image: np.ndarray, old: bool = True) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)
    if old:  # as files usually are; new ones aren't remembered
        os.utime(path, (time.time() - 60,) * 2)
    return path


def shape_of(seed: int) -> tuple[int, int]:
    return 10 + seed * 7 % 23, 12 + seed * 5 % 31


@pytest.fixture
def folder(tmp_path):
    """Forty grey images of many sizes in two classes, with no split."""
    for seed in range(N):
        save(
            tmp_path / "scans" / "ab"[seed % 2] / f"{seed:03d}.png", picture(seed, *shape_of(seed))
        )
    return tmp_path / "scans"


def dataset_of(root: Path, index: Path | None = None, **reading: object):
    images = open_files(list_folder(root), Reading(**reading), index or root.parent / "index")
    return open_dataset(images)


def extract_to(root: Path, *arguments: str) -> Path:
    assert main([*MODEL, *arguments, "--features", str(root)]) == 0
    (path,) = root.rglob("*.h5")
    return path


# ---------------------------------------------------------------------------- rows


def test_every_row_is_its_file(folder):
    dataset = dataset_of(folder)
    assert dataset.n_rows == N
    assert (dataset.n_channels, dataset.source_size) == (1, None)
    (images,) = dataset.stream([(0, N)])
    for row, name in enumerate(dataset.row_ids):
        seed = int(Path(name).stem)
        np.testing.assert_array_equal(images[row], picture(seed, *shape_of(seed)))
        assert dataset.class_names[dataset.samples.labels[row]] == "ab"[seed % 2]
    assert np.bincount(dataset.samples.split).tolist() == [32, 4, 4]


def test_grey_among_colour_is_repeated(folder):
    save(folder / "a" / "900.png", picture(900, 9, 9, colour=True))
    dataset = dataset_of(folder)
    assert dataset.n_channels == 3
    (images,) = dataset.stream([(0, N + 1)])
    rows = dict(zip(dataset.row_ids, images, strict=True))
    np.testing.assert_array_equal(rows["a/900.png"], picture(900, 9, 9, colour=True))
    grey = picture(2, *shape_of(2))
    np.testing.assert_array_equal(rows["a/002.png"], np.stack([grey] * 3, axis=-1))
    assert any("40 grey files among 1 in colour" in note for note in dataset.notes)


def test_the_digest_is_of_contents_in_an_order_that_labels_and_folders_dont_decide(
    folder, tmp_path
):
    first = dataset_of(folder)
    moved = tmp_path / "elsewhere" / "scans"
    shutil.copytree(folder, moved)  # other times
    (moved / "a" / "004.png").rename(moved / "b" / "004.png")  # a corrected label
    second = dataset_of(moved, tmp_path / "index2")
    assert first.images_digest == second.images_digest
    assert [Path(i).name for i in first.row_ids] == [Path(i).name for i in second.row_ids]
    assert (first.samples.labels != second.samples.labels).sum() == 1

    split = tmp_path / "split" / "scans"
    for path in sorted(folder.rglob("*.png")):
        part = ("train", "val", "test")[int(path.stem) % 3]
        target = split / part / path.parent.name / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    assert dataset_of(split, tmp_path / "index3").images_digest == first.images_digest

    save(moved / "b" / "004.png", picture(4000, *shape_of(4)))
    assert dataset_of(moved, tmp_path / "index2").images_digest != first.images_digest


def test_a_samples_files_come_in_one_order_however_a_file_system_spells_accents(tmp_path):
    digests = set()
    for form in ("NFC", "NFD"):
        root = tmp_path / form
        lines = ["path,label,case"]
        for seed, name in enumerate(["étage", "aval", "face", "est"]):
            name = unicodedata.normalize(form, name)
            save(root / f"{name}.png", picture(seed, 9, 9))
            lines.append(f"{name}.png,{'ab'[seed % 2]},{seed % 2}")
        (root / "table.csv").write_text("\n".join(lines))
        listing = list_table(root / "table.csv", TableOptions(sample_col="case"))
        images = open_files(listing, Reading(), tmp_path / "index")
        digests.add(images.images_digest)
    assert len(digests) == 1


def test_ranges_are_cut_by_rows_and_by_bytes(folder):
    dataset = dataset_of(folder)
    assert dataset.cut([(0, 20), (30, 40)], 16) == [(0, 16), (16, 20), (30, 40)]
    heavy = dataclasses.replace(dataset, row_bytes=np.full(N, PIECE_BYTES // 3))
    assert heavy.cut([(0, 7)], 16) == [(0, 3), (3, 6), (6, 7)]
    huge = dataclasses.replace(dataset, row_bytes=np.full(N, PIECE_BYTES * 2))
    assert huge.cut([(0, 3)], 16) == [(0, 1), (1, 2), (2, 3)]


@pytest.mark.parametrize("n_workers", [0, 2])
def test_pieces_are_the_same_from_any_number_of_workers(folder, n_workers):
    dataset = dataset_of(folder, n_workers=n_workers)
    ranges = dataset.cut([(3, 30), (31, N)], 4)
    pieces = list(dataset.pieces(ranges, as_stored))
    assert [len(piece) for piece in pieces] == [stop - start for start, stop in ranges]
    images = [image for piece in pieces for group in piece.images for image in group]
    hashes = np.concatenate([piece.looks["rows/hash"] for piece in pieces])
    pictures = np.concatenate([piece.looks["rows/thumbnail"] for piece in pieces])
    rows = [*range(3, 30), *range(31, N)]
    for image, digest, small, row in zip(images, hashes, pictures, rows, strict=True):
        seed = int(Path(dataset.row_ids[row]).stem)
        expected = picture(seed, *shape_of(seed))
        np.testing.assert_array_equal(image, expected)
        assert digest.tobytes() == image_hash(expected)
        np.testing.assert_array_equal(small.reshape(64, 64), thumbnail(expected, 64))


# ---------------------------------------------------------------------------- the check pass


@pytest.fixture
def opened(monkeypatch):
    """Names of the files that the check pass decodes."""
    seen = []
    inspect = file_index.inspect

    def spy(path, *others):
        seen.append(path.name)
        return inspect(path, *others)

    monkeypatch.setattr(file_index, "inspect", spy)
    return seen


def test_files_are_opened_once_until_size_or_time_changes(folder, opened):
    first = dataset_of(folder)
    assert len(opened) == N
    opened.clear()
    second = dataset_of(folder)
    assert opened == []
    assert second.images_digest == first.images_digest
    assert second.row_bytes.tolist() == first.row_bytes.tolist()

    save(folder / "b" / "007.png", picture(77, 20, 20))
    os.utime(folder / "a" / "008.png", (time.time() - 30,) * 2)
    save(folder / "a" / "950.png", picture(950, 20, 20))
    dataset_of(folder)
    assert sorted(opened) == ["007.png", "008.png", "950.png"]
    opened.clear()
    dataset_of(folder, window="0,100")  # facts depend on how files are read
    assert len(opened) == N + 1


def test_a_file_that_was_just_written_is_not_remembered(folder, opened):
    save(folder / "a" / "960.png", picture(960, 20, 20), old=False)
    dataset_of(folder)
    opened.clear()
    dataset_of(folder)
    assert opened == ["960.png"]


@pytest.mark.parametrize(
    "change",
    [
        *({"n_frames": n} for n in (-1, 10**30)),
        *({"span": span} for span in ([1], "ab")),
        *({"sha256": sha256} for sha256 in ("zz", 5)),
        {"height": "8"},
        {"n_channels": 9},
        {"patient": 5},
        {"notes": [[1]]},
        {"shown": 5},
        {"decoder": 0},
        {"low": None},
        None,
    ],
)
def test_an_index_of_nonsense_is_not_believed(folder, tmp_path, change):
    before = dataset_of(folder)
    (index,) = (tmp_path / "index").iterdir()
    if change is None:
        index.write_text("[" * 100_000)
    else:
        texts = []
        for line in index.read_text().splitlines():
            entry = json.loads(line.partition(" ")[2])
            entry[5] |= {name: value for name, value in change.items() if name != "sha256"}
            entry[4] = change.get("sha256", entry[4])
            texts.append(json.dumps(entry).encode())
        # With the right checksums.
        index.write_bytes(b"".join(b"%08x %s\n" % (zlib.crc32(text), text) for text in texts))
    after = dataset_of(folder)
    assert after.images_digest == before.images_digest
    assert after.row_ids.tolist() == before.row_ids.tolist()


def test_an_edited_index_decides_no_key(folder, tmp_path, opened):
    digest = dataset_of(folder).images_digest
    (index,) = (tmp_path / "index").iterdir()
    lines = index.read_text().splitlines()
    sha256 = json.loads(lines[3].partition(" ")[2])[4]
    lines[3] = lines[3].replace(sha256, "0" * 64)
    lines[4] = lines[4].replace('"uint8"', '"uint9"')
    lines[5] = lines[5].partition(" ")[2]  # as it was without a checksum
    index.write_text("\n".join(lines) + "\n")
    opened.clear()
    assert dataset_of(folder).images_digest == digest
    assert len(opened) == 3
    opened.clear()
    assert dataset_of(folder).images_digest == digest
    assert not opened


def test_a_torn_or_unwritable_index_costs_only_time(folder, tmp_path, opened):
    dataset_of(folder)
    (index,) = (tmp_path / "index").iterdir()
    lines = index.read_text().splitlines()
    index.write_text("\n".join([*lines[:30], lines[30][:20], "[1, 2]", "nonsense"]))
    opened.clear()
    digest = dataset_of(folder).images_digest
    assert len(opened) == N - 30
    (tmp_path / "file").write_text("")
    assert dataset_of(folder, tmp_path / "file" / "index").images_digest == digest


def test_unreadable_files_are_named_and_counted(folder):
    (folder / "a" / "002.png").write_bytes(b"no picture")
    half = (folder / "b" / "003.png").read_bytes()
    (folder / "b" / "003.png").write_bytes(half[: len(half) // 2])
    with pytest.raises(RequestError, match=r"2 of 40 files can't be read \(a/002.png: .*b/003.png"):
        dataset_of(folder)
    dataset = dataset_of(folder, skip_errors=True)
    assert dataset.n_rows == N - 2
    assert not {"a/002.png", "b/003.png"} & {*dataset.row_ids}
    assert dataset.reading["skipped"] == 2
    assert any("2 files can't be read and are left out" in note for note in dataset.notes)
    (folder / "a" / "002.png").write_bytes((folder / "a" / "000.png").read_bytes())
    dataset = dataset_of(folder, skip_errors=True)
    assert any("1 file can't be read and is left out" in note for note in dataset.notes)


def test_half_a_jpeg_that_was_closed_is_left_out(folder):
    path = save(folder / "a" / "900.jpg", picture(900, 64, 64))
    assert dataset_of(folder).n_rows == N + 1
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2] + b"\xff\xd9")
    with pytest.raises(RequestError, match=r"a/900.jpg: Corrupt JPEG data: premature end"):
        dataset_of(folder)
    assert dataset_of(folder, skip_errors=True).n_rows == N


def test_a_mended_file_is_seen_at_once(folder):
    whole = (folder / "a" / "002.png").read_bytes()
    (folder / "a" / "002.png").write_bytes(b"no picture")
    os.utime(folder / "a" / "002.png", (time.time() - 60,) * 2)
    with pytest.raises(RequestError, match="1 of 40 files"):
        dataset_of(folder)
    (folder / "a" / "002.png").write_bytes(whole)
    assert dataset_of(folder).n_rows == N
    for path in folder.rglob("*.png"):
        path.write_bytes(b"x")
    with pytest.raises(RequestError, match="none of 40 files can be read"):
        dataset_of(folder, skip_errors=True)


def test_a_file_that_changes_after_the_check_stops_the_run(folder):
    dataset = dataset_of(folder)
    (folder / "a" / "002.png").unlink()
    with pytest.raises(RequestError, match=r"002.png could be read when it was checked"):
        list(dataset.stream([(0, N)]))


def test_a_file_with_other_contents_than_the_key_has_stops_the_run(folder):
    dataset_of(folder)
    dataset = dataset_of(folder)  # as the index remembers them
    save(folder / "a" / "002.png", picture(9002, *shape_of(2)), old=False)  # another of its size
    with pytest.raises(RequestError, match=r"002.png changed since it was checked; run again"):
        list(dataset.stream([(0, N)]))
    list(dataset_of(folder).stream([(0, N)]))


# ---------------------------------------------------------------------------- deep images, volumes


def test_sixteen_bits_are_kept_to_the_encoder(tmp_path):
    values = np.random.default_rng(0).integers(0, 65536, (20, 20)).astype(np.uint16)
    for i in range(12):
        save(tmp_path / "deep" / "ab"[i % 2] / f"{i}.png", np.roll(values, i))
    dataset = dataset_of(tmp_path / "deep")
    (images,) = dataset.stream([(0, 12)])
    row = dataset.row_ids.tolist().index("a/0.png")
    assert images[row].dtype == np.float32
    np.testing.assert_allclose(images[row], values / 65535 * 255, rtol=1e-6)
    # 4 bytes a pixel: what is cut by bytes must know
    assert dataset.row_bytes.tolist() == [20 * 20 * 4] * 12


def test_a_window_is_in_the_key_and_the_levels(folder, tmp_path):
    dataset = dataset_of(folder, window="50,150")
    (images,) = dataset.stream([(0, N)])
    seed = int(Path(dataset.row_ids[0]).stem)
    expected = np.clip((picture(seed, *shape_of(seed)).astype(float) - 50) * 2.55, 0, 255)
    np.testing.assert_allclose(images[0], expected, atol=1e-3)
    plain = extract_to(tmp_path / "f", "--data", f"folder:{folder}")
    windowed = extract_to(tmp_path / "g", "--data", f"folder:{folder}", "--window", "50,150")
    assert open_features(plain).key["reading"]["window"] == "as each file says"
    assert open_features(windowed).key["reading"]["window"] == "50,150"
    assert plain.name != windowed.name


@pytest.fixture
def volumes(tmp_path):
    nibabel = pytest.importorskip("nibabel")
    numbers = np.random.default_rng(0)
    for i in range(12):
        values = numbers.integers(-1000, 1000, (8, 9, 5 + i % 3)).astype(np.int16)
        path = tmp_path / "ct" / "ab"[i % 2] / f"{i:02d}.nii.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), path)
    return tmp_path / "ct"


def test_a_patient_id_makes_groups_where_it_tells_patients_apart(tmp_path):
    write_dicom = pytest.importorskip("making_dicom").write_dicom
    for name, patient in [
        ("one", lambda i: "anonymous"),
        ("two", lambda i: f"p{i // 2}" * (i < 8)),
    ]:
        for i in range(20):
            (tmp_path / name / "ab"[i % 2]).mkdir(parents=True, exist_ok=True)
            path = tmp_path / name / "ab"[i % 2] / f"{i:02d}.dcm"
            write_dicom(path, picture(i, 9, 9), PatientID=patient(i))
    dataset = dataset_of(tmp_path / "one")
    assert dataset.samples.groups is None
    assert "only one PatientID, which tells no patients apart" in dataset.notes
    dataset = dataset_of(tmp_path / "two")
    assert dataset.samples.groups.tolist()[5:10] == [
        "p2", "p3", "p3", "a/08.dcm alone", "b/09.dcm alone",
    ]  # fmt: skip
    assert "without PatientID: 12, each taken for a patient by itself" in dataset.notes


def test_slices_of_volumes_are_rows(volumes, tmp_path):
    path = extract_to(tmp_path / "f", "--data", f"folder:{volumes}", "--window", "ct")
    features = open_features(path)
    counts = np.bincount(features.row_sample)
    depths = {i: 5 + i % 3 for i in range(12)}
    assert [depths[int(Path(i).name[:2])] for i in features.ids] == counts.tolist()
    assert features.key["slices"] == {"axis": 0, "channels": "single"}
    with pytest.raises(AssertionError):  # no natural range, and none is guessed
        extract_to(tmp_path / "g", "--data", f"folder:{volumes}")


def test_a_range_may_begin_and_end_inside_volumes(volumes, tmp_path):
    images = open_files(list_folder(volumes), Reading(window="ct"), tmp_path / "index")
    assert images.split_words == "split: 80/10/10 by volume, seed 0 (the owner has none)"
    dataset = open_dataset(images)
    (whole,) = dataset.stream([(0, dataset.n_rows)])
    (part,) = dataset.stream([(3, 17)])
    for a, b in zip(part, whole[3:17], strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_folder_of_slices_is_a_sample(tmp_path):
    for case in range(12):
        for number in (9, 10, 1):  # named without zeros
            place = tmp_path / "ct" / "ab"[case % 2] / f"case {case}" / f"{number}.png"
            save(place, picture(100 * case + number, 8, 8))
    save(tmp_path / "ct" / "a" / "alone.png", picture(1, 8, 8))
    listing = list_folder(tmp_path / "ct", options=TableOptions(samples="folders"))
    dataset = open_dataset(open_files(listing, Reading(), tmp_path / "index"))
    assert len(dataset.samples.ids) == 13
    assert dataset.n_rows == 37
    assert sorted(dataset.samples.ids)[:2] == ["a/alone.png", "a/case 0"]
    (images,) = dataset.stream([(0, 37)])
    for sample, name in enumerate(dataset.samples.ids):
        rows = np.flatnonzero(dataset.row_sample == sample)
        if name == "a/alone.png":
            continue
        case = int(name.rpartition(" ")[2])
        for row, number in zip(rows, (1, 9, 10), strict=True):  # as people count
            np.testing.assert_array_equal(images[row], picture(100 * case + number, 8, 8))
        assert dataset.samples.labels[sample] == case % 2
    with pytest.raises(RequestError, match="name the column of samples with --sample-col"):
        list_table(tmp_path / "x.csv", TableOptions(samples="folders"))


# ---------------------------------------------------------------------------- end to end


def test_features_of_images_of_many_sizes(folder, tmp_path):
    path = extract_to(
        tmp_path / "f", "--data", f"folder:{folder}", "--store", "float32", "--batch-size", "7"
    )
    features = open_features(path)
    description = describe("test_vit", 32)
    encoder, _ = load_encoder(description, Weights(None, seed=0))
    assert description.statistics is not None
    transform = Transform(
        32, description.statistics.mean, description.statistics.std, "bicubic", resize="pad-fit"
    )
    for row, name in enumerate(features.ids):
        seed = int(Path(name).stem)
        image = torch.from_numpy(picture(seed, *shape_of(seed)))[None]
        expected = encoder(transform(image))["head"][0].numpy()
        np.testing.assert_allclose(features.array(-1, "head")[row], expected, rtol=1e-4, atol=1e-5)


def test_a_users_images_are_padded_and_a_published_set_is_scaled(folder, tmp_path, write_npz):
    own = open_features(extract_to(tmp_path / "f", "--data", f"folder:{folder}"))
    assert own.key["transform"]["resize"] == "pad-fit"
    assert own.key["source_size"] == "various"
    npz = write_npz(tmp_path / "x.npz")
    other = open_features(extract_to(tmp_path / "g", "--data", f"npz:{npz}"))
    assert other.key["transform"]["resize"] == "scale"


def test_a_corrected_label_costs_no_forward_pass(folder, tmp_path, capsys):
    path = extract_to(tmp_path / "f", "--data", f"folder:{folder}")
    before = open_features(path)
    x, ids = before.array(-1, "head"), before.ids.tolist()
    (folder / "a" / "004.png").rename(folder / "b" / "004.png")
    capsys.readouterr()
    assert extract_to(tmp_path / "f", "--data", f"folder:{folder}") == path
    assert "tables rewritten, features kept: rows/ids changed" in capsys.readouterr().out
    after = open_features(path)
    np.testing.assert_array_equal(after.array(-1, "head"), x)
    row = after.ids.tolist().index("b/004.png")
    assert after.labels[row] == 1
    assert ids[row] == "a/004.png"
    with pytest.raises(CacheError, match="was replaced while it was read; run the command again"):
        before.labels  # noqa: B018


def test_leaks_are_counted_while_extracting_and_refused_on_request(folder, tmp_path, capsys):
    for path in sorted(folder.rglob("*.png")):
        part = "train" if int(path.stem) < 30 else "test"
        target = tmp_path / "set" / part / path.parent.name / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    shutil.copy(tmp_path / "set/train/a/000.png", tmp_path / "set/test/a/990.png")
    data = ["--data", f"folder:{tmp_path / 'set'}"]
    assert main([*MODEL, *data, "--strict", "--features", str(tmp_path / "s")]) == 1
    message = capsys.readouterr().err
    assert "1 exact copy" in message
    assert "test/a/990.png is train/a/000.png" in message
    assert not list((tmp_path / "s").rglob("*.h5*"))
    path = extract_to(tmp_path / "f", *data)
    assert "1 exact copy" in capsys.readouterr().out
    features = open_features(path)
    assert features.cost["leaks"]["exact"] == 1
    leaks = count_leaks(features)
    assert leaks.summary() == features.cost["leaks"]
    assert main([*MODEL, *data, "--strict", "--features", str(tmp_path / "f")]) == 1
    (tmp_path / "set/test/a/990.png").unlink()
    assert main([*MODEL, *data, "--strict", "--features", str(tmp_path / "s")]) == 0


def test_another_shard_may_finish_a_file_whose_leaks_are_being_counted(
    folder, tmp_path, monkeypatch
):
    def finished_meanwhile(features, say):
        features.path.replace(features.path.with_suffix(""))
        count_leaks(features, say=say)

    monkeypatch.setattr("extract.run.count_leaks", finished_meanwhile)
    path = extract_to(tmp_path / "f", "--data", f"folder:{folder}")
    assert open_features(path).n_rows == N


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--window", "ct"], "--window is for files of images"),
        (["--skip-errors"], "--skip-errors is for files of images"),
        (["--split", "80/10/10"], "give it to probe"),
        (["--label-col", "x"], "--label-col is for --data csv:FILE"),
    ],
)
def test_flags_of_files_are_refused_for_arrays(tmp_path, write_npz, capsys, arguments, message):
    npz = write_npz(tmp_path / "x.npz")
    assert main([*MODEL, "--data", f"npz:{npz}", *arguments]) == 1
    assert message in capsys.readouterr().err


def test_wishes_that_a_folder_can_not_meet(folder, tmp_path):
    with pytest.raises(RequestError, match="are for volumes, and scans has images; leave them out"):
        find_source(f"folder:{folder}", 32, None, None, Slicing(), FileWishes(index=tmp_path / "i"))
    wishes = FileWishes(Reading(split=SplitWish("kfold:5")))
    source = find_source(f"folder:{folder}", 32, None, None, files=wishes)
    with pytest.raises(RequestError, match="makes 5 splits.*probe --split"):
        source.open(None)  # type: ignore[arg-type]
    folder.rename(folder.with_name("breastmnist"))
    with pytest.raises(RequestError, match="pass for it; give it a name of its own"):
        find_source(f"folder:{folder.with_name('breastmnist')}", 32, None, None)


@pytest.mark.parametrize("name", ["\x1b[31mred", "two\nlines"])
def test_names_that_could_rewrite_the_terminal_are_refused(folder, name):
    (folder / "a").rename(folder / name)
    with pytest.raises(RequestError, match="holds a control character.*rename it"):
        list_folder(folder)


# ---------------------------------------------------------------------------- workers


def test_results_come_in_order_and_errors_as_they_are():
    assert list(map_ordered(square, range(12), 2)) == [x * x for x in range(12)]
    for first, message in ((15, "not 17"), (12, "a process that decodes images died")):
        with pytest.raises(RequestError, match=message):
            list(map_ordered(square, range(first, 30), 2))
