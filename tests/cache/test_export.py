"""A file to share: the same features, and nothing that names people or places."""

import json
import signal
import subprocess
import sys

import numpy as np
import pytest
from caching import refused, run
from features import make_spec, make_text_spec, write_file, write_rows

from cache.errors import BrokenCache, RequestError
from cache.export import choose_arrays, export_features, hash_names
from cache.features import open_features
from cache.format.fingerprint import N_NUMBERS
from cache.format.read import read_header
from cache.format.spec import HASH, THUMBNAIL
from cache.leak_memory import count_leaks
from cache.sharing import Sharing
from cache.store import FeatureWriter
from probe.cli import main as probe
from probe.results import read_row

SECRETS = ("JaneDoe", "scanner-7", "/home/hospital", "thomas", "archive-2")
PATIENTS = np.array([f"JaneDoe{i % 90:03d}" if i % 7 else "" for i in range(700)])


# As a row counts them, see Leaks.summary.
LEAKS = {"n": 233, "exact": 2, "near": 1, "groups": 3, "group_samples": 9}
LEAKS |= {"val_n": 233, "val_exact": 0, "val_near": 4, "val_groups": 0, "val_group_samples": 0}


def make_file(path, n_rows=700, row_sample=None, dtype="float16"):
    """A feature file that tells more than it should."""
    arrays = {
        "layers/00/cls": 6,
        "layers/00/mean": 6,
        "layers/01/cls": 6,
        "layers/01/mean": 6,
        "head": 3,
        HASH: 16,
        THUMBNAIL: 64,
    }
    row_sample = np.arange(n_rows) if row_sample is None else row_sample
    n = row_sample.max() + 1  # samples
    ids = np.array([f"archive-2/JaneDoe{i:04d}/é.png" for i in range(n)])
    spec = make_spec(
        n_rows,
        arrays,
        dtype,
        ids=ids,
        split=make_spec(n_rows).samples.split[:n],
        labels=np.arange(n) % 3,
        groups=PATIENTS[:n],
        meta={
            "age": np.where(np.arange(n) % 5, 50.5, np.nan),
            "site": np.array(["scanner-7", "ü"])[np.arange(n) % 2],
        },
        row_sample=row_sample,
        row_ids=np.array([f"{ids[s]}:{i}" for i, s in enumerate(row_sample)]),
        positive_class="b",
        command="extract --model toy --data csv:/home/hospital/list.csv --data-root /home/hospital",
        notes={
            "transform": "scale to 8 px",
            "random_weights": True,
            "fitted": "images of 9 px, cut to 8 px",
            "table": "/home/hospital/list.csv",
            "skipped": ["archive-2/JaneDoe9999.png"],
        },
        versions={"torch": "2.0"},
        fingerprint={name: [1.0] * N_NUMBERS for name in arrays if name != HASH},
        transform={"resize": "scale"},
    )
    rng = np.random.default_rng(3)
    content = {
        name: rng.integers(0, 256, (n_rows, width), dtype=np.uint8)
        if name in (HASH, THUMBNAIL)
        else rng.normal(size=(n_rows, width))
        for name, width in arrays.items()
    }
    with FeatureWriter(path, spec) as writer:
        for unit in writer.todo:
            rows = slice(unit * 256, unit * 256 + 256)
            writer.write_unit(unit, {name: x[rows] for name, x in content.items()})
        writer.finish({"device": "cuda (thomas)", "parameters": 7, "leaks": LEAKS})
    return path


@pytest.fixture
def source(tmp_path):
    return make_file(tmp_path / "features" / "toys" / "toy_8_aaaaaaaaaaaa.h5")


def test_the_command_of_the_issue(source, tmp_path, capsys):
    out = tmp_path / "shared" / "toys" / "small.h5"
    words = ["--layers", "-1", "--pool", "cls", "--hash-ids", "--drop-meta", "-o", out]
    status, said, err = run(capsys, "export", source, *words)
    assert (status, err) == (0, "")
    assert said.startswith(f"{out}: 700 rows, layers/01/cls, ")
    salt = said.partition("salt ")[2].partition(":")[0]
    made, features = open_features(out), open_features(source)
    assert made.array(1, "cls").tobytes() == features.array(1, "cls").tobytes()
    assert [*made.header.arrays] == ["layers/01/cls"]
    assert made.digest == features.digest
    assert made.task == features.task
    assert made.class_names == features.class_names
    assert made.header.attributes["positive_class"] == "b"
    assert made.versions == features.versions
    assert [*made.fingerprint] == ["layers/01/cls"]
    assert made.cost == {"parameters": 7, "leaks": LEAKS}
    assert made.meta == {}
    assert (made.hashes, made.thumbnails) == (None, None)
    assert made.notes == {
        "transform": "scale to 8 px",
        "random_weights": True,
        "fitted": "images of 9 px, cut to 8 px",
        "exported_from": "toy_8_aaaaaaaaaaaa.h5",
    }
    np.testing.assert_array_equal(made.labels, features.labels)
    np.testing.assert_array_equal(made.split, features.split)
    np.testing.assert_array_equal(made.ids, hash_names(features.ids, salt))
    assert run(capsys, "verify", out)[0] == 0
    status, said, _ = run(capsys, "diff", source, out)
    assert status == 1
    assert said.splitlines()[:2] == [
        "the same key: the same features, of what both hold",
        f"only in {source.name}: layers/00/cls, layers/00/mean, layers/01/mean, head, rows/hash, "
        "rows/thumbnail",
    ]
    others = "rows/ids, samples/groups, samples/ids, samples/meta/age, samples/meta/site"
    assert said.splitlines()[-1] == f"other tables: {others}"
    content = out.read_bytes()
    for secret in (*SECRETS, salt, str(tmp_path), *features.ids, *PATIENTS[PATIENTS != ""]):
        assert secret.encode() not in content
    assert [*out.parent.iterdir()] == [out]


def test_hashed_ids_keep_what_belongs_together(source, tmp_path):
    features = open_features(source)
    made = {}
    for name, salt in (("a", "one"), ("b", "one"), ("c", "two")):
        path = tmp_path / f"{name}.h5"
        assert export_features(features, path, Sharing(hash_ids=True, salt=salt)) is None
        made[name] = open_features(path)
    assert features.groups is not None
    assert made["a"].groups is not None
    np.testing.assert_array_equal(made["a"].ids, made["b"].ids)
    assert not {*made["a"].ids} & {*made["c"].ids}
    assert {*zip(made["a"].groups, features.groups, strict=True)} == {
        *zip(hash_names(np.unique(features.groups), "one"), np.unique(features.groups), strict=True)
    }
    assert (made["a"].groups[features.groups == ""] == "").all()


def test_a_random_salt_is_another_each_time(source, tmp_path):
    features = open_features(source)
    salts = [
        export_features(features, tmp_path / f"{i}.h5", Sharing(hash_ids=True)) for i in range(2)
    ]
    assert salts[0] != salts[1]
    assert not {*open_features(tmp_path / "0.h5").ids} & {*open_features(tmp_path / "1.h5").ids}


def test_hashes_are_hmacs():
    # RFC 4231, test case 2.
    assert hash_names(np.array(["what do ya want for nothing?", ""]), "Jefe").tolist() == [
        "5bdcc146bf60754e6a042426089575c7",
        "",
    ]


def test_without_flags_only_pictures_paths_and_places_stay_behind(source, tmp_path, capsys):
    out = tmp_path / "small.h5"
    status, said, _ = run(capsys, "export", source, "-o", out)
    assert status == 0
    assert "with age, site; --drop-meta leaves them out" in said
    assert "with the ids as they are; --hash-ids hides them" in said
    assert "salt" not in said
    made, features = open_features(out), open_features(source)
    assert {*made.header.arrays} == {*features.header.arrays} - {THUMBNAIL}
    for name in ("layers/00/mean", "head"):
        place = (0, "mean") if "mean" in name else (-1, "head")
        np.testing.assert_array_equal(made.array(*place), features.array(*place))
    np.testing.assert_array_equal(made.hashes, features.hashes)
    np.testing.assert_array_equal(made.ids, features.ids)
    np.testing.assert_array_equal(made.groups, features.groups)
    np.testing.assert_array_equal(made.meta["age"], features.meta["age"])
    np.testing.assert_array_equal(made.meta["site"], features.meta["site"])
    content = out.read_bytes()
    for secret in ("/home/hospital", "thomas", str(tmp_path), "JaneDoe9999"):
        assert secret.encode() not in content


def test_volumes_keep_their_slices(tmp_path):
    row_sample = np.repeat(np.arange(70), 10)
    source = make_file(tmp_path / "a.h5", row_sample=row_sample, dtype="float32")
    export_features(open_features(source), tmp_path / "b.h5", Sharing((1,), ("mean",), True))
    made = open_features(tmp_path / "b.h5")
    np.testing.assert_array_equal(made.row_sample, row_sample)
    assert made.array(1, "mean").dtype == np.float32
    assert len(made.ids) == 70
    assert b"JaneDoe" not in made.path.read_bytes()


@pytest.mark.parametrize(
    ("choice", "names"),
    [
        (Sharing((-1,)), ["layers/01/cls", "layers/01/mean", "head"]),
        (Sharing((0, 0, -2)), ["layers/00/cls", "layers/00/mean"]),
        (Sharing(None, ("cls",)), ["layers/00/cls", "layers/01/cls"]),
        (Sharing(None, ("head",)), ["head"]),
        (Sharing((0, 1), ("head", "mean")), ["layers/00/mean", "layers/01/mean", "head"]),
        (
            Sharing((1, 0), ("mean", "cls")),
            ["layers/00/cls", "layers/00/mean", "layers/01/cls", "layers/01/mean"],
        ),
    ],
)
def test_layers_and_pools(source, choice, names):
    assert choose_arrays(open_features(source), choice) == [*names, HASH]


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        (Sharing((7,)), "has no layer 7: toy.random has layers 0..1"),
        (Sharing(None, ("proj",)), "has no pool 'proj' at layer 0 of toy.random; there it has cls"),
        (Sharing((0,), ("head",)), "has no pool 'head' at layer 0 of toy.random; there it has cls"),
        (Sharing((0, 1), ("head",)), "has no pool 'head' at layer 0"),
        (Sharing((0, 1), ("cls", "best")), "has no pool 'best'"),
    ],
)
def test_what_a_file_lacks_is_refused(source, tmp_path, choice, message):
    with pytest.raises(RequestError, match=message):
        export_features(open_features(source), tmp_path / "out.h5", choice)
    assert not (tmp_path / "out.h5").exists()


def test_a_file_of_which_only_early_layers_are_stored(tmp_path):
    spec = make_spec(3, {"layers/00/cls": 2, "layers/03/cls": 2}, layers={"of": 12})
    features = open_features(write_file(tmp_path / "a.h5", spec))
    assert choose_arrays(features, Sharing()) == ["layers/00/cls", "layers/03/cls"]
    export_features(features, tmp_path / "b.h5", Sharing((3,)))
    assert [*open_features(tmp_path / "b.h5").layers] == [3]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--salt", "s"], "--salt belongs to --hash-ids"),
        (["--hash-ids", "--salt", ""], "takes a text that nobody guesses"),
        (["--layers", "last"], "--layers takes all or numbers like 0,5,-1, not 'last'"),
        (["--layers", "-2,-9"], "has no layer -9"),
        (["--pool", " "], "--pool takes one or more"),
    ],
)
def test_wrong_words_are_one_line(source, tmp_path, capsys, words, message):
    assert message in refused(capsys, "export", source, *words, "-o", tmp_path / "out.h5")
    assert not (tmp_path / "out.h5").exists()


def test_a_taken_place_is_refused(source, tmp_path, capsys):
    out = tmp_path / "out.h5"
    out.write_text("mine")
    err = refused(capsys, "export", source, "-o", out)
    assert "is there already; give another name with -o, or --overwrite" in err
    assert out.read_text() == "mine"
    assert run(capsys, "export", source, "-o", out, "--overwrite")[0] == 0
    assert open_features(out).n_rows == 700
    for place, message in (
        (source, "is the very file to export"),
        (tmp_path / "out.txt", "a file that ends in .h5"),
    ):
        status, _, err = run(capsys, "export", source, "-o", place, "--overwrite")
        assert status == 1
        assert message in err
    (tmp_path / "folder.h5").mkdir()
    err = refused(capsys, "export", source, "-o", tmp_path / "folder.h5", "--overwrite")
    assert "is a folder" in err
    assert open_features(source).n_rows == 700


def test_texts_are_refused(tmp_path, capsys):
    spec = make_text_spec([0, 1, 2])
    texts = write_rows(tmp_path / "toy_text_a.h5", spec, {"proj": np.ones((3, 6))})
    err = refused(capsys, "export", texts, "-o", tmp_path / "out.h5")
    assert "holds texts, which name nobody: share it as it is" in err


def test_a_damaged_file_is_not_passed_on(source, tmp_path):
    extent = read_header(source).arrays["layers/01/cls"]
    with source.open("r+b") as file:
        file.seek(extent.offset + 300 * extent.row_bytes)
        file.write(b"\x01\x02")
    features = open_features(source)
    with pytest.raises(BrokenCache, match=r"rows 256\.\.511 of layers/01/cls don't match"):
        export_features(features, tmp_path / "out" / "a.h5", Sharing())
    assert [*(tmp_path / "out").iterdir()] == []
    export_features(features, tmp_path / "out" / "b.h5", Sharing((0,)))  # that layer is whole


@pytest.mark.posix
def test_a_kill_leaves_no_file(source, tmp_path):
    out = tmp_path / "out" / "a.h5"
    code = (
        "import sys, time, cache.export as export\n"
        "from pathlib import Path\n"
        "from cache.features import open_features\n"
        "def slow(self, unit, arrays):\n"
        "    print('writing', flush=True)\n"
        "    time.sleep(60)\n"
        "export.FeatureWriter.write_stored = slow\n"
        "export.export_features(open_features(sys.argv[1]), Path(sys.argv[2]), export.Sharing())\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(source), str(out)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "writing\n"
        process.send_signal(signal.SIGKILL)
    assert not out.exists()
    export_features(open_features(source), out, Sharing())
    assert open_features(out).n_rows == 700


def test_probe_answers_from_the_shared_file(tmp_path, capsys):
    rng = np.random.default_rng(0)
    spec = make_spec(300)
    content = {
        name: rng.normal(size=(300, width)) + spec.samples.labels[:, None]
        for name, width in spec.arrays.items()
    }
    write_rows(tmp_path / "features" / "toys" / "toy_8_a.h5", spec, content)
    out = tmp_path / "shared" / "toys" / "toy_8_b.h5"
    words = ["--layers=-1", "--pool", "cls", "--hash-ids", "-o", out]
    assert run(capsys, "export", tmp_path / "features" / "toys" / "toy_8_a.h5", *words)[0] == 0
    metrics = []
    for path in (tmp_path / "features" / "toys" / "toy_8_a.h5", out):
        assert probe(["--kind", "knn", "--k", "5", "--pool", "cls", str(path)]) == 0
        (row,) = (tmp_path / "results").glob("toys/*.json")  # one question, so one row
        metrics.append(read_row(row)["metrics"])
    assert metrics[0] == metrics[1]
    assert metrics[0]["acc"]["value"] > 0.5


NONE_READ = dict.fromkeys(("exact", "near", "groups", "group_samples"), 0)


@pytest.mark.parametrize(
    ("words", "leaks"),
    [
        (["--kind", "knn", "--k", "3"], LEAKS),
        # Val is compared, and test isn't read.
        (["--kind", "knn", "--k", "3", "--pool", "cls,mean"], LEAKS | NONE_READ | {"n": 0}),
        # Of twins that test has in val or train nobody knows those in train alone.
        (["--kind", "knn", "--k", "1", "--shots", "3"], None),
        (
            ["--kind", "knn", "--k", "3", "--split", "80/10/10"],
            None,
        ),  # not the split that was counted
    ],
)
def test_a_shared_files_row_knows_what_was_counted(source, tmp_path, capsys, words, leaks):
    out = tmp_path / "shared" / "toys" / "toy_8_b.h5"
    assert run(capsys, "export", source, "--pool", "cls,mean", "-o", out)[0] == 0
    results = tmp_path / "results"
    assert probe([*words, str(out), "--results", str(results)]) == 0
    for path in results.glob("toys/*.json"):
        assert read_row(path)["leaks"] == leaks
    assert len([*results.glob("toys/*.json")]) >= 1
    table = capsys.readouterr().out
    assert ("2+1 3p" in table) == (leaks == LEAKS)
    assert ("leaks ?" in table) == (leaks is None)


def test_strict_knows_of_a_shared_files_leaks_too(source, tmp_path, capsys):
    out = tmp_path / "shared" / "toys" / "toy_8_b.h5"
    assert run(capsys, "export", source, "-o", out)[0] == 0
    assert probe(["--kind", "knn", "--k", "3", "--strict", str(out)]) == 1
    assert "2 exact copies, 1 near twin, 3 patients of 233 test samples" in capsys.readouterr().err


@pytest.mark.parametrize("said", [{"n": 233, "exact": 0}, {**LEAKS, "exact": -1}, [1], None])
def test_leaks_that_were_not_counted_are_counted_for_sharing(source, tmp_path, capsys, said):
    """A file whose split was changed has lost its count; what stands there has no checksum."""
    features = open_features(source)
    with source.open("r+b") as file:
        file.seek(features.header.cost.offset)
        file.write(json.dumps({} if said is None else {"leaks": said}).encode().ljust(4096))
    out = tmp_path / "shared.h5"
    assert run(capsys, "export", source, "-o", out)[0] == 0
    found = count_leaks(open_features(source))
    assert open_features(out).cost == {"leaks": found.summary()}
