"""``extract data``: what it lists and tells, sets of one's own, contact sheets and twins."""

import json
import shlex
import subprocess
import sys

import numpy as np
import pytest
from here import REPOSITORY
from PIL import Image

from cache import RequestError
from cache.task import ASKED
from extract.cli import main
from extract.datasets.arrays import medmnist
from extract.datasets.arrays.medsegbench import WHOLES
from extract.datasets.files import definitions
from extract.datasets.files.options import TableOptions
from extract.datasets.recipes import RECIPES
from extract.datasets.sources import list_files
from extract.machine.digests import file_md5
from extract.show import facts as data_facts
from extract.show.data import format_table

RECIPE_NAMES = [recipe.name for recipe in RECIPES]


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """An empty home and working folder: no MedMNIST file is where it usually is."""
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("USERPROFILE", str(home))
    monkeypatch.chdir(home)
    return home


@pytest.fixture
def scans(tmp_path):
    """A table of eight images: 6 of train, 1 of val, 1 of test; the last is a copy of the first.

    Images are noise, 12 x 20 px. Patient p0 has images in train and in test.
    """
    folder = tmp_path / "scans"
    folder.mkdir()
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (8, 12, 20), dtype=np.uint8)
    images[7] = images[0]
    rows = ["path,finding,split,patient,age"]
    for i, image in enumerate(images):
        Image.fromarray(image).save(folder / f"{i}.png")
        split = ("train", "val", "test")[max(0, i - 5)]
        rows.append(f"{i}.png,{('benign', 'malignant')[i % 2]},{split},p{i % 7},{30 + i}")
    table = folder / "table.csv"
    table.write_text("\n".join(rows) + "\n")
    return table


def facts(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, dict]:
    """What ``extract data ... --json`` says, by name."""
    assert main(["data", *arguments, "--json"]) == 0
    return {one["name"]: one for one in json.loads(capsys.readouterr().out)}


def complaint(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line that a command ends with."""
    assert main(["data", *arguments]) == 1
    text = capsys.readouterr().err
    assert text.count("\n") == 1, text
    return text


# ---------------------------------------------------------------------------- the list


def test_all_that_data_can_name_is_listed(capsys):
    every = facts(capsys)
    assert list(every) == [*medmnist.FLAGS, *WHOLES, *RECIPE_NAMES, "demo", "demo-masks"]
    assert every["dermamnist"]["licence"] == "CC BY-NC 4.0"
    assert every["breastmnist"]["positive_class"] == "normal, benign"
    assert every["chestmnist"]["n_samples"] == 112120
    assert {one["state"] for name, one in every.items() if name in medmnist.FLAGS} == {
        "needs download"
    }
    assert {every[name]["state"] for name in RECIPE_NAMES} == {"not here"}
    assert {one["task"] for one in every.values() if not one["mask_classes"]} <= set(ASKED.values())


def test_exactly_what_is_here_is_ready(home, tmp_path, write_npz, capsys):
    before = set(facts(capsys, "--ready"))
    assert before <= {"demo", "demo-masks"}
    write_npz(home / ".medmnist" / "bloodmnist_64.npz")
    (tmp_path / "data" / "aptos2019").mkdir(parents=True)
    ready = facts(capsys, "--ready")
    assert set(ready) - before == {"bloodmnist", "aptos2019"}
    assert ready["bloodmnist"]["sizes_here"] == [64]
    # Another root is another place for both.
    write_npz(tmp_path / "other" / "octmnist.npz")
    (tmp_path / "other" / "isic2019").mkdir()
    ready = facts(capsys, "--ready", "--data-root", str(tmp_path / "other"))
    assert set(ready) - before == {"octmnist", "isic2019"}


def test_the_table(capsys):
    assert main(["data"]) == 0
    head, *rows, last = capsys.readouterr().out.splitlines()
    assert head.split() == ["name", "state", "images", "task", "sizes", "here", "licence"]
    lines = {row.split()[0]: " ".join(row.split()) for row in rows}
    assert lines["dermamnist"] == "dermamnist needs download 10 015 multi-class 7 - CC BY-NC 4.0"
    assert lines["breastmnist"] == "breastmnist needs download 780 binary - CC BY 4.0"
    assert lines["chestmnist"].split("download ")[1] == "112 120 multi-label 14 - CC BY 4.0"
    assert last.startswith(f"{len(rows)} data sets, ")


def one(name: str) -> data_facts.Facts:
    facts = {"name": name, "state": "ready", "task": "multi-class", "classes": ["x"] * 11}
    return {**facts, "n_samples": 5856, "sizes_here": [28, 64], "licence": "l" * 20}


@pytest.mark.parametrize(
    ("width", "columns"),
    [
        (0, "name state images task sizes here licence"),
        (69, "name state images task sizes here licence"),
        (68, "name state images task licence"),  # sizes go first
        (57, "name state images task licence"),
        (49, "name state images task licence"),  # then the licence is cut to 12 letters
        (48, "name state images task"),
        (30, "name state images"),
        (5, "name"),
        (3, "na…"),
    ],
)
def test_a_narrow_terminal_gets_fewer_columns(width, columns):
    lines = list(format_table([one("abcd"), one("abc")], width))[:-1]
    assert " ".join(lines[0].split()) == columns
    assert max(map(len, lines)) <= (width or 69)


def test_lists_import_no_torch():
    code = (
        "import sys; from extract.cli import main; status = main(['data', '--ready']);"
        "status += main(['data', 'breastmnist']);"
        "print(*sorted({name.partition('.')[0] for name in sys.modules})); sys.exit(status)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=REPOSITORY,
    )
    heavy = {"torch", "timm", "open_clip", "transformers", "torchvision", "sklearn", "medmnist"}
    assert not heavy & set(result.stdout.splitlines()[-1].split())


def test_medmnist_s_facts_are_its_own():
    from medmnist import INFO

    assert {flag: medmnist.info(flag) for flag in medmnist.FLAGS} == INFO


# ---------------------------------------------------------------------------- all about one


def test_all_about_one_that_is_here(home, write_npz, capsys):
    path = write_npz(home / ".medmnist" / "breastmnist.npz", counts=(20, 6, 10))
    with np.load(path) as file:
        train = np.bincount(file["train_labels"][:, 0], minlength=2).tolist()
    assert main(["data", "breastmnist"]) == 0
    text = capsys.readouterr().out
    assert "  positive class  normal, benign (label 1)\n" in text
    assert "  url             https://zenodo.org/records/10519652\n" in text
    assert "  origins         BUSI\n" in text
    lines = [line.split() for line in text.splitlines()]
    assert ["train", "val", "test"] in lines
    assert lines[-2][:2] == ["malignant", str(train[0])]
    assert lines[-1][:3] == ["normal,", "benign", str(train[1])]
    assert lines[-1][-3:] == ["positive", "(label", "1)"]
    counts = facts(capsys, "breastmnist")["breastmnist"]["counts"]
    assert counts["malignant"]["train"] == train[0]
    assert sum(of["test"] for of in counts.values()) == 10


def test_all_about_one_that_is_not_here(capsys):
    assert main(["data", "chestmnist", "chexpert", "chestmnist"]) == 0
    text = capsys.readouterr().out
    names = [line for line in text.splitlines() if not line.startswith(" ")]
    assert names == ["chestmnist", "chexpert"]
    assert "  state           not here\n" in text
    assert "  needs           a registration" in text
    assert "  layout          train.csv" in text
    assert text.count("  seen by         rad-dino") == 2
    assert "atelectasis, cardiomegaly" in text


def test_a_damaged_file_is_said_not_hidden(home, capsys):
    path = home / ".medmnist" / "breastmnist.npz"
    path.parent.mkdir()
    path.write_bytes(b"PK no more")
    one = facts(capsys, "breastmnist")["breastmnist"]
    assert one["state"] == "damaged"
    assert str(path) in one["problem"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["brestmnist"], "no data set 'brestmnist'; near names: breastmnist"),
        (["folder:x"], "`extract data add NAME folder:x` gives it one"),
        (["remove", "scans"], "no data set 'scans' was added; there are: none"),
        (["add", "show", "folder:x"], "show is a word of `extract data`"),
        (
            ["add", "x", "scans/table.csv"],
            "a data set of your own is csv:FILE, folder:PATH or seg-",
        ),
        (["add", "x", "csv:none.csv"], "none.csv"),
        (["add", "x", "folder:none"], "no folder"),
        (["add", "x", "folder:~nobody.here/x"], "~ leads to no home folder"),
        (["add", "x", "folder:none", "--window", "wide"], "wide"),
        (["show", "all"], "all is several data sets; name one"),
        (["show", "breastmnist,demo"], "is several data sets"),
        (["show", "brestmnist"], "no data set 'brestmnist'"),
        (["show", "demo", "--per-class", "0"], "--per-class takes 1 to 50, not 0"),
        (["show", "demo", "--size", "0"], "--size is the input's side"),
        (["show", "demo", "--protocol", "wu2025"], "name it with --model"),
        (["show", "demo", "--fit-size", "pad"], "name it with --model"),
        (["show", "demo", "-o", "x.jpg"], "-o takes a file that ends in .png, not x.jpg"),
        (["show", "demo", "-o", "none/x.png"], "no folder none for x.png"),
        (["show", "pathmnist"], "pathmnist_224.npz"),
        (["twins", "demo", "--sheets", "-1"], "--sheets takes 0 and more"),
        (["twins", "octmnist"], "octmnist_64.npz; extract --model dinov2 --data octmnist"),
    ],
)
def test_refusals(arguments, message, capsys):
    assert message in complaint(capsys, *arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--redy"], "extract data: unrecognized arguments: --redy"),
        (["demo", "--ready"], "extract data: --ready chooses from the whole list"),
        (["add", "x"], "extract data add: the following arguments are required: SOURCE"),
        (["show", "demo", "--of", "tset"], "extract data show: argument --of: invalid choice"),
        (["twins"], "extract data twins: the following arguments are required: NAME"),
    ],
)
def test_flags_that_cannot_be(arguments, message, capsys):
    with pytest.raises(SystemExit) as end:
        main(["data", *arguments])
    assert end.value.code == 2
    text = capsys.readouterr().err
    assert message in text
    assert text.count("\n") == 1


# ---------------------------------------------------------------------------- a user's own

COLUMNS = ["--label-col", "finding", "--group-col", "patient", "--meta-cols", "age"]


def test_a_table_is_named_once(scans, capsys):
    adding = ["add", "scans", f"csv:{scans}", *COLUMNS, "--licence", "ours"]
    assert main(["data", *adding]) == 0
    text = capsys.readouterr().out
    for line in (
        "8 samples\n",
        "task: binary-class\n",
        "classes: benign (4, 50.0%), malignant (4, 50.0%)\n",
        "positive: malignant (label 1)\n",
        "splits: train 6, val 1, test 1\n",
        "patients: 7\n",
        "kept beside the labels: age\n",
        "kept; now: extract --model dinov2 --data scans\n",
    ):
        assert line in text
    definition = definitions.load("scans")
    assert definition.options.licence == "ours"
    every = facts(capsys)
    assert next(iter(every)) == "scans"
    assert every["scans"]["state"] == "ready"
    assert f"csv:{scans}" in every["scans"]["title"]
    counts = facts(capsys, "scans")["scans"]["counts"]
    assert counts == {
        "benign": {"train": 3, "val": 1, "test": 0},
        "malignant": {"train": 3, "val": 0, "test": 1},
    }
    assert main(["data", "remove", "scans"]) == 0
    assert "its images and its features stay" in capsys.readouterr().out
    assert "scans" not in facts(capsys)
    assert scans.exists()


def test_what_a_definition_does_not_say_is_added_by_the_commands_that_are_named(scans, capsys):
    main(["data", "add", "scans", f"csv:{scans}", *COLUMNS, "--missing=-", "--licence", "ours"])
    capsys.readouterr()
    words = ["--model", "test_vit", "--data", "scans", "--missing=N/A", "--dry-run"]
    assert main(words) == 1
    first, *commands = capsys.readouterr().err.splitlines()
    assert "--missing: scans has its own description; give it a new one" in first
    for command in commands:
        assert main(shlex.split(command)[1:]) == 0
    definition = definitions.load("scans")
    assert definition.options.missing == ("-", "N/A")
    assert definition.options.group_col == "patient"
    assert definition.options.licence == "ours"


def test_a_definition_whose_images_have_gone(scans, capsys):
    main(["data", "add", "scans", f"csv:{scans}", "--label-col", "finding"])
    (scans.parent / "3.png").unlink()
    capsys.readouterr()
    one = facts(capsys, "scans")["scans"]
    assert (one["state"], "3.png" in one["problem"]) == ("damaged", True)
    scans.unlink()
    assert facts(capsys)["scans"]["state"] == "not here"


def test_one_damaged_definition_does_not_hide_the_others(capsys):
    folder = definitions.definitions_dir()
    folder.mkdir(parents=True)
    (folder / "mine.json").write_text("{")
    every = facts(capsys)
    assert every["mine"]["state"] == "damaged"
    assert "mine.json" in every["mine"]["problem"]
    assert len(every) == len(medmnist.FLAGS) + len(WHOLES) + len(RECIPES) + 3


@pytest.mark.posix
def test_what_is_no_file_defines_nothing(capsys):
    folder = definitions.definitions_dir()
    (folder / "folder.json").mkdir(parents=True)
    (folder / "link.json").symlink_to("nowhere")
    assert definitions.names() == ()
    assert len(facts(capsys)) == len(medmnist.FLAGS) + len(WHOLES) + len(RECIPES) + 2


def test_a_definition_older_than_a_recipe_does_not_pass_for_it(scans):
    definitions.save("aptos2019", "csv", scans, TableOptions(label_cols=("finding",)))
    with pytest.raises(RequestError, match="published .* `extract data remove aptos2019`"):
        list_files("aptos2019", None, TableOptions())


def test_names_that_are_taken(scans, capsys):
    for name in ("breastmnist", "aptos2019", "demo", "demo-masks", "all"):
        text = complaint(capsys, "add", name, f"csv:{scans}", "--label-col", "finding")
        assert f"{name} is the name of a published set" in text
    assert definitions.names() == ()


def test_what_cannot_be_read_is_not_kept(scans, capsys):
    assert "has no column label" in complaint(capsys, "add", "scans", f"csv:{scans}")
    assert definitions.names() == ()


def test_a_folder_of_classes(scans, capsys):
    for name in ("a", "b"):
        (scans.parent / name).mkdir()
        for image in scans.parent.glob("*.png"):
            (scans.parent / name / image.name).write_bytes(image.read_bytes())
    assert main(["data", "add", "mine", f"folder:{scans.parent}"]) == 0
    text = capsys.readouterr().out
    assert "splits: none given, so extract makes them" in text
    counts = facts(capsys, "mine")["mine"]["counts"]
    assert counts == {"a": {"all": 8}, "b": {"all": 8}}


# ---------------------------------------------------------------------------- pictures


def test_a_contact_sheet(home, scans, capsys):
    show = ["data", "show", f"csv:{scans}", "--label-col", "finding", "--size", "32", "-j", "0"]
    assert main(show) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "drawn: table_contact_sheet.png"
    assert any(line.startswith("pad-fit to 32 px") for line in lines)  # nothing is squashed
    first = (home / "table_contact_sheet.png").read_bytes()
    with Image.open(home / "table_contact_sheet.png") as sheet:
        assert sheet.width > 3 * 128
    # It is never replaced unasked, and the same question gives the same picture.
    assert main(show) == 1
    assert "is there already; --overwrite replaces it" in capsys.readouterr().err
    assert main([*show, "--overwrite"]) == 0
    assert (home / "table_contact_sheet.png").read_bytes() == first
    capsys.readouterr()
    assert main([*show, "--resize", "scale", "-o", "scaled.png"]) == 0
    assert "scale distorts 6 of the 6 images shown, at most 1.67-fold" in capsys.readouterr().out


def test_a_contact_sheet_for_an_encoder(home, write_npz, capsys, monkeypatch):
    """Its own size and statistics; the network isn't asked for its weights."""
    path = write_npz(home / "mine.npz", channels=3)
    show = ["data", "show", f"npz:{path}", "--model", "test_vit", "--offline"]
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")  # so that it is unset again
    assert main(show) == 0
    assert "scale to 160 px" in capsys.readouterr().out
    assert main([*show, "--protocol", "huix2024", "-o", "huix.png", "--of", "test"]) == 0
    assert "scale-crop (PIL) to 224 px (bilinear" in capsys.readouterr().out


def test_the_file_that_extract_would_take_is_drawn_where_it_is_here(
    home, write_npz, capsys, monkeypatch
):
    for size, suffix in ((28, ""), (64, "_64")):
        path = write_npz(home / ".medmnist" / f"octmnist{suffix}.npz", side=size, classes=4)
        info = medmnist.info("octmnist")
        monkeypatch.setitem(info, f"MD5{suffix}", file_md5(path))
    assert main(["data", "show", "octmnist", "--size", "50"]) == 0
    assert "isn't here" not in capsys.readouterr().out
    assert main(["data", "show", "octmnist", "--overwrite", "--model", "test_vit"]) == 0
    assert "octmnist_224.npz isn't here" in capsys.readouterr().out  # it takes 160 px
    asked = complaint(capsys, "show", "octmnist", "--overwrite", "--source-size", "128")
    assert "octmnist_128.npz; extract --model dinov2 --data octmnist --source-size 128" in asked
    assert main(["data", "show", "octmnist", "--overwrite"]) == 0
    assert (
        "octmnist_224.npz isn't here, which extract would take; 64 px are drawn"
        in capsys.readouterr().out
    )


def test_twins_are_listed_and_drawn(home, scans, capsys):
    twins = ["data", "twins", f"csv:{scans}", "-j", "0", *COLUMNS]
    assert main(twins) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "exact copy  test 7.png (malignant)  train 0.png (benign)  labels differ"
    assert "patient p0: train 1, test 1" in lines
    assert "leaks: 1 exact copy, 1 patient of 1 test samples" in lines
    assert lines[-1] == "drawn: table_twins.png"
    with Image.open(home / "table_twins.png") as sheet:
        sheet.load()
    assert main(twins) == 1
    assert "table_twins.png is there already" in capsys.readouterr().err
    (home / "table_twins.png").unlink()
    assert main([*twins, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["n"], told["exact"], told["groups"]) == (1, 1, 1)
    (pair,) = told["twins"]
    assert (pair["kind"], pair["correlation"]) == ("exact", 1.0)
    assert pair["sample"] == {"id": "7.png", "split": "test", "class": "malignant"}
    assert pair["other"] == {"id": "0.png", "split": "train", "class": "benign"}
    assert not (home / "table_twins.png").exists()  # JSON is for programs
    assert main([*twins, "--sheets", "0"]) == 0
    assert not (home / "table_twins.png").exists()


def test_many_twins_take_many_sheets(home, capsys):
    """Test is train once more: 120 pairs, 50 a sheet."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (120, 16, 16), dtype=np.uint8)
    labels = (np.arange(120) % 2).astype(np.uint8)[:, None]
    arrays = {"train_images": images, "test_images": images, "val_images": images[:0]}
    labelled = {"train_labels": labels, "test_labels": labels, "val_labels": labels[:0]}
    np.savez(home / "x.npz", **arrays, **labelled)
    assert main(["data", "twins", "npz:x.npz", "--sheets", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.startswith("exact copy") for line in lines) == 120
    assert "labels differ" not in "".join(lines)
    assert lines[-3:] == [
        "drawn: x_twins.png",
        "drawn: x_twins_2.png",
        "not drawn: 1 more sheets; --sheets 3",
    ]
    assert not (home / "x_twins_3.png").exists()
    (home / "x_twins.png").unlink()
    assert main(["data", "twins", "npz:x.npz"]) == 1
    assert "x_twins_2.png is there already" in capsys.readouterr().err
    assert not (home / "x_twins.png").exists()  # all or none


@pytest.mark.real
def test_breastmnist_s_twins(real_data, capsys):
    """19 test images have a twin in train (18 near, and one of equal pixels)."""
    twins = ["data", "twins", "breastmnist", "--data-root", str(real_data), "--json"]
    assert main(twins) == 0
    pairs = json.loads(capsys.readouterr().out)["twins"]
    of_test = {p["sample"]["id"] for p in pairs if p["sample"]["split"] == "test"}
    in_train = {p["sample"]["id"] for p in pairs if p["other"]["split"] == "train"}
    assert len(of_test & in_train) == 19
    assert sum(p["kind"] == "exact" for p in pairs) == 1
