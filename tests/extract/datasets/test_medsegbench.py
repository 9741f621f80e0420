"""MedSegBench's sets: from files in their layout, with MD5s of their own."""

import dataclasses
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cache import RequestError
from cache.masks import open_masks, write_masks
from extract.cli import main
from extract.datasets.arrays import medmnist
from extract.datasets.arrays.medsegbench import NAMES, PARTS, WHOLES, find_file, open_medseg
from extract.datasets.arrays.medsegbench_table import SETS
from extract.datasets.dataset import Dataset
from extract.datasets.files.definitions import save
from extract.datasets.sources import find_source, reserved_names
from extract.machine.digests import DigestMemory, file_md5
from extract.show.facts import find_facts, list_facts, read_labels

SIDE = 128
SPLITS = ("train", "val", "test")


@pytest.fixture
def published(tmp_path, monkeypatch):
    """``published(name, n=2, **changed)``: a file in the layout of a set, small, and what it holds."""

    def publish(name: str, n: int = 2, **changed: Any) -> dict[str, np.ndarray]:
        wanted = NAMES[name]
        parts = tuple(
            dataclasses.replace(p, counts=tuple(n + i for i in range(3))) for p in wanted.of.parts
        )
        k = len(parts) if wanted.of.whole_is_parts else 1
        counts = tuple(k * (n + i) for i in range(3))
        one = dataclasses.replace(wanted.of, counts=counts, parts=parts)
        rng = np.random.default_rng(0)
        arrays: dict[str, np.ndarray] = {}
        keys = [(None, counts), *((p.key, p.counts) for p in parts)]
        for key, of in keys:
            for split, rows in zip(SPLITS, of, strict=True):
                end = f"_{key}" if key else ""
                colour = (3,) if one.n_channels == 3 else ()
                arrays[f"{split}_images{end}"] = rng.integers(
                    0, 256, (rows, SIDE, SIDE, *colour), np.uint8
                )
                arrays[f"{split}_label{end}"] = rng.integers(
                    0, len(one.classes), (rows, SIDE, SIDE), np.uint8
                )
        arrays |= changed
        path = tmp_path / f"{one.flag}_{SIDE}.npz"
        np.savez_compressed(path, **arrays)
        one = dataclasses.replace(one, md5s=(file_md5(path), *one.md5s[1:]))
        of = {p.key: p for p in parts}
        for known, w in list(NAMES.items()):
            if w.of.flag == one.flag:
                new = dataclasses.replace(w, of=one, part=of[w.part.key] if w.part else None)
                for names in (NAMES, PARTS, WHOLES):
                    if known in names:
                        monkeypatch.setitem(names, known, new)
        return arrays

    return publish


def opened(name: str, root: Path) -> Dataset:
    return open_medseg(find_file(name, SIDE, None, root), file_md5)


def masks_of(dataset: Dataset) -> np.ndarray:
    assert dataset.masks is not None
    n = dataset.n_rows
    ranges = [(i, min(i + 3, n)) for i in range(0, n, 3)]
    return np.array([mask for part in dataset.masks.stream(ranges) for mask in part])


def images_of(dataset: Dataset) -> np.ndarray:
    return np.concatenate(list(dataset.stream([(0, dataset.n_rows)])))


# ---------------------------------------------------------------------------- the table


def test_the_table_is_the_owner_s():
    assert len(SETS) == len({one.flag for one in SETS}) == 35
    assert sum(sum(one.counts) for one in SETS) == 66_165
    md5s = [md5 for one in SETS for md5 in one.md5s]
    assert len({*md5s}) == 105
    assert all(len(md5) == 32 and md5 == md5.strip() for md5 in md5s)
    assert sum(len(one.classes) > 2 for one in SETS) == 6
    for one in SETS:
        sums = tuple(map(sum, zip(*(p.counts for p in one.parts), strict=True)))
        assert not one.whole_is_parts or sums == one.counts, one.flag
        assert one.background in one.classes
    assert len({*NAMES}) == 35 + sum(len(one.parts) for one in SETS)
    assert not {*NAMES} & {*medmnist.FLAGS}
    assert {*NAMES} <= reserved_names()


@pytest.mark.parametrize(
    ("name", "size", "side", "file", "md5"),
    [
        ("medseg-kvasir", 224, 256, "13358372/files/kvasir_256.npz?download=1", "4ce7118d"),
        ("medseg-kvasir", 1024, 512, "13358372/files/kvasir_512.npz?download=1", "f3ab71c2"),
        ("medseg-wbc", 64, 128, "13359660/files/wbc_128.npz?download=1", "7336757d"),
        ("medseg-yeaz", 128, 128, "13359660/files/yeaz_128.npz?download=1", "e114e0f0"),
        ("medseg-busi-c2", 512, 512, "13358372/files/busi_512.npz?download=1", "fab7550a"),
        ("medseg-abdomenus", 512, 512, "13358372/files/abdomenus_512.npz?download=1", "6e46ed12"),
    ],
)
def test_files_and_addresses(name, size, side, file, md5):
    found = find_file(name, size, None, Path("root"))
    assert (found.source_size, found.path.parent) == (side, Path("root"))
    assert found.url == f"https://zenodo.org/records/{file}"
    assert found.md5.startswith(md5)
    assert find_file(name, size, None, None).path.parent.name == ".medsegbench"
    with pytest.raises(RequestError, match=f"--source-size takes 128, 256, 512 for {name}, not 64"):
        find_file(name, size, 64, None)


def test_names_are_taken(tmp_path):
    with pytest.raises(RequestError, match="the name of a published set"):
        save("medseg-kvasir", "folder", tmp_path)
    with pytest.raises(RequestError, match="near names: medseg-kvasir"):
        find_source("medseg-kvasr", 224, None, None)


# ---------------------------------------------------------------------------- images and masks


def test_a_set_is_streamed_as_it_lies_there(published, tmp_path):
    arrays = published("medseg-kvasir")
    dataset = opened("medseg-kvasir", tmp_path)
    assert dataset.row_ids.tolist()[:3] == ["train/000000", "train/000001", "val/000000"]
    assert np.bincount(dataset.samples.split).tolist() == [2, 3, 4]
    assert (dataset.source_size, dataset.n_channels) == (SIDE, 3)
    assert dataset.target.is_unlabelled
    np.testing.assert_array_equal(
        images_of(dataset), np.concatenate([arrays[f"{s}_images"] for s in SPLITS])
    )
    np.testing.assert_array_equal(
        masks_of(dataset), np.concatenate([arrays[f"{s}_label"] for s in SPLITS])
    )
    written = open_masks(
        write_masks(tmp_path / "f", "medseg-kvasir", dataset.row_ids, dataset.masks)
    )
    assert (written.class_names, written.background) == (("background", "foreground"), 0)
    np.testing.assert_array_equal(written.mask(4), arrays["val_label"][2])
    assert any("patients are unknown" in note for note in dataset.notes)
    assert any("val has 3 images" in note for note in dataset.notes)


@pytest.mark.parametrize(
    ("name", "positive", "classes"),
    [
        ("medseg-busi", 1, ("benign", "malignant")),
        ("medseg-uwaterlooskincancer", 1, ("not melanoma", "melanoma")),
        ("medseg-covid19radio", None, ("covid", "lung opacity", "normal", "viral pneumonia")),
    ],
)
def test_parts_that_are_labels(published, tmp_path, name, positive, classes):
    arrays = published(name)
    dataset = opened(name, tmp_path)
    assert dataset.class_names == classes
    assert dataset.task == ("binary-class" if positive else "multi-class")
    keys = [row.split("/")[1] for row in dataset.row_ids]
    of = {p.key: i for i, p in enumerate(NAMES[name].of.parts)}
    assert dataset.samples.labels.tolist() == [of[key] for key in keys]
    for row, mask, image in zip(
        dataset.row_ids, masks_of(dataset), images_of(dataset), strict=True
    ):
        split, key, i = row.split("/")
        np.testing.assert_array_equal(image, arrays[f"{split}_images_{key}"][int(i)])
        np.testing.assert_array_equal(mask, arrays[f"{split}_label_{key}"][int(i)])
    part = opened(f"{name}-c2", tmp_path)
    assert set(part.row_ids) < set(dataset.row_ids)
    assert part.target.is_unlabelled
    assert part.images_digest != dataset.images_digest


def test_parts_that_are_hospitals_and_cell_lines(published, tmp_path):
    published("medseg-polypgen")
    sites = opened("medseg-polypgen", tmp_path).samples.meta["site"]
    assert len({*sites.tolist()}) == 6
    assert sites[0].startswith("Ambroise Par")
    published("medseg-brifiseg")
    lines = opened("medseg-brifiseg", tmp_path).samples.meta["cell_line"]
    assert {"HeLa", "MCF7", "RPE1"} < {*lines.tolist()}


def test_parts_that_are_other_masks_of_the_same_images(published, tmp_path):
    arrays = published("medseg-idrib")
    shared = {k: v for k, v in arrays.items() if not ("images_C" in k or k.endswith("_label"))}
    np.savez(tmp_path / "idrib_128.npz", **shared)
    md5 = file_md5(tmp_path / "idrib_128.npz")
    file = dataclasses.replace(find_file("medseg-idrib-c2", SIDE, None, tmp_path), md5=md5)
    dataset = open_medseg(file, file_md5)
    np.testing.assert_array_equal(images_of(dataset)[:2], arrays["train_images"])
    np.testing.assert_array_equal(masks_of(dataset)[:2], arrays["train_label_C2"])
    assert any("masks of Hemorrhages alone" in note for note in dataset.notes)
    with pytest.raises(RequestError, match=r"idrib_128.npz lacks train_label, "):
        open_medseg(dataclasses.replace(file, name="medseg-idrib"), file_md5)


def test_subsets_that_are_not_all(published, tmp_path):
    arrays = published("medseg-wbc")
    whole, part = opened("medseg-wbc", tmp_path), opened("medseg-wbc-c4", tmp_path)
    np.testing.assert_array_equal(images_of(whole)[:2], arrays["train_images"])
    np.testing.assert_array_equal(images_of(part)[:2], arrays["train_images_C4"])


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int64])
def test_numbers_of_objects_are_one_class(published, tmp_path, dtype):
    labels = np.arange(2 * SIDE * SIDE, dtype=np.int64).reshape(2, SIDE, SIDE) % 300
    labels = labels.astype(dtype)
    published("medseg-pandental", train_label=labels)
    np.testing.assert_array_equal(masks_of(opened("medseg-pandental", tmp_path))[:2], labels > 0)


def test_what_is_ignored(published, tmp_path):
    arrays = published("medseg-m2caiseg")
    dataset = opened("medseg-m2caiseg", tmp_path)
    assert dataset.masks is not None
    assert dataset.masks.class_names[0] == "grasper"
    assert dataset.masks.class_names[dataset.masks.background or 0] == "black"
    stored = arrays["train_label"]
    np.testing.assert_array_equal(
        masks_of(dataset)[:2], np.where(stored == 0, 255, stored.astype(int) - 1)
    )
    arrays = published("medseg-monusac")
    stored = arrays["train_label"]
    dataset = opened("medseg-monusac", tmp_path)
    np.testing.assert_array_equal(masks_of(dataset)[:2], np.where(stored == 5, 255, stored))
    assert any("'ambiguous' is no class" in note for note in dataset.notes)


def test_masks_of_0_and_255(published, tmp_path):
    labels = np.zeros((2, SIDE, SIDE), np.uint8)
    labels[0, :5] = 255
    published("medseg-kvasir", train_label=labels)
    np.testing.assert_array_equal(masks_of(opened("medseg-kvasir", tmp_path))[:2], labels // 255)


# ---------------------------------------------------------------------------- refusals

Z = np.zeros


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"train_label": Z((2, SIDE, SIDE), np.float32)},
            "train_label.npy should be whole numbers",
        ),
        ({"train_label": Z((2, SIDE), np.uint8)}, r"train_label.npy should be \(2, 128, 128\)"),
        ({"train_label": Z((1, SIDE, SIDE), np.uint8)}, r"should be \(2, 128, 128\), found \(1,"),
        ({"train_images": Z((2, SIDE, SIDE), np.uint8)}, r"should be \(2, 128, 128, 3\)"),
        ({"val_images": Z((3, 64, 64, 3), np.uint8)}, r"should be \(3, 128, 128, 3\)"),
        ({"val_images": Z((3, SIDE, SIDE, 3), np.int64)}, "should be uint8 in C order"),
        ({"train_images": np.array([{}], object)}, "pickled objects, which are never read"),
        (
            {
                "test_images": Z((9, SIDE, SIDE, 3), np.uint8),
                "test_label": Z((9, SIDE, SIDE), np.uint8),
            },
            r"has \(2, 3, 9\) images of medseg-kvasir; expected \(2, 3, 4\)",
        ),
    ],
)
def test_wrong_members(published, tmp_path, changed, message):
    published("medseg-kvasir", **changed)
    with pytest.raises(RequestError, match=message):
        opened("medseg-kvasir", tmp_path)


@pytest.mark.parametrize("value", [2, 300, -1])
def test_a_value_that_is_no_class(published, tmp_path, value):
    published("medseg-kvasir", train_label=np.full((2, SIDE, SIDE), value, np.int16))
    with pytest.raises(RequestError, match=f"hold {value}, and classes are 0 to 1"):
        masks_of(opened("medseg-kvasir", tmp_path))


def test_a_wrong_file_is_refused(published, tmp_path):
    published("medseg-kvasir")
    (tmp_path / "kvasir_128.npz").write_bytes(pickle.dumps({}))
    with pytest.raises(RequestError, match="isn't the official file: expected MD5 .*; delete it"):
        opened("medseg-kvasir", tmp_path)


# ---------------------------------------------------------------------------- commands


def test_two_parts_of_a_file_have_statistics_of_their_own(published, tmp_path):
    from extract.datasets.statistics import dataset_statistics

    published("medseg-busi", train_images_C1=Z((2, SIDE, SIDE), np.uint8))
    memory = DigestMemory(tmp_path / "memory.json")
    means = []
    for name in ("medseg-busi-c1", "medseg-busi-c2"):
        source = find_source(name, SIDE, None, tmp_path)
        means.append(dataset_statistics(source, source.open(memory), memory)[0][0])
    assert means[0] == 0 < means[1]


def test_features_and_masks_of_a_set(published, tmp_path, capsys):
    published("medseg-busi")
    features = tmp_path / "features"
    command = ["--model", "test_vit", "--size", "32", "--weights", "random", "--tokens", "1"]
    command += ["--data", "medseg-busi", "--data-root", str(tmp_path), "--features", str(features)]
    assert main(command) == 0, capsys.readouterr().err
    masks = open_masks(next((features / "medseg-busi").glob("masks_*.h5")))
    assert masks.ids[0] == "train/C1/000000"
    assert "masks of 18 images: background" in capsys.readouterr().out


def test_what_is_known_of_them_all(published, tmp_path):
    names = [facts["name"] for facts in list_facts(tmp_path)]
    assert [name for name in names if name.startswith("medseg-")] == [*WHOLES]
    facts = find_facts("medseg-busi", tmp_path)
    assert facts["parts"] == {"medseg-busi-c1": "benign", "medseg-busi-c2": "malignant"}
    assert facts["state"] == "needs download"
    published("medseg-busi")
    facts = find_facts("medseg-busi", tmp_path)
    assert (facts["state"], facts["sizes_here"]) == ("ready", [SIDE])
    labels = read_labels(facts, tmp_path)
    assert labels.target.class_names == ("benign", "malignant")
    assert find_facts("medseg-busi-c1", tmp_path)["n_samples"] == 9
