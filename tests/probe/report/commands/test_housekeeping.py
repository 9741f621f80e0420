"""`report ls`, `rm` and `gc`: what is listed, what is called stale, and that nothing else is deleted."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from answering import make_earlier, make_row, rewrite, scores_file
from features import Looks, make_features, make_token_spec, write_file
from reporting import answered, refused, run

from cache.format.key import canonical_json
from probe import cli as probe_cli
from probe.ledger import ledger_path
from probe.report.commands import ls
from probe.report.rows.ledger import read_ledger
from probe.report.rows.stale import read_shelf
from probe.report.rows.stored import read_stored, stored_files
from probe.results import read_row, write_row


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Two encoders' features of one data set, and one's of another, with a row of each and controls."""
    root = tmp_path_factory.mktemp("made")
    patients = np.array([f"p{i // 2}" for i in range(100)])
    for dataset, model in (("toys", "toy"), ("toys", "other"), ("more", "toy")):
        make_features(
            root / "features", dataset, model, n=(60, 20, 20), groups=patients, looks=Looks()
        )
    words = f"--kind ridge --controls --features {root / 'features'} --results {root / 'results'}"
    words += " --resamples 20 --name mine --layer=-1"
    assert probe_cli.main(words.split()) == 0
    return root


@pytest.fixture
def shelf(made, tmp_path, monkeypatch):
    """A copy, where the environment points the commands."""
    for name in ("features", "results"):
        shutil.copytree(made / name, tmp_path / name)
        monkeypatch.setenv(f"MEDPROBE_{name.upper()}", str(tmp_path / name))
    return tmp_path


def all_files(root):
    return {path for path in root.rglob("*") if path.is_file() and ".index" not in path.parts}


def row_of(shelf, dataset, model, kind="ridge"):
    (path,) = (shelf / "results" / dataset).glob(f"{model}_32_{kind}_*.json")
    return path


def lay_features(shelf, dataset="toys", model="toy", **changed):
    """Write a feature file anew, with other tables under the same key."""
    (old,) = (shelf / "features" / dataset).glob(f"{model}_*.h5")
    old.unlink()
    fields = {"looks": Looks(), "groups": np.array([f"p{i // 2}" for i in range(100)]), **changed}
    make_features(shelf / "features", dataset, model, n=(60, 20, 20), **fields)


def other_labels(labels):
    return np.where(np.arange(len(labels)) == 3, (labels + 1) % 3, labels)


def test_rows_are_listed(shelf, capsys):
    out = answered(capsys, "ls")
    rows = [path for path in (shelf / "results").glob("*/*.json")]
    heading = out.splitlines()[0].split("  ")
    assert [word.strip() for word in heading if word][:3] == ["data set", "encoder", "size"]
    assert f"{len(rows)} rows" in out
    assert "stale" not in out
    assert "what is wrong" not in out
    for path in rows:
        assert out.count(json.loads(path.read_text())["id"][:8]) == 1
    assert "mine" in out
    assert "more" not in answered(capsys, "ls", "--data", "toys")
    assert "nothing is wrong" in answered(capsys, "ls", "--stale")


def test_rows_are_told_apart_by_what_differs(tmp_path, capsys):
    for settings in ({"layer": 3}, {"layer": 4}, {"layer": 4, "shots": 5}, {"layer": 4, "fold": 1}):
        write_row(tmp_path, listed_row(**settings))
    write_row(tmp_path, make_row("knn"))
    out = answered(capsys, "ls", "--results", tmp_path)
    heading, _, *lines = out.splitlines()
    assert heading.split()[:9] == [
        *("data", "set", "encoder", "size", "kind"),
        *("layer", "shots", "split", "fold"),
    ]
    told = {line.partition(" 20")[0] for line in lines if "linear" in line}
    assert len(told) == 4
    write_row(tmp_path, listed_row(layer=3, max_iter=9))  # a setting that has no column of its own
    out = answered(capsys, "ls", "--results", tmp_path)
    assert out.splitlines()[0].split()[9] == "probe.max_iter"


def listed_row(fold=None, shots=None, **settings):
    row = make_row(**settings, **({"few_shot": {"shots": shots}} if shots else {}))
    split = {"rule": "kfold:5", "seed": 0, "name": f"fold {fold}/5"}
    encoded = replace(row.encoded, samples={"labels": 1, "split": split["name"]})
    return replace(row, encoded=encoded, posed=replace(row.posed, split=split)) if fold else row


def test_the_size_is_that_of_both_files(tmp_path):
    path = write_row(tmp_path, make_row())
    (row,), _ = read_stored(tmp_path, stored_files(tmp_path))
    wanted = path.stat().st_size + scores_file(path).stat().st_size
    assert ls.size_on_disk(row) == wanted
    scores_file(path).unlink()
    assert ls.size_on_disk(row) == path.stat().st_size


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"labels": other_labels}, "labels of toys changed since"),
        ({"split": np.repeat([0, 1, 2], (50, 30, 20))}, "split of toys changed since"),
        (
            {"groups": np.array([f"q{i // 2}" for i in range(100)])},
            "patients of toys changed since",
        ),
        ({"groups": None}, "patients of toys changed since"),
        ({"ids": np.array([f"{i:06d}" for i in range(100)])}, "ids, images of a sample of toys"),
    ],
)
def test_tables_that_changed_make_a_row_stale(shelf, capsys, changed, why):
    lay_features(shelf, **changed)
    out = answered(capsys, "ls", "--stale")
    stale = read_row(row_of(shelf, "toys", "toy"))["id"][:8]
    assert why in out
    assert stale in out
    # The other encoder's file still has them, and with it whatever needs no file of its own.
    assert "1 row," in out
    before = all_files(shelf / "results")
    answered(capsys, "gc", "--yes")
    gone = before - all_files(shelf / "results")
    assert len(gone) == 2
    assert all(stale in file.name for file in gone)


def test_what_needs_no_file_is_stale_where_no_file_has_its_labels(shelf, capsys):
    for model in ("toy", "other"):
        lay_features(shelf, model=model, labels=other_labels)
    out = answered(capsys, "ls", "--stale", "--data", "toys")
    n = len(list((shelf / "results" / "toys").glob("*.json")))
    assert n > 2  # controls, too
    assert f"{n} rows" in out
    assert out.count("labels of toys changed since") == n


def test_a_file_of_some_images_makes_no_row_stale(shelf, capsys):
    """It has other tables than rows of all; controls need no file of their own."""
    folder = shelf / "features" / "toys"
    for path in folder.glob("*.h5"):
        path.unlink()
    key = {"rows": {"of": 100, "stored": [0, 1, 2]}}
    write_file(folder / "toy_8_tokens_0.h5", make_token_spec(3, key=key, dataset="toys"))
    stale = answered(capsys, "ls", "--stale", "--data", "toys")
    assert "feature file of toys is gone" in stale
    assert "changed since" not in stale


def test_a_feature_file_that_is_gone_makes_its_rows_stale(shelf, capsys):
    (path,) = (shelf / "features" / "toys").glob("other_*.h5")
    path.unlink()
    out = answered(capsys, "ls", "--stale")
    assert "feature file of toys is gone" in out
    assert "1 row," in out
    assert "other" in out


def test_rows_of_a_fine_tuned_encoder_need_no_feature_file(shelf, capsys):
    row = make_row("finetune", dataset="toys", mode="full", training_seed=0)
    write_row(shelf / "results", row)
    for of in read_stored(shelf / "results", stored_files(shelf / "results"))[0]:
        if of.row.answered.kind == "finetune":
            whys = [fault.why for fault in read_shelf(shelf / "features").faults_of(of)]
            # Its labels are made up, so that no file has them.
            assert whys == ["labels, split of toys changed since"]
    write_row(shelf / "results", make_row("finetune", dataset="elsewhere", mode="full"))
    assert "elsewhere" not in answered(capsys, "ls", "--stale")


def test_a_damaged_feature_file_makes_no_row_stale(shelf, capsys):
    path = row_of(shelf, "toys", "other")
    digest = read_row(path)["features"]["digest"]
    (file,) = (shelf / "features" / "toys").glob("other_*.h5")
    file.write_bytes(b"damaged")
    assert "feature file of toys is gone" in answered(capsys, "ls", "--stale")
    file.rename(file.with_name(f"other_32_{digest[:12]}.h5"))  # as extract names it
    assert "nothing is wrong" in answered(capsys, "ls", "--stale")


def test_a_file_that_is_being_written_is_there(shelf, capsys):
    (path,) = (shelf / "features" / "toys").glob("other_*.h5")
    path.rename(path.with_name(f"{path.name}.partial"))
    assert "nothing is wrong" in answered(capsys, "ls", "--stale")


def test_other_faults_are_named_and_not_called_stale(shelf, capsys):
    paths = [
        row_of(shelf, *names) for names in (("toys", "toy"), ("toys", "other"), ("more", "toy"))
    ]
    scores_file(paths[0]).unlink()
    scores_file(paths[1]).write_bytes(b"damaged")
    make_earlier(paths[2])
    out = answered(capsys, "ls", "--stale")
    for why in ("scores are missing", "scores are damaged", "written as row_version 1, now 3"):
        assert out.count(why) == 1
    assert "3 rows" in out
    assert "stale: " not in out
    assert "2 without scores: `report gc --damaged` deletes them" in out
    before = all_files(shelf / "results")
    out = answered(capsys, "gc", "--yes")
    assert all_files(shelf / "results") == before
    assert out.count("stays; --damaged deletes it") == 2
    assert out.count("written as row_version 1, now 3; stays\n") == 1
    assert "deleted 2 rows" in answered(capsys, "gc", "--yes", "--damaged")
    assert [path.exists() for path in paths] == [False, False, True]


def test_with_an_overlay_its_own_tables_do_not_matter(shelf, capsys):
    table = shelf / "labels.csv"
    table.write_text("id,grade\n" + "".join(f"{i:05d},{'ab'[i % 2]}\n" for i in range(100)))
    words = f"--kind ridge --model toy --data toys --labels {table} --split 60/20/20 --layer=-1"
    assert probe_cli.main([*words.split(), "--resamples", "20", "--name", "over"]) == 0
    capsys.readouterr()
    lay_features(shelf, labels=other_labels, split=np.repeat([0, 1, 2], (50, 30, 20)))
    out = answered(capsys, "ls", "--stale")
    assert "labels, split of toys changed since" in out
    assert "over" not in out
    lay_features(shelf, ids=np.array([f"{i:06d}" for i in range(100)]))
    assert "over" in answered(capsys, "ls", "--stale")


def test_what_another_data_set_taught_is_stale_with_that_data_set(shelf, capsys):
    words = "--kind ridge --model toy --train-data more --test-data toys --resamples 20 --name far"
    assert probe_cli.main([*words.split(), "--layer=-1"]) == 0
    capsys.readouterr()
    assert "nothing is wrong" in answered(capsys, "ls", "--stale")
    lay_features(shelf, "more", labels=other_labels)
    (line,) = [x for x in answered(capsys, "ls", "--stale").splitlines() if "far" in x]
    assert "labels of more changed since" in line


def test_without_feature_files_nobody_knows(shelf, capsys):
    out = answered(capsys, "ls", "--features", shelf / "none")
    assert "no feature file below" in out
    listed = answered(capsys, "ls", "--stale", "--features", shelf / "none")
    assert "nothing else is wrong with any row" in listed
    assert "is gone" not in out
    before = all_files(shelf / "results")
    status, out, err = run(capsys, "gc", "--yes", "--features", shelf / "none")
    assert status == 1
    assert "name their folder with --features" in err
    assert all_files(shelf / "results") == before


# ------------------------------------------------------------------ rm


@pytest.mark.parametrize("how", ["id", "file", "stem"])
def test_a_row_is_deleted_with_its_scores_and_nothing_else(shelf, capsys, how):
    path = row_of(shelf, "toys", "toy")
    word = {"id": read_row(path)["id"][:8], "file": path, "stem": path.stem}[how]
    before, wanted = all_files(shelf / "results"), {path, scores_file(path)}
    assert "deleted 1 row" in answered(capsys, "rm", word, "--yes")
    assert before - all_files(shelf / "results") == wanted
    history = answered(capsys, "ledger", "--data", "toys")
    assert ledger_path(shelf / "results").exists()
    assert " 1 " in history


def test_a_row_that_is_named_twice_is_one(shelf, capsys, monkeypatch):
    path = row_of(shelf, "toys", "toy")
    monkeypatch.chdir(path.parent)
    assert "deleted 1 row," in answered(capsys, "rm", path.name, path, path.stem, "--yes")


def test_rows_are_deleted_by_what_they_are(shelf, capsys):
    before = all_files(shelf / "results")
    kept = {path for path in before if "toys" not in path.parts}
    answered(capsys, "rm", "--data", "toys", "--yes")
    assert all_files(shelf / "results") == kept
    assert "no such row" in refused(capsys, "rm", "--data", "toys", "--yes")


def test_the_ledger_counts_deleted_rows_that_had_no_line(shelf, capsys):
    ledger_path(shelf / "results").unlink()  # as of rows that were copied here
    before = [of.n_questions for of in read_ledger(shelf / "results").histories]
    assert sum(before) > 2
    answered(capsys, "rm", "--data", "toys", "--yes")
    lay_features(shelf, "more", labels=other_labels)
    answered(capsys, "gc", "--yes")
    assert not read_stored(shelf / "results", stored_files(shelf / "results"))[0]
    assert [of.n_questions for of in read_ledger(shelf / "results").histories] == before


@pytest.mark.parametrize("words", [["--yes"], ["abcd", "--kind", "ridge", "--yes"], ["nothing"]])
def test_nothing_is_deleted_on_a_doubt(shelf, capsys, words):
    before = all_files(shelf / "results")
    refused(capsys, "rm", *words)
    assert all_files(shelf / "results") == before


@pytest.mark.parametrize("command", [["rm", "--data", "toys"], ["gc"]])
@pytest.mark.parametrize("answer", [None, "n", "", "y"])
def test_deleting_is_asked_for(shelf, capsys, monkeypatch, command, answer):
    (path,) = (shelf / "features" / "toys").glob("other_*.h5")
    path.unlink()
    before = all_files(shelf / "results")

    class Terminal:
        def isatty(self):
            return answer is not None

        def readline(self):
            return f"{answer}\n"

    monkeypatch.setattr("sys.stdin", Terminal())
    status, out, err = run(capsys, *command)
    is_deleted = answer == "y"
    assert (all_files(shelf / "results") != before) == is_deleted
    assert status == (1 if answer is None else 0)
    assert "add --yes" in err if answer is None else "delete 1 row" in out or "rows" in out


def test_a_row_that_was_asked_again_meanwhile_stays(shelf, capsys, monkeypatch):
    path = row_of(shelf, "toys", "toy")

    def agree(what, is_agreed):
        content = read_row(path)
        write_again(path, {**content, "seconds": content["seconds"] + 1})
        return True

    monkeypatch.setattr("probe.report.commands.rm.confirm", agree)
    _, out, err = run(capsys, "rm", path)
    assert path.exists()
    assert scores_file(path).exists()
    assert "asked again meanwhile" in err
    assert "deleted 0 rows" in out


def write_again(path, content):
    """A row as if it were asked again."""
    import hashlib

    rest = {name: value for name, value in content.items() if name != "sha256"}
    digest = hashlib.sha256(canonical_json(rest).encode()).hexdigest()
    path.write_text(json.dumps({**rest, "sha256": digest}))


# ------------------------------------------------------------------ gc


def test_what_belongs_to_no_row_is_deleted(shelf, capsys):
    folder = shelf / "results" / "toys"
    own = row_of(shelf, "toys", "toy")
    orphans = [
        folder / "x_32_knn_0123456789abcdef.0123456789abcdef.npz",
        folder / "x_32_knn_0123456789abcdef.npz",
        own.with_name(f"{own.stem}.0123456789abcdef.npz"),
    ]
    partial = folder / ".x.0123456789abcdef.medprobe"
    others = [folder / name for name in ("mine.npz", "notes.json.npz", "a.csv")]
    for path in (*orphans, partial, *others):
        path.write_bytes(b"0")
    before = all_files(shelf / "results")
    out = answered(capsys, "gc", "--dry-run")
    assert "would delete 3 files of scores without a row, 1 file that killed writers left" in out
    assert all_files(shelf / "results") == before
    assert "deleted 4 other files" in answered(capsys, "gc", "--yes")
    assert before - all_files(shelf / "results") == {*orphans, partial}
    assert "nothing to delete" in answered(capsys, "gc", "--yes")


def test_damaged_rows_stay_unless_they_are_asked_for(shelf, capsys):
    path = row_of(shelf, "toys", "toy")
    scores = scores_file(path)
    path.write_text(path.read_text().replace('"seed": 0', '"seed": 1'))
    foreign = path.with_name("notes.json")
    foreign.write_text("{}")
    before = all_files(shelf / "results")
    status, out, err = run(capsys, "gc", "--yes")
    assert (status, out) == (1, "nothing to delete\n")
    assert str(path) in err
    assert str(foreign) in err
    assert all_files(shelf / "results") == before
    status, out, err = run(capsys, "gc", "--yes", "--damaged")
    assert before - all_files(shelf / "results") == {path, scores}
    assert str(foreign) in err


def test_rows_of_a_later_medprobe_are_not_damaged(shelf, capsys):
    path = row_of(shelf, "toys", "toy")
    rewrite(path, row_version=99)
    before = all_files(shelf / "results")
    status, _, err = run(capsys, "gc", "--yes", "--damaged")
    assert (status, all_files(shelf / "results")) == (1, before)
    assert "a row of version 99" in err


def test_a_file_that_cannot_be_deleted_stops_no_other(shelf, capsys, monkeypatch):
    paths = sorted((shelf / "results").glob("*/*.json"))[:2]
    for path in paths:
        path.write_text("{")
    unlink = Path.unlink

    def fail(path, **how):
        if path == paths[0]:
            raise PermissionError(13, "Permission denied", str(path))
        unlink(path, **how)

    monkeypatch.setattr(Path, "unlink", fail)
    assert f"{paths[0]}: Permission denied" in refused(capsys, "gc", "--yes", "--damaged")
    assert [path.exists() for path in paths] == [True, False]


def test_damaged_rows_are_named_and_left_out_of_the_list(shelf, capsys):
    path = row_of(shelf, "toys", "toy")
    path.write_text("{")
    status, out, err = run(capsys, "ls")
    assert status == 1
    assert str(path) in err
    assert path.stem[-16:][:8] not in out
    refused(capsys, "rm", path, "--yes")
    assert path.exists()


@pytest.mark.posix
def test_what_a_writer_holds_stays(shelf, capsys):
    import fcntl

    path = shelf / "results" / "toys" / ".x.0123456789abcdef.medprobe"
    path.write_bytes(b"0")
    with path.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        out = answered(capsys, "gc", "--yes")
        assert "deleted 0 other files" in out
    assert path.exists()


@pytest.mark.posix
@pytest.mark.skipif(os.name == "posix" and os.geteuid() == 0, reason="root writes anywhere")
def test_a_folder_that_cannot_be_written_is_said(shelf, capsys):
    folder = shelf / "results" / "toys"
    folder.chmod(0o500)
    try:
        assert "Permission denied" in refused(capsys, "rm", "--data", "toys", "--yes")
    finally:
        folder.chmod(0o700)


def test_an_interrupted_import_ends_quietly(capsys, monkeypatch):
    def interrupted(name):
        raise KeyboardInterrupt

    monkeypatch.setattr("probe.report.cli.import_module", interrupted)
    assert run(capsys, "ls") == (130, "", "report ls: interrupted\n")


def test_formats(shelf, capsys):
    found = json.loads(answered(capsys, "ls", "--format", "json"))
    assert found
    assert answered(capsys, "ls", "--format", "csv").count("\n") > 3
