"""Folders and tables of a user's own images, listed before any of them is opened."""

import argparse
import dataclasses
import json
import unicodedata
from pathlib import Path

import numpy as np
import pytest

from cache.commands.settings import add_flags, given, words
from cache.errors import RequestError
from cache.labels.target import describe_target
from cache.task import ASKED, MISSING
from extract.datasets.arrays.medmnist import FLAGS
from extract.datasets.files import definitions
from extract.datasets.files.decode import IMAGE_SUFFIXES
from extract.datasets.files.folders import list_folder
from extract.datasets.files.options import TableOptions
from extract.datasets.files.tables import list_table

TRAIN, VAL, TEST = 0, 1, 2


def touch(root: Path, *paths: str) -> Path:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()
    return root


# ---------------------------------------------------------------------------- folders


def test_class_folders(tmp_path):
    root = touch(tmp_path / "My scans", "normal/b.png", "abnormal/deep/er/a.JPG", "normal/a.nii.gz")
    listing = list_folder(root)
    assert listing.name == "My-scans"
    assert listing.paths == ("abnormal/deep/er/a.JPG", "normal/a.nii.gz", "normal/b.png")
    assert listing.ids == listing.paths
    assert listing.target.class_names == ("normal", "abnormal")
    assert listing.target.labels.tolist() == [1, 0, 0]
    assert listing.sample.tolist() == [0, 1, 2]
    assert (listing.split, listing.groups, listing.window) == (None, None, None)
    assert list_folder(root, "mine").name == "mine"


def test_folders_of_splits(tmp_path):
    touch(tmp_path, "Training/1/a.png", "Training/10/b.png", "Training/9/x.png", "testing/9/c.png")
    listing = list_folder(tmp_path)
    found = dict(zip(listing.ids, listing.split.tolist(), strict=True))
    assert found == {
        "Training/1/a.png": TRAIN,
        "Training/10/b.png": TRAIN,
        "Training/9/x.png": TRAIN,
        "testing/9/c.png": TEST,
    }
    assert listing.target.class_names == ("1", "9", "10")
    touch(tmp_path, "valid/9/d.png")
    assert VAL in list_folder(tmp_path).split
    touch(tmp_path, "val/9/e.png")
    with pytest.raises(RequestError, match="two of Training, testing, val, valid are one split"):
        list_folder(tmp_path)


def test_every_ending_of_an_image_counts(tmp_path):
    touch(tmp_path, *(f"a/{i}{s.upper()}" for i, s in enumerate(IMAGE_SUFFIXES)), "b/x.png")
    assert len(list_folder(tmp_path).paths) == len(IMAGE_SUFFIXES) + 1
    touch(tmp_path / "more", " a/1.png", "b/1.png")  # tables' cells are stripped, and so are ids
    listing = list_folder(tmp_path / "more")
    assert listing.ids == ("a/1.png", "b/1.png")
    assert listing.paths == (" a/1.png", "b/1.png")


def test_what_is_passed_over_is_said(tmp_path):
    touch(
        tmp_path, "a/1.png", "a/2.png", "b/1.png", "b/2.png", "c/readme.txt", "a/x.csv", "d/IM0001"
    )
    hidden = ("a/.hidden.png", "a/._1.png", ".git/x.png", "__MACOSX/a/._1.png", "a/.cache/x.png")
    touch(tmp_path, *hidden, "loose.png", "Thumbs.db")
    listing = list_folder(tmp_path)
    assert listing.paths == ("a/1.png", "a/2.png", "b/1.png", "b/2.png")
    assert listing.notes == (
        "left out: 1 in no class folder (loose.png)",
        "no images in c, d, so no such class",
        "passed over: 1 .db, 1 .csv, 1 .txt, 1 without ending",
    )


def test_a_class_may_lack_a_split(tmp_path):
    touch(tmp_path, "train/a/1.png", "train/b/1.png", "test/a/2.png", "docs/notes.txt")
    (tmp_path / "test" / "b").mkdir()
    (tmp_path / "test" / "c").mkdir()
    notes = list_folder(tmp_path).notes
    assert "no images in c, so no such class" in notes


@pytest.mark.parametrize(
    ("paths", "says"),
    [
        ([], "no images in .*, but nothing; expected PATH/CLASS/image.png or PATH/train/CLASS"),
        (["a/x.txt", "a/y"], "no images in .*, but 1 .txt, 1 without ending"),
        (
            ["a.png", "b.png"],
            "2 images in no class folder .a.png, b.png., so they have no labels; .*csv",
        ),
        (["train/a.png", "test/b.png"], "2 images in no class folder .test/b.png"),
        (["a/x.png", "a/y.png"], "one class folder with images, a, .* name it itself"),
        (["train/a/x.png", "test/a/y.png"], "one class folder with images, a, "),
        (["train/a/x.png", "b/y.png"], "folders of splits .train. beside others with images .b."),
    ],
)
def test_other_layouts_are_refused(tmp_path, paths, says):
    with pytest.raises(RequestError, match=says):
        list_folder(touch(tmp_path, *paths))


def test_images_without_labels_may_lie_anywhere(tmp_path):
    touch(tmp_path, "a.png", "train/b.png", "train/x/c.png", "notes.txt")
    listing = list_folder(tmp_path, options=TableOptions(unlabelled=True))
    assert listing.ids == ("a.png", "train/b.png", "train/x/c.png")
    assert (listing.target.is_unlabelled, listing.split) == (True, None)
    assert listing.target.labels.tolist() == [[MISSING]] * 3
    assert listing.notes == ("folders that are read as no split: train", "passed over: 1 .txt")
    assert describe_target(listing.target) == ["labels: none"]


def test_no_folder(tmp_path):
    for path in (tmp_path / "none", touch(tmp_path, "file") / "file"):
        with pytest.raises(RequestError, match="no folder at .*; expected PATH/CLASS"):
            list_folder(path)


@pytest.mark.posix
def test_links_lead_nowhere_else(tmp_path):
    outside = touch(tmp_path / "outside", "x.png")
    root = touch(tmp_path / "root", "a/1.png", "b/1.png")
    link = root / "a" / "2.png"
    for target, message in [
        (outside / "x.png", r"a/2.png is a link that leads out of .*root, to .*x.png"),
        (root / "gone.png", r"a/2.png is a link to nothing"),
        (root, r"a/2.png is a link that leads out of"),  # to the root itself, in a circle
        (root / "b", "is a link to a folder, whose images would be there twice"),
    ]:
        link.symlink_to(target)
        with pytest.raises(RequestError, match=message):
            list_folder(root)
        link.unlink()
    link.symlink_to("1.png")  # inside: another name for it
    assert "a/2.png" in list_folder(root).paths
    link.unlink()
    (tmp_path / "door").symlink_to(root)  # how the root itself is reached is its user's matter
    assert len(list_folder(tmp_path / "door").paths) == 2


def test_one_spelling_of_names(tmp_path):
    apart = unicodedata.normalize("NFD", "é")
    touch(tmp_path, f"train/{apart}/{apart}.png", "train/b/1.png", "test/é/1.png")
    listing = list_folder(tmp_path)
    assert listing.target.class_names == ("b", "é")
    assert f"train/{apart}/{apart}.png" in listing.paths
    assert "train/é/é.png" in listing.ids
    touch(tmp_path, "train/b/x.png", "train/b/X.png")
    assert len(list_folder(tmp_path).ids) == 5
    touch(tmp_path, f"train/{apart}/é.png")
    with pytest.raises(RequestError, match="two files are named train/é/é.png, once with composed"):
        list_folder(tmp_path)


def test_names_that_are_no_utf8(tmp_path):
    touch(tmp_path, "a/1.png", "b/1.png")
    try:
        touch(tmp_path, "a/\udcff.png")
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    with pytest.raises(RequestError, match=r"the file name 'a/\\udcff.png' isn't UTF-8"):
        list_folder(tmp_path)


def test_what_is_said_of_a_folder(tmp_path):
    touch(tmp_path, "0/1.png", "1/1.png", "2/1.png")
    listing = list_folder(
        tmp_path, options=TableOptions(task="ordinal", licence="mine", window="ct")
    )
    assert listing.target.task == "ordinal-regression"
    assert (listing.licence, listing.window) == ("mine", "ct")
    assert listing.notes == ("fewer than 2 samples, so train or test has none: 0, 1, 2",)
    with pytest.raises(
        RequestError, match="is a folder, and --label-col, --group-col is for tables"
    ):
        list_folder(tmp_path, options=TableOptions(label_cols=("y",), group_col="p"))


# ---------------------------------------------------------------------------- tables


def write(tmp_path: Path, *lines: str) -> Path:
    """A table, and every file that its first column names."""
    (tmp_path / "t.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    for line in lines[1:]:
        name = line.split(",")[0]
        if name and ".." not in name and not name.startswith("/"):
            touch(tmp_path, name)
    return tmp_path / "t.csv"


def test_a_table(tmp_path):
    path = write(
        tmp_path,
        "path,label,split,patient,age,sex,site",
        "a/1.png,malignant,train,p1,45,f,",
        "./a/2.png,benign,Training,p1,,m,x",
        "3.png,benign,dev,p2,3.5,NA,",
        "4.png,malignant,TEST,p3,nan,f,",
        "5.png,malignant,,p3,9,f,",
    )
    options = TableOptions(
        group_col="patient", meta_cols=("age", "sex"), window="ct", licence="own"
    )
    listing = list_table(path, options)
    assert (listing.name, listing.root) == ("t", tmp_path)
    assert listing.paths == listing.ids == ("a/1.png", "a/2.png", "3.png", "4.png")
    assert listing.target.class_names == ("benign", "malignant")
    assert listing.target.labels.tolist() == [1, 0, 0, 1]
    assert listing.split.tolist() == [TRAIN, TRAIN, VAL, TEST]
    assert listing.groups.tolist() == ["p1", "p1", "p2", "p3"]
    np.testing.assert_array_equal(listing.meta["age"], [45, np.nan, 3.5, np.nan])
    assert listing.meta["sex"].tolist() == ["f", "m", "NA", "f"]
    assert (listing.window, listing.licence) == ("ct", "own")
    assert listing.notes == (
        "left out: 1 without split",
        "columns not used: site (--group-col, --meta-cols)",
    )


def test_a_table_without_labels(tmp_path):
    path = write(tmp_path, "path,split,patient", "a.png,test,p1", "b.png,,p2", "c.png,test,p2")
    with pytest.raises(RequestError, match="no column label, .* --label-col, or say --unlabelled"):
        list_table(path)
    listing = list_table(path, TableOptions(unlabelled=True, group_col="patient"))
    assert (listing.ids, listing.groups.tolist()) == (("a.png", "c.png"), ["p1", "p2"])
    assert listing.target.is_unlabelled
    assert listing.target.labels.shape == (2, 1)
    assert listing.notes == ("left out: 1 without split",)


def test_columns_by_name(tmp_path):
    touch(tmp_path / "images", "7.dcm.png", "8.dcm.png")
    path = write(tmp_path, "key,grade,who,fold,path", "7,0,b,train,", "8,2,a,test,")
    options = TableOptions(
        path_col="key",
        label_cols=("grade",),
        id_col="who",
        split_col="fold",
        suffix=".dcm.png",
        root=str(tmp_path / "images"),
        task="ordinal",
    )
    listing = list_table(path, options, name="mine")
    assert (listing.name, listing.root) == ("mine", tmp_path / "images")
    assert (listing.paths, listing.ids) == (("7.dcm.png", "8.dcm.png"), ("b", "a"))
    assert (listing.target.task, listing.target.labels.tolist()) == ("ordinal-regression", [0, 1])


@pytest.mark.parametrize("name", ["path", "image", "file", "filename"])
def test_the_usual_names_of_paths_are_known(tmp_path, name):
    path = write(tmp_path, f"{name},label", "1.png,a", "2.png,b")
    assert list_table(path).paths == ("1.png", "2.png")
    assert list_table(path).split is None


def test_several_labels(tmp_path):
    path = write(
        tmp_path, "path,Edema,Mass,all", "1.png,1,,Mass|Edema", "2.png,-1,0,", "3.png,,,nan"
    )
    side_by_side = list_table(path, TableOptions(label_cols=("Edema", "Mass")))
    assert side_by_side.target.task == ASKED["multi-label"]
    assert side_by_side.target.labels.tolist() == [[1, -1], [-2, 0], [-1, -1]]
    listed = list_table(path, TableOptions(label_cols=("all",), label_sep="|"))
    assert listed.target.labels.tolist() == [[1, 1], [0, 0], [MISSING, MISSING]]


@pytest.mark.parametrize(("task", "labels"), [(None, [0, 1]), ("regression", [1.0, 2.0])])
def test_samples_without_a_label_are_left_out(tmp_path, task, labels):
    path = write(
        tmp_path, "path,label", "1.png,1", "2.png,", "3.png,nan", "", "4.png,2", "5.png,NA"
    )
    (tmp_path / "5.png").unlink()  # of a row that is left out nothing is asked
    listing = list_table(path, TableOptions(task=task))
    assert (listing.ids, listing.target.labels.tolist()) == (("1.png", "4.png"), labels)
    assert listing.notes[0] == "left out: 3 without a label (lines 3, 4, 7)"


LINES_OF_STUDIES = (
    "path,study,label,split,patient,sex",
    "1.png,s1,a,train,p,f",
    "2.png,s2,b,,q,m",
    "3.png,s3,b,test,q,m",
    "4.png,s1,a,train,p,f",
    "5.png,s4,,test,r,m",
)


def test_many_files_of_one_sample(tmp_path):
    options = TableOptions(sample_col="study", group_col="patient", meta_cols=("sex",))
    path = write(tmp_path, *LINES_OF_STUDIES)
    listing = list_table(path, options)
    assert listing.ids == ("s1", "s3")
    assert listing.paths == ("1.png", "3.png", "4.png")
    assert listing.sample.tolist() == [0, 1, 0]
    assert listing.split.tolist() == [TRAIN, TEST]
    assert listing.groups.tolist() == ["p", "q"]
    for number, name in enumerate(("label", "split", "patient", "sex"), 2):
        cells = LINES_OF_STUDIES[4].split(",")
        cells[number] = {"split": "val"}.get(name, "b")
        bad = [*LINES_OF_STUDIES[:4], ",".join(cells), LINES_OF_STUDIES[5]]
        with pytest.raises(
            RequestError, match=f"column {name}, line 5: .* in line 2, which is of the"
        ):
            list_table(write(tmp_path, *bad), options)


def test_patients_that_are_not_known_are_not_one_patient(tmp_path):
    path = write(tmp_path, "path,label,patient", "1.png,a,p", "2.png,b,", "3.png,b,")
    listing = list_table(path, TableOptions(group_col="patient"))
    assert len(set(listing.groups.tolist())) == 3
    assert "without patient: 2, each taken for a patient by itself (lines 3, 4)" in listing.notes


TWO = ["path,label", "1.png,a"]  # lines of a table, to which a bad one is added


@pytest.mark.parametrize(
    ("lines", "options", "says"),
    [
        (["path,label,split", "1.png,a,", "2.png,b,"], {}, "column split is empty in every row"),
        ([*TWO, "2.png,a"], {}, "column label: one class only"),
        ([*TWO, "1.png,b"], {}, "column path, line 3: 1.png stands in line 2 too"),
        ([*TWO, "./1.png,b"], {}, "column path, line 3: 1.png stands in line 2 too"),
        (
            ["path,label,who", "1.png,a,x", "1.png,b,y"],
            {"id_col": "who"},
            "path, line 3: 1.png stands in line 2 too; one file belongs",
        ),
        ([*TWO, ",b"], {}, "column path, line 3: '' is no path below"),
        ([*TWO, "../2.png,b"], {}, "column path, line 3: '../2.png' is no path below"),
        ([*TWO, "x/../../2.png,b"], {}, "line 3: 'x/../../2.png' is no path below"),
        ([*TWO, "/etc/passwd,b"], {}, "line 3: '/etc/passwd' is no path below"),
        ([*TWO, "x/..,b"], {}, "line 3: 'x/..' is no path below"),
        ([*TWO, "x\\2.png,b"], {}, "line 3: .* has backslashes; write / between"),
        ([*TWO, f"{'x/' * 1500}y.png,b"], {}, "line 3: .* more than 500 folders deep"),
        (
            ["path,label,split", "1.png,a,train", "2.png,b,extra"],
            {},
            "split, line 3: 'extra' is no split",
        ),
        (
            ["paths,label", "1.png,a"],
            {},
            "no column path or image or file .*, but paths, label; .*--path-col",
        ),
        (["path,class", "1.png,a"], {}, "no column label, but path, class; .*--label-col"),
        (["path,label", "1.png,1.5", "2.png,2"], {}, "label, line 2: 1.5 is no class number"),
        (
            ["path,label,age/years", "1.png,a,3", "2.png,b,4"],
            {"meta_cols": ("age/years",)},
            "column 'age/years' can't be kept; rename it",
        ),
    ],
)
def test_bad_rows_are_refused_by_line_and_column(tmp_path, lines, options, says):
    path = tmp_path / "t.csv"
    path.write_text("\n".join(lines))
    touch(tmp_path, "1.png", "2.png")
    with pytest.raises(RequestError, match=says) as caught:
        list_table(path, TableOptions(**options))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "name",
    ["meta_cols", "group_col", "split_col", "sample_col", "id_col", "label_cols", "path_col"],
)
def test_columns_that_are_missing(tmp_path, name):
    path = write(tmp_path, "path,label,Sex", "1.png,a,f", "2.png,b,m")
    options = TableOptions(**{name: ("sex",) if name.endswith("cols") else "sex"})
    with pytest.raises(RequestError, match="no column 'sex' in .*; did you mean Sex"):
        list_table(path, options)


def test_missing_files_are_counted_and_named(tmp_path):
    path = write(tmp_path, "path,label", *(f"{i}.png,{i % 2}" for i in range(8)))
    for i in (1, 3, 5, 7):
        (tmp_path / f"{i}.png").unlink()
    (tmp_path / "7.png").mkdir()  # a folder is no file
    says = r"4 of 8 files aren't in .*: 1.png .line 3., 3.png .line 5., 5.png .line 7. \.\.\.; is --root"
    with pytest.raises(RequestError, match=says):
        list_table(path)
    touch(tmp_path, "1.png.dcm")
    with pytest.raises(RequestError, match="add --suffix .dcm"):
        list_table(path)


@pytest.mark.posix
def test_paths_that_are_absolute_but_inside(tmp_path):
    touch(tmp_path, "in/1.png", "in/2.png")
    (tmp_path / "door").symlink_to(tmp_path / "in")
    path = tmp_path / "t.csv"
    path.write_text(f"path,label\n{tmp_path}/in/1.png,a\n{tmp_path}/in/2.png,b\n")
    for root in ("in", "door"):
        listing = list_table(path, TableOptions(root=str(tmp_path / root)))
        assert listing.paths == listing.ids == ("1.png", "2.png")
    everything = list_table(path, TableOptions(root="/"))
    assert everything.paths[0] == f"{tmp_path}/in/1.png"[1:]


@pytest.mark.posix
def test_links_of_a_table_stay_inside(tmp_path):
    outside = touch(tmp_path / "outside", "x.png", "deep/y.png")
    root = touch(tmp_path / "root", "1.png")
    (root / "2.png").symlink_to(outside / "x.png")
    (root / "far").symlink_to(outside)
    (root / "near").symlink_to("1.png")
    for name in ("2.png", "far/x.png", "far/deep/y.png"):
        (root / "t.csv").write_text(f"path,label\n1.png,a\n{name},b\n")
        with pytest.raises(RequestError, match="column path, line 3: .* a link that leads out of"):
            list_table(root / "t.csv")
    (root / "t.csv").write_text("path,label\n1.png,a\nnear,b\n")
    assert list_table(root / "t.csv").paths == ("1.png", "near")  # what isn't named isn't looked at


def test_accents_are_found_however_they_are_spelt(tmp_path):
    apart = unicodedata.normalize("NFD", "Läsion/ö.png")
    touch(tmp_path, apart, "1.png")
    (tmp_path / "t.csv").write_text("path,label\nLäsion/ö.png,a\n1.png,b\n", encoding="utf-8")
    listing = list_table(tmp_path / "t.csv")
    assert (listing.ids[0], listing.paths[0]) == ("Läsion/ö.png", apart)


@pytest.mark.posix
def test_a_link_in_a_circle_disturbs_no_table(tmp_path):
    root = touch(tmp_path, "1.png", "2.png")
    (root / "circle").symlink_to("circle")
    (root / "t.csv").write_text("path,label\n1.png,a\n2.png,b\n")
    assert list_table(root / "t.csv").paths == ("1.png", "2.png")
    (root / "t.csv").write_text("path,label\n1.png,a\ncircle,b\n")
    with pytest.raises(RequestError, match=r"1 of 2 files aren't in .*: circle \(line 3\)"):
        list_table(root / "t.csv")


# ---------------------------------------------------------------------------- options and flags


FULL = TableOptions(
    path_col="p",
    label_cols=("a", "b"),
    label_sep="|",
    split_col="s",
    group_col="g",
    meta_cols=("m", "n"),
    sample_col="x",
    root="/data",
    suffix="-x.png",
    task="binary",
    positive="bad",
    licence="CC0",
    window="ct",
)


def parse(arguments: list[str]) -> TableOptions:
    parser = argparse.ArgumentParser()
    add_flags(parser, TableOptions)
    return TableOptions(**given(parser.parse_args(arguments), TableOptions))


def test_options_come_back_from_json():
    assert TableOptions().as_json() == {}
    for options in (FULL, TableOptions(id_col="i"), TableOptions(unlabelled=True), TableOptions()):
        again = TableOptions.from_json(json.loads(json.dumps(options.as_json())))
        assert again == options
        assert hash(again) == hash(options)


def test_flags_say_what_options_say():
    assert parse([]) == TableOptions()
    said = words(FULL)
    assert "--suffix=-x.png" in said
    assert parse(said) == TableOptions(**{**vars(FULL), "licence": "", "window": None})
    assert parse(["--label-col", "a, b"]).label_cols == ("a", "b")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: parse(["--label-col", ","]), "--label-col takes one or more, comma separated"),
        (lambda: TableOptions(task="other"), "--task takes binary, .*, not 'other'"),
        (
            lambda: TableOptions(unlabelled=True, task="binary"),
            "--task is of labels, and --unlabelled has none",
        ),
        (
            lambda: TableOptions.from_json({"unlabelled": "yes"}),
            "option 'unlabelled' can't be 'yes'",
        ),
        (
            lambda: TableOptions(sample_col="study", id_col="path"),
            "--sample-col names the samples already",
        ),
    ],
)
def test_options_that_can_not_be(make, message):
    with pytest.raises(RequestError, match=message):
        make()


# ---------------------------------------------------------------------------- definitions


@pytest.fixture
def settings(tmp_path, monkeypatch):
    monkeypatch.setenv("MEDPROBE_DATASETS", str(tmp_path / "sets"))
    return tmp_path / "sets"


def test_where_definitions_are(tmp_path, monkeypatch):
    monkeypatch.setenv("MEDPROBE_DATASETS", "x")
    assert definitions.definitions_dir() == Path("x")
    monkeypatch.delenv("MEDPROBE_DATASETS")
    monkeypatch.setenv("XDG_CONFIG_HOME", "/c")
    assert definitions.definitions_dir() == Path("/c/medprobe/datasets")
    monkeypatch.delenv("XDG_CONFIG_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert definitions.definitions_dir() == tmp_path / ".config/medprobe/datasets"


def test_a_definition_is_kept_and_forgotten(settings, tmp_path, monkeypatch):
    assert definitions.names() == ()
    assert definitions.load("mine") is None
    path = write(tmp_path, "path,y", "1.png,a", "2.png,b")
    monkeypatch.chdir(tmp_path)
    saved = definitions.save(
        "mine", "csv", Path("t.csv"), TableOptions(label_cols=("y",), root=".")
    )
    assert saved.path == path
    assert saved.options.root == str(tmp_path)
    assert definitions.load("mine") == saved
    assert definitions.save("mine", "csv", path, saved.options) == saved  # again, the same
    with pytest.raises(
        RequestError, match="mine is csv:.* already; `extract data remove mine` first"
    ):
        definitions.save("mine", "csv", path)
    definitions.save("a.b-c_1", "folder", tmp_path)
    assert definitions.names() == ("a.b-c_1", "mine")
    assert sorted(p.name for p in settings.iterdir()) == ["a.b-c_1.json", "mine.json"]
    monkeypatch.chdir("/")
    listing = saved.list()
    assert (listing.name, listing.ids) == ("mine", ("1.png", "2.png"))
    definitions.remove("mine")
    assert definitions.names() == ("a.b-c_1",)
    with pytest.raises(RequestError, match="no data set 'mine' was added; there are: a.b-c_1"):
        definitions.remove("mine")


def test_a_folder_is_listed_under_its_definition_s_name(settings, tmp_path):
    touch(tmp_path / "scans", "a/1.png", "b/1.png")
    saved = definitions.save("mine", "folder", tmp_path / "scans", TableOptions(positive="a"))
    listing = saved.list()
    assert (listing.name, listing.target.positive_class) == ("mine", "a")


@pytest.mark.parametrize("name", ["", ".x", "-x", "A", "a/b", "../x", "a b", "é", "a\n", "x" * 101])
def test_names_that_no_data_set_can_have(settings, name):
    with pytest.raises(RequestError, match="can't name a data set; expected a-z"):
        definitions.save(name, "csv", Path("t.csv"))
    assert definitions.load(name) is None
    with pytest.raises(RequestError, match="no data set .* was added"):
        definitions.remove(name)


@pytest.mark.parametrize("name", [FLAGS[0], "organmnist3d", "demo", "all", "all3d", "recipe"])
def test_names_that_are_taken(settings, name):
    with pytest.raises(RequestError, match=f"{name} is the name of a published set"):
        definitions.save(name, "csv", Path("t.csv"), reserved=("recipe",))


DEFINITION = {"version": 1, "kind": "csv", "path": "/x", "options": {}}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "Expecting value"),
        ("[]", "expected a JSON object"),
        ("{}", "expected version 1, found None"),
        ('{"version": 2}', "expected version 1, found 2"),
        ('{"version": 1, "kind": "csv", "path": "/x"}', "missing or unknown: options"),
        ({"more": 1}, "missing or unknown: more"),
        ({"kind": "zip"}, "unknown kind 'zip'"),
        ({"path": "x"}, "path must be absolute"),
        ({"path": 3}, "path must be absolute"),
        ({"options": []}, "options as a JSON object"),
        ({"options": {"pth_col": "a"}}, "unknown option 'pth_col'"),
        ({"options": {"label_cols": "a"}}, "option 'label_cols' can't be 'a'"),
        ({"options": {"task": 1}}, "option 'task' can't be 1"),
        ("[" * 100_000, "no definition"),
        ("\udcff", "no definition"),
    ],
)
def test_damaged_definitions_are_named(settings, content, says):
    settings.mkdir()
    text = content if isinstance(content, str) else json.dumps(DEFINITION | content)
    (settings / "mine.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(RequestError, match=says) as caught:
        definitions.load("mine")
    assert str(caught.value).startswith(str(settings / "mine.json"))
    assert "`extract data remove mine`" in str(caught.value)


def test_a_definition_is_written_whole_or_not_at_all(settings, tmp_path, monkeypatch):
    def fail(self, target):
        raise OSError("disk full")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        definitions.save("mine", "folder", tmp_path)
    assert list(settings.iterdir()) == []


def test_words_that_mean_nothing_are_no_patients_no_labels_no_splits(tmp_path):
    lines = ["path,label,patient,age,split"]
    for i, cells in enumerate(
        ["a,p,40,train", "b,N/A,-,val", "a,n/a,50,test", "-,p,60,train", "b,NaN,70,-", "b,,80,test"]
    ):
        (tmp_path / f"{i}.png").touch()
        lines.append(f"{i}.png,{cells}")
    (tmp_path / "t.csv").write_text("\n".join(lines))
    options = TableOptions(group_col="patient", meta_cols=("age",))
    with pytest.raises(RequestError, match="column split, line 6: '-' is no split"):
        list_table(tmp_path / "t.csv", options)
    named = dataclasses.replace(options, missing=("N/A", "-"))
    listing = list_table(tmp_path / "t.csv", named)
    assert listing.target.class_names == ("a", "b")
    assert listing.ids == ("0.png", "1.png", "2.png", "5.png")
    assert listing.groups.tolist() == ["p", "1.png alone", "2.png alone", "5.png alone"]
    np.testing.assert_array_equal(listing.meta["age"], [40, np.nan, 50, 80])
    # Unnamed, they are told.
    text = (tmp_path / "t.csv").read_text().replace(",-\n", ",\n")
    (tmp_path / "t.csv").write_text(text)
    notes = " | ".join(list_table(tmp_path / "t.csv", options).notes)
    assert "patients that look like none: N/A, n/a (--missing=N/A,n/a)" in notes
    assert "classes that look like missing labels: -; of a table, --missing=-" in notes
