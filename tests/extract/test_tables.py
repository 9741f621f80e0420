"""One data set, one table: a split that was drawn stays, and all encoders' files take what is new."""

import csv
import os
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cache import CacheError, open_features
from cache.cli import main as cache
from cache.locks import Locks
from extract.cli import main
from probe.cli import main as probe

N = 60
A, B = "test_vit", "test_resnet"
FLAGS = ["--size", "32", "--weights", "random", "--workers", "0", "--device", "cpu"]


class Scans:
    """A table of images in a folder of its own, and what is extracted from it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir(exist_ok=True)
        self.rows = [
            {"file": f"{i:03d}.png", "label": "abc"[i % 3], "patient": f"p{i // 2}"}
            for i in range(N)
        ]
        for i in range(N + 20):
            pixels = np.random.default_rng(i).integers(0, 256, (16, 16), np.uint8)
            path = root / f"{i:03d}.png"
            Image.fromarray(pixels).save(path)
            os.utime(path, (time.time() - 60,) * 2)

    def add(self, n: int = 1, patient: str = "") -> None:
        for _ in range(n):
            i = len(self.rows)
            name = patient or f"q{i}"
            self.rows.append({"file": f"{i:03d}.png", "label": "abc"[i % 3], "patient": name})

    def extract(self, model: str, *words: str, status: int = 0) -> None:
        with (self.root / "scans.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, ["file", "label", "patient"])
            writer.writeheader()
            writer.writerows(self.rows)
        table = f"csv:{self.root / 'scans.csv'}"
        where = ["--features", str(self.root / "features")]
        assert main(["--model", model, "--data", table, *FLAGS, *where, *words]) == status

    def file(self, model: str):
        newest = max(
            (self.root / "features" / "scans").glob(f"{model}_*.h5"),
            key=lambda p: p.stat().st_mtime_ns,
        )
        return open_features(newest)

    def split(self, model: str) -> dict[str, str]:
        features = self.file(model)
        return dict(zip(features.ids.tolist(), features.split.tolist(), strict=True))


@pytest.fixture
def scans(tmp_path):
    return Scans(tmp_path)


def tables(features) -> dict[str, int]:
    return dict(features.header.tables)


def payload(features) -> bytes:
    return b"".join(
        features.memmap(layer, pool).tobytes()
        for layer, of in features.layers.items()
        for pool in of
    )


def test_a_corrected_label_moves_nobody_and_reaches_every_encoder(scans, capsys):
    """The whole way: extract, correct a label, extract with another encoder, compare both."""
    scans.extract(A)
    before, features = scans.split(A), payload(scans.file(A))
    reader = scans.file(A)
    scans.rows[7]["label"] = "c"  # was b: another stratum, and so another draw
    scans.extract(B)
    assert scans.split(B) == before
    assert "tables rewritten, features kept: samples/labels changed" in capsys.readouterr().out
    assert tables(scans.file(A)) == tables(scans.file(B))
    assert payload(scans.file(A)) == features
    assert reader.array(0, "mean").shape[0] == N  # opened before: its features are where they were
    with pytest.raises(CacheError, match="was replaced while it was read"):
        _ = reader.labels
    assert cache(["verify", "--features", str(scans.root / "features")]) == 0
    places = [f"--{name}={scans.root / name}" for name in ("features", "results")]
    assert probe(["--kind", "knn", "--k", "3", *places]) == 0
    out = capsys.readouterr().out
    assert "block" not in out
    assert A in out
    assert B in out
    scans.extract(A)
    assert "complete already" in capsys.readouterr().out
    assert scans.split(A) == before


def test_new_samples_alone_are_drawn_and_no_patient_is_divided(scans, capsys):
    by_patient = ["--group-col", "patient"]
    scans.extract(A, *by_patient)
    before = scans.split(A)
    in_test = next(row for row in scans.rows if before[row["file"]] == "test")
    scans.add(patient=in_test["patient"])
    scans.add(12)
    del scans.rows[3]
    scans.extract(B, *by_patient)
    assert "13 new samples drawn" in capsys.readouterr().out
    after = scans.split(B)
    assert {name: split for name, split in after.items() if name in before} == {
        name: split for name, split in before.items() if name != "003.png"
    }
    assert after[f"{N:03d}.png"] == "test"
    assert len(after) == N + 12
    # The other encoder's features are of other images: left alone, and told apart by probe.
    assert len(scans.file(A).ids) == N
    places = [f"--{name}={scans.root / name}" for name in ("features", "results")]
    assert probe(["--kind", "knn", "--k", "3", *places]) == 0
    out = capsys.readouterr().out
    assert "block 2 of 2: other labels, split, patients, ids and images of a sample of scans" in out
    scans.extract(A, *by_patient)
    assert scans.split(A) == after


def test_patients_who_are_named_later_are_not_divided(scans):
    scans.extract(A)
    scans.extract(B, "--group-col", "patient")
    assert tables(scans.file(A)) == tables(scans.file(B))
    of_patient = {}
    for row in scans.rows:
        of_patient.setdefault(row["patient"], set()).add(scans.split(A)[row["file"]])
    assert all(len(parts) == 1 for parts in of_patient.values())
    kept = scans.split(B)
    scans.extract(A)  # without patients they needn't be divided, but they may be as they are
    assert scans.split(A) == kept


def test_files_that_disagree_are_refused_and_one_is_named_to_keep(scans, capsys):
    scans.extract(A)
    folder = scans.root / "features" / "scans"
    old = scans.file(A).path
    shutil.copy(old, scans.root / "old.h5")
    before = scans.split(A)
    scans.extract(B, "--split-seed", "5")  # asked for: it is drawn anew, for both
    assert scans.split(A) == scans.split(B) != before
    shutil.copy(scans.root / "old.h5", old)  # as files were left before they were kept alike
    capsys.readouterr()
    scans.extract(B, status=1)
    said = capsys.readouterr().err
    assert "divided differently in two files" in said
    assert str(old) in said
    assert str(scans.file(B).path) in said
    scans.extract(B, "--keep-split", str(old))
    assert scans.split(A) == scans.split(B) == before
    scans.extract(B, "--keep-split", "none", "--split-seed", "5")
    assert scans.split(A) == scans.split(B) != before
    scans.extract(A, "--keep-split", str(folder / "nothing.h5"), status=1)
    assert "no features at" in capsys.readouterr().err


def test_a_rule_that_is_asked_for_is_followed_and_then_kept(scans, capsys):
    scans.extract(A)
    scans.extract(B, "--split", "60/20/20")
    counts = np.unique(list(scans.split(B).values()), return_counts=True)[1].tolist()
    assert counts == [12, 36, 12]
    assert scans.split(A) == scans.split(B)
    asked = scans.split(B)
    scans.rows[7]["label"] = "c"
    scans.extract(A)
    assert scans.split(A) == scans.split(B) == asked
    # The command of each file makes the split that it has, on a machine without the other.
    for model in (A, B):
        command = scans.file(model).header.attributes["command"]
        assert command.startswith(f"extract --model {model} ")
        assert command.count(" --split 60/20/20") == 1


def test_a_rule_by_ids_is_kept_too(scans, capsys):
    scans.extract(A, "--split", "systematic:12,6")
    before = scans.split(A)
    scans.extract(B)
    out = capsys.readouterr().out
    assert f"split by the rule of {scans.file(A).path.name}" in out
    assert "rewritten" not in out
    assert scans.split(A) == scans.split(B) == before
    assert " --split systematic:12,6" in scans.file(B).header.attributes["command"]
    scans.extract(B, "--keep-split", "none")
    assert scans.split(A) == scans.split(B) != before


def test_a_class_folder_says_another_label_of_the_same_image(tmp_path, capsys):
    """The id changes with it: by their contents, in order, the images are known again."""
    scans = Scans(tmp_path / "images")
    folder = tmp_path / "slides"
    for row in scans.rows:
        (folder / row["label"]).mkdir(parents=True, exist_ok=True)
        shutil.copy2(scans.root / row["file"], folder / row["label"] / row["file"])
    where = ["--data", f"folder:{folder}", *FLAGS, "--features", str(tmp_path / "features")]
    split = {}
    for model in (A, B):
        assert main(["--model", model, *where]) == 0
        (path,) = (tmp_path / "features" / "slides").glob(f"{model}_*.h5")
        features = open_features(path)
        split[model] = {
            name.rsplit("/")[-1]: part
            for name, part in zip(features.ids.tolist(), features.split.tolist(), strict=True)
        }
        (folder / "a" / "000.png").rename(folder / "b" / "000.png") if model == A else None
    assert split[A] == split[B]
    ids = [
        open_features(path).ids.tolist() for path in (tmp_path / "features" / "slides").glob("*.h5")
    ]
    assert ids[0] == ids[1]
    assert "b/000.png" in ids[0]


def test_what_was_made_to_share_keeps_its_hashed_ids(scans, tmp_path):
    scans.extract(A)
    shared = scans.file(A).path.with_name("shared.h5")
    words = ["--hash-ids", "--salt", "s", "-o", str(shared)]
    assert cache(["export", str(scans.file(A).path), *words]) == 0
    before = shared.read_bytes()
    scans.rows[7]["label"] = "c"
    scans.extract(B)
    assert shared.read_bytes() == before
    assert open_features(shared).notes["drawn_split"] == {"rule": "80/10/10", "seed": 0}


def test_volumes_that_were_cut_otherwise_are_the_same_samples(tmp_path, capsys):
    """Another axis makes other rows, and a sample is a volume all the same."""
    nibabel = pytest.importorskip("nibabel")
    table = tmp_path / "ct.csv"
    for i in range(12):
        values = np.random.default_rng(i).integers(0, 200, (4, 5, 3 + i % 2)).astype(np.int16)
        nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), tmp_path / f"{i:02d}.nii.gz")
    where = ["--data", f"csv:{table}", *FLAGS, "--features", str(tmp_path / "features")]
    labels = ["a", "b"] * 6
    found = []
    for model, axis in ((A, 0), (B, 1)):
        lines = [f"{i:02d}.nii.gz,{label}\n" for i, label in enumerate(labels)]
        table.write_text("file,label\n" + "".join(lines))
        words = ["--slice-axis", str(axis), "--window", "0,200"]
        assert main(["--model", model, *where, *words]) == 0
        found.append(next((tmp_path / "features" / "ct").glob(f"{model}_*.h5")))
        labels[3] = "a"
    a, b = map(open_features, found)
    assert a.key["slices"] != b.key["slices"]
    assert a.n_rows != b.n_rows
    assert (a.labels.tolist(), a.split.tolist()) == (b.labels.tolist(), b.split.tolist())
    assert a.labels.sum() == 5
    assert len(a.row_sample) == a.n_rows
    assert "samples/labels changed\n" in capsys.readouterr().out


def test_what_is_kept_for_training_and_a_mended_file_take_part(scans, capsys):
    """finetune's tables are laid too; an image that couldn't be read is new when it can."""
    broken = scans.root / "005.png"
    whole = broken.read_bytes()
    broken.write_bytes(b"no picture")
    scans.extract(A, "--skip-errors")
    assert len(scans.split(A)) == N - 1
    before = scans.split(A)
    unpacked = scans.root / "features" / ".images" / "scans" / "0123456789ab.h5"
    unpacked.parent.mkdir(parents=True)
    shutil.copy(scans.file(A).path, unpacked)
    scans.rows[7]["label"] = "c"
    scans.extract(A, "--skip-errors")
    assert tables(open_features(unpacked)) == tables(scans.file(A))
    scans.file(A).path.unlink()  # the split is known from there, too
    broken.write_bytes(whole)
    scans.extract(B)
    assert "1 new sample drawn" in capsys.readouterr().out
    after = scans.split(B)
    assert after.pop("005.png") in ("train", "val", "test")
    assert after == before


def test_a_file_that_is_being_written_is_not_passed_over(scans, capsys):
    scans.extract(A)
    features = scans.file(A)
    split = scans.split(A)
    scans.rows[7]["label"] = "c"
    lock = Locks(features.path)
    with lock.gate():
        lock.take_shard(0, 1)  # as whoever writes it does
    scans.extract(B, status=1)
    lock.release()
    assert "is being written by process" in capsys.readouterr().err
    scans.extract(B)
    assert scans.split(A) == scans.split(B) == split


def test_several_shards_rewrite_no_table(scans, capsys):
    scans.extract(A)
    scans.rows[7]["label"] = "c"
    scans.extract(B, "--shard", "0/2", status=1)
    assert "run the command once without --shard" in capsys.readouterr().err
