"""Each recipe on a small tree, laid out as its owner's archives unpack."""

import io
import random
from collections.abc import Iterable, Sequence
from pathlib import Path

import h5py
import numpy as np
import pytest
from looking import some
from PIL import Image

from cache import RequestError
from cache.format.sample_tables import SPLITS
from cache.splits.make import TEST, TRAIN, VAL
from cache.task import MISSING, TASKS, UNCERTAIN
from extract.datasets.files.listing import Listing
from extract.datasets.origins import ORIGINS, describe_seen
from extract.datasets.recipes import RECIPES, brain_tumor, find_recipe, open_recipe, recipe_root
from extract.datasets.recipes.recipe import safe_path, shuffled_split, systematic_split
from extract.datasets.statistics import DATASET_STATISTICS


def picture(kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("L", (4, 4), 100).save(buffer, kind)
    return buffer.getvalue()


PNG, JPEG = picture("PNG"), picture("JPEG")


def put(root: Path, paths: Iterable[str], content: bytes | None = None) -> None:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(content or (PNG if path.endswith(".png") else JPEG))


def write_lines(path: Path, lines: Iterable[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), "utf-8")


def listed(name: str, root: Path) -> Listing:
    """Open a recipe and check what every listing must be."""
    recipe = find_recipe(name)
    assert recipe is not None
    listing = open_recipe(recipe, root)
    n_files, n_samples = len(listing.paths), len(listing.ids)
    assert listing.name == name
    assert listing.licence == recipe.licence
    assert listing.target.task == recipe.task
    assert listing.sample.shape == (n_files,)
    assert set(listing.sample) == set(range(n_samples))
    assert len(set(listing.paths)) == n_files
    assert len(set(listing.ids)) == n_samples
    assert all((listing.root / path).is_file() for path in listing.paths)
    tables = [listing.target.labels, *listing.meta.values()]
    tables += [table for table in (listing.split, listing.groups) if table is not None]
    assert {len(table) for table in tables} == {n_samples}
    assert listing.target.labels.dtype == np.int64
    if listing.split is not None:
        assert listing.split.dtype == np.uint8
    assert all(values.dtype.kind in "Uf" for values in listing.meta.values())
    return listing


def refusal(name: str, root: Path | None, match: str) -> None:
    recipe = find_recipe(name)
    assert recipe is not None
    with pytest.raises(RequestError, match=match) as caught:
        open_recipe(recipe, root)
    assert "\n" not in str(caught.value)


def of_split(listing: Listing, split: int) -> list[str]:
    return [listing.ids[i] for i in np.flatnonzero(listing.split == split)]


# ---------------------------------------------------------------------------- all of them


def test_recipes_say_what_a_user_must_know():
    names = [recipe.name for recipe in RECIPES]
    assert len(set(names)) == len(names)
    for recipe in RECIPES:
        assert recipe.task in TASKS
        assert recipe.url.startswith("https://")
        assert recipe.layout
        words = (recipe.title, recipe.size, recipe.licence, recipe.reference, recipe.split)
        assert all(words)
        assert recipe.name in ORIGINS


def test_names_of_sets_and_of_a_paper_s_reading_of_them():
    assert find_recipe("aptos") is None
    assert describe_seen(("CheXpert",), "chexpert-huix2024") == "yes: CheXpert"
    assert describe_seen((), "isic2019") == "no"
    assert DATASET_STATISTICS["chexpert-huix2024"] == DATASET_STATISTICS["chexpert"]
    # chexpert.py of Baharoon's release, at 02249ea and in its last state: _Split.length.
    assert find_recipe("chexpert-baharoon2023-ap").n_images == 151_590 + 10_000 + 202 == 161_792
    assert find_recipe("chexpert-baharoon2023-frontal").n_images == 191_027 + 202 + 518
    with pytest.raises(RequestError, match="181 027 / 10 000 / 202.*-ap is.*-frontal the code's"):
        find_recipe("chexpert-baharoon2023")


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
def test_an_empty_folder_is_told_what_is_expected_and_where_it_is_published(recipe, tmp_path):
    with pytest.raises(RequestError, match="lacks") as caught:
        open_recipe(recipe, tmp_path)
    message = str(caught.value)
    for words in (recipe.layout[0], recipe.url, recipe.licence, recipe.access, "--data-root"):
        assert words in message


def test_where_a_set_is_looked_for(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MEDPROBE_DATA", raising=False)
    refusal("aptos2019", None, "no folder data/aptos2019 for aptos2019; expected there: train.csv")
    monkeypatch.setenv("MEDPROBE_DATA", str(tmp_path / "sets"))
    refusal("aptos2019", None, "sets/aptos2019")
    recipe = RECIPES[0]
    assert recipe_root(recipe, tmp_path) == tmp_path
    (tmp_path / recipe.name).mkdir()  # a root is the set's folder or holds it
    assert recipe_root(recipe, tmp_path) == tmp_path / recipe.name


@pytest.mark.parametrize(
    "cell", ["", "/etc/passwd", "../a.png", "a/../../b", "a\\b", "C:/a", "a\0"]
)
def test_a_path_that_leads_elsewhere_is_refused(cell):
    with pytest.raises(RequestError, match="t.csv, line 2: expected a path below"):
        safe_path(cell, "t.csv, line 2")


def test_systematic_splits_have_the_published_counts():
    for n, n_test, n_val, n_train in [(210, 70, 50, 90), (233, 70, 50, 113)]:
        split = systematic_split(n, n_test, n_val, n)
        assert np.bincount(split).tolist() == [n_train, n_val, n_test]
        # Their code, a list from which is deleted.
        rest = np.delete(np.arange(n), np.arange(0, n, n / n_test).round().astype(int))
        val = rest[np.arange(0, n - n_test, (n - n_test) / n_val).round().astype(int)]
        np.testing.assert_array_equal(np.flatnonzero(split == VAL), val)


# ---------------------------------------------------------------------------- APTOS 2019


def make_aptos(root: Path, n: int = 20) -> list[str]:
    ids = [f"{i * 7919 % 65536:012x}" for i in range(n)]
    rows = [f"{name},{i % 5}" for i, name in enumerate(ids)]
    write_lines(root / "train.csv", ["id_code,diagnosis", *rows])
    put(root, [f"train_images/{name}.png" for name in ids])
    return ids


def test_aptos(tmp_path):
    ids = make_aptos(tmp_path)
    listing = listed("aptos2019", tmp_path)
    assert list(listing.ids) == ids
    assert listing.target.labels.tolist() == [i % 5 for i in range(20)]
    assert listing.target.class_names[4] == "Proliferative DR"
    assert listing.notes == ("3662 images are published, 20 are here",)
    rows = list(range(20))
    random.Random(42).shuffle(rows)
    assert set(of_split(listing, VAL)) == {ids[i] for i in rows[:3]}
    assert set(of_split(listing, TEST)) == {ids[i] for i in rows[3:6]}


def test_the_splits_of_huix_2024_have_their_counts():
    assert np.bincount(shuffled_split(3662, 0.3)).tolist() == [2564, 549, 549]
    assert np.bincount(shuffled_split(25331, 0.2)).tolist() == [20265, 2533, 2533]
    # Python promises random.Random(42).random() for ever, but not shuffle; here it would be seen.
    assert np.flatnonzero(shuffled_split(3662, 0.3) == VAL)[:4].tolist() == [0, 5, 7, 19]


def test_an_archive_may_unpack_into_a_folder_of_its_own(tmp_path):
    ids = make_aptos(tmp_path / "aptos2019-blindness-detection")
    root = listed("aptos2019", tmp_path).root
    assert root.name == "aptos2019-blindness-detection"
    (root / f"train_images/{ids[3]}.png").unlink()
    refusal("aptos2019", tmp_path, rf"lacks 1 of 20 images \(train_images/{ids[3]}.png\)")


def test_a_table_that_isn_t_the_owner_s_is_refused_by_its_line(tmp_path):
    make_aptos(tmp_path)
    for row, match in [
        ("x,5", "line 2: the diagnosis is a grade of 0 to 4, found '5'"),
        ("../x,1", "line 2: expected a path below"),
    ]:
        write_lines(tmp_path / "train.csv", ["id_code,diagnosis", row])
        refusal("aptos2019", tmp_path, match)
    write_lines(tmp_path / "train.csv", ["id_code,diagnosis", "x,1", "x,1"])
    refusal("aptos2019", tmp_path, "line 3: x again, which stands in line 2 too")
    write_lines(tmp_path / "train.csv", ["id_code,label", "x,1"])
    refusal("aptos2019", tmp_path, "no column 'diagnosis'")


@pytest.mark.posix
def test_a_link_out_of_the_set_is_refused(tmp_path):
    make_aptos(tmp_path / "set")
    (tmp_path / "set/train_images").rename(tmp_path / "elsewhere")
    (tmp_path / "set/train_images").symlink_to(tmp_path / "elsewhere")
    refusal("aptos2019", tmp_path / "set", "a link that leads out")


# ---------------------------------------------------------------------------- ISIC 2019

ISIC_COLUMNS = ("MEL", "NV", "BCC", "AK", "BKL", "DF", "VASC", "SCC", "UNK")
NESTED = "ISIC_2019_Training_Input/ISIC_2019_Training_Input"


def make_isic(root: Path, folder: str, n: int = 30) -> None:
    names = [f"ISIC_{i:07d}{'_downsampled' if i % 3 == 0 else ''}" for i in range(n)]
    one_hot = [",".join("1.0" if c == i % 8 else "0.0" for c in range(9)) for i in range(n)]
    write_lines(
        root / "ISIC_2019_Training_GroundTruth.csv",
        [
            ",".join(("image", *ISIC_COLUMNS)),
            *(f"{name},{row}" for name, row in zip(names, one_hot, strict=True)),
        ],
    )
    rows = [f"{name},55.0,anterior torso,{f'HAM_{i // 5:07d}' if i < 20 else ''},female"
            for i, name in enumerate(names)]  # fmt: skip
    rows[1] = rows[1].replace("55.0,anterior torso", ",")
    write_lines(
        root / "ISIC_2019_Training_Metadata.csv",
        ["image,age_approx,anatom_site_general,lesion_id,sex", *reversed(rows)],
    )
    put(root, [f"{folder}/{name}.jpg" for name in names])


@pytest.mark.parametrize("folder", ["ISIC_2019_Training_Input", NESTED, "train"])
def test_isic(tmp_path, folder):
    make_isic(tmp_path, folder)
    listing = listed("isic2019", tmp_path)
    assert listing.paths[0] == f"{folder}/ISIC_0000000_downsampled.jpg"
    assert listing.target.labels.tolist() == [i % 8 for i in range(30)]
    assert listing.target.class_names[4] == "Benign keratosis"
    assert listing.groups[[4, 5, 20]].tolist() == ["HAM_0000000", "HAM_0000001", "ISIC_0000020"]
    assert np.isnan(listing.meta["age"]).tolist() == [i == 1 for i in range(30)]
    assert listing.meta["site"][:2].tolist() == ["anterior torso", ""]
    split = listing.split
    torn = sum(len(set(split[5 * lesion : 5 * lesion + 5])) > 1 for lesion in range(4))
    assert torn > 0
    assert f"{torn} lesions lie in more than one split of Huix et al. 2024" in listing.notes


def test_isic_without_metadata_says_that_lesions_aren_t_known(tmp_path):
    make_isic(tmp_path, "train")
    (tmp_path / "ISIC_2019_Training_Metadata.csv").unlink()
    listing = listed("isic2019", tmp_path)
    assert listing.groups is None
    assert any("lesions aren't known" in note for note in listing.notes)
    header = ",".join(("image", *ISIC_COLUMNS))
    truth = tmp_path / "ISIC_2019_Training_GroundTruth.csv"
    write_lines(truth, [header, "ISIC_0000001,0,0,0,0,0,0,0,0,1"])
    refusal("isic2019", tmp_path, "line 2: expected a 1 in one of MEL")


# ---------------------------------------------------------------------------- CheXpert

FINDINGS = (
    "No Finding,Enlarged Cardiomediastinum,Cardiomegaly,Lung Opacity,Lung Lesion,Edema,"
    "Consolidation,Pneumonia,Atelectasis,Pneumothorax,Pleural Effusion,Pleural Other,Fracture,"
    "Support Devices"
)
CHEXPERT_HEADER = f"Path,Sex,Age,Frontal/Lateral,AP/PA,{FINDINGS}"
LABEL = {name: i for i, name in enumerate(FINDINGS.split(","))}


def chexpert_row(split: str, patient: int, view: str, labels: dict[str, str], top: str) -> str:
    """A row as Stanford has it; ``view`` is "study1/view1_frontal"."""
    side = view.rpartition("_")[2]
    cells = ",".join(labels.get(name, "") for name in LABEL)
    projection = "AP" if side == "frontal" else ""
    path = f"{top}/{split}/patient{patient:05d}/{view}.jpg"
    return f"{path},Female,{20 + patient},{side.capitalize()},{projection},{cells}"


def make_chexpert(root: Path, n: int = 12, top: str = "CheXpert-v1.0-small") -> list[str]:
    """n train rows, a frontal and a lateral view of each patient, in the order of numbers."""
    rows = []
    for i in range(n):
        view = f"study{1 + i // 2 % 12}/view{1 + i % 2}_{('frontal', 'lateral')[i % 2]}"
        labels = [{"Edema": "-1.0"}, {}, {"Edema": "1.0", "Cardiomegaly": "0.0"}][i % 3]
        rows.append(chexpert_row("train", 1 + i // 2, view, labels, top))
    write_lines(root / "train.csv", [CHEXPERT_HEADER, *rows])
    valid = [
        chexpert_row("valid", 64541, f"study1/{view}", dict.fromkeys(LABEL, "0.0"), top)
        for view in ("view1_frontal", "view2_lateral")
    ]
    write_lines(root / "valid.csv", [CHEXPERT_HEADER, *valid])
    paths = [row.split(",")[0].partition("/")[2] for row in (*rows, *valid)]
    put(root, paths)
    return paths


def add_test_set(root: Path) -> None:
    """As it was published later: paths begin with "test", and nothing is said of the patients."""
    write_lines(
        root / "test_labels.csv",
        [f"Path,{FINDINGS}", f"test/patient64741/study1/view1_frontal.jpg,{','.join('1' * 14)}"],
    )
    put(root, ["test/patient64741/study1/view1_frontal.jpg"])


def test_chexpert(tmp_path):
    paths = make_chexpert(tmp_path)
    listing = listed("chexpert", tmp_path)
    assert list(listing.ids) == paths
    assert of_split(listing, VAL) == paths[12:]
    edema = listing.target.labels[:, LABEL["Edema"]]
    assert edema[:4].tolist() == [UNCERTAIN, 0, 1, UNCERTAIN]  # blank is 0
    assert set(listing.target.labels[:, LABEL["Fracture"]]) == {0}
    assert listing.groups[:3].tolist() == ["patient00001", "patient00001", "patient00002"]
    assert listing.meta["age"][:3].tolist() == [21, 21, 22]
    assert listing.meta["view"][:2].tolist() == ["Frontal", "Lateral"]
    assert listing.meta["projection"][:2].tolist() == ["AP", ""]
    assert any("test is empty" in note for note in listing.notes)


def test_chexpert_s_test_set(tmp_path):
    make_chexpert(tmp_path)
    add_test_set(tmp_path)
    listing = listed("chexpert", tmp_path)
    assert of_split(listing, TEST) == ["test/patient64741/study1/view1_frontal.jpg"]
    assert listing.target.labels[-1].tolist() == [1] * 14
    assert listing.meta["sex"][-1] == ""
    assert np.isnan(listing.meta["age"][-1])
    assert not any("empty" in note for note in listing.notes)
    table = tmp_path / "test_labels.csv"
    table.write_text(table.read_text().replace("Fracture", "Another"))
    labels = listed("chexpert", tmp_path).target.labels
    assert labels[-1, LABEL["Fracture"]] == MISSING  # its table lacks it
    assert labels[0, LABEL["Fracture"]] == 0


def test_chexpert_as_its_four_full_size_archives_unpack(tmp_path):
    small, full = tmp_path / "small", tmp_path / "chexpertchestxrays-u20210408"
    make_chexpert(small, top="CheXpert-v1.0")
    first = full / "CheXpert-v1.0 batch 1 (validate & csv)"
    first.mkdir(parents=True)
    for name in ("valid", "train.csv", "valid.csv"):
        (small / name).rename(first / name)
    for i, patient in enumerate(sorted((small / "train").iterdir())):
        batch = full / f"CheXpert-v1.0 batch {2 + i // 2} (train {1 + i // 2})"
        batch.mkdir(exist_ok=True)
        patient.rename(batch / patient.name)
    listing = listed("chexpert", full)
    assert listing.ids[4] == "train/patient00003/study3/view1_frontal.jpg"
    assert listing.paths[4].startswith("CheXpert-v1.0 batch 3 (train 2)/patient00003/")


def test_chexpert_refuses_what_isn_t_stanford_s(tmp_path):
    make_chexpert(tmp_path)
    (tmp_path / "train/patient00002").rename(tmp_path / "gone")
    refusal("chexpert", tmp_path, r"lacks 1 of 6 patients' folders \(train/patient00002")
    good = chexpert_row("train", 1, "study1/view1_frontal", {}, "CheXpert-v1.0")
    for rows, match in [
        ([good.replace("train/", "train/../")], "line 2: expected a path like CheXpert-v1.0/train"),
        ([good.replace(",AP,", ",AP,maybe")], "line 2: No Finding is 1, 0, -1 or blank"),
        ([good, good], "train/patient00001/study1/view1_frontal.jpg stands there twice"),
    ]:
        write_lines(tmp_path / "train.csv", [CHEXPERT_HEADER, *rows])
        refusal("chexpert", tmp_path, match)


def huix_as_coded(paths: Sequence[str]) -> tuple[list[str], list[str], list[str]]:
    """train, val and test of their code, boundary rows and all: ``loc`` goes from one row's number to
    another's, both included, through the rows sorted by path."""
    rows = sorted(range(len(paths)), key=lambda i: paths[i])
    size = int(len(paths) * 0.2) + 15
    held = rows[: rows.index(size) + 1]
    half = int(len(held) / 2)
    parts = rows[rows.index(size) :], held[: held.index(half) + 1], held[held.index(half) :]
    train, val, test = ([paths[i] for i in part] for part in parts)
    return train, val, test


def make_studies(root: Path) -> list[str]:
    """Four patients of fifteen studies, in the order of numbers: study10 goes before study2 only where
    paths are sorted."""
    make_chexpert(root)
    rows = [
        chexpert_row(
            "train",
            1 + i // 15,
            f"study{1 + i % 15}/view1_frontal",
            [{"Edema": "-1.0"}, {}, {"Edema": "1.0", "Fracture": "-1.0"}][i % 3],
            "CheXpert-v1.0",
        )
        for i in range(60)
    ]
    write_lines(root / "train.csv", [CHEXPERT_HEADER, *rows])
    paths = [row.split(",")[0].partition("/")[2] for row in rows]
    put(root, paths)
    return paths


def test_chexpert_of_huix_2024(tmp_path):
    paths = make_studies(tmp_path)
    listing = listed("chexpert-huix2024", tmp_path)
    train, val, test = huix_as_coded(paths)
    assert train[0] == test[-1]
    assert val[-1] == test[0]
    assert of_split(listing, TEST) == test
    assert of_split(listing, VAL) == val[:-1]
    assert of_split(listing, TRAIN) == train[1:]
    labels = dict(zip(listing.ids, listing.target.labels.tolist(), strict=True))
    nothing = [int(name == "No Finding") for name in LABEL]
    assert labels[paths[0]] == nothing  # its uncertain edema became 0
    assert labels[paths[1]] == nothing
    assert labels[paths[2]] == [int(name == "Edema") for name in LABEL]


def test_chexpert_of_huix_2024_needs_the_owner_s_order(tmp_path):
    make_chexpert(tmp_path, n=60)
    header, *rows = (tmp_path / "train.csv").read_text().splitlines()
    write_lines(tmp_path / "train.csv", [header, *reversed(rows)])
    refusal("chexpert-huix2024", tmp_path, "train.csv isn't in the owner's order")


def test_chexpert_of_baharoon_2023_is_of_ap_views(tmp_path, monkeypatch):
    """As make_val_set does it: frontal, then AP, then every so many."""
    monkeypatch.setattr("extract.datasets.recipes.chexpert.N_VAL", 4)
    paths = make_chexpert(tmp_path, n=24)
    table = tmp_path / "train.csv"
    header, *rows = table.read_text().splitlines()
    rows[6], rows[8] = (rows[i].replace(",Frontal,AP,", ",Frontal,PA,") for i in (6, 8))
    write_lines(table, [header, *rows])
    listing = listed("chexpert-baharoon2023-ap", tmp_path)
    frontal = [path for path in paths if "lateral" not in path]
    ap = [path for i, path in enumerate(frontal[:12]) if i not in (3, 4)]
    val = [ap[i] for i in np.arange(0, 10, 10 / 4).round().astype(int)]
    assert of_split(listing, VAL) == val
    assert of_split(listing, TEST) == frontal[12:]  # whatever their projection
    assert of_split(listing, TRAIN) == [path for path in ap if path not in val]
    assert any("--data chexpert-baharoon2023-frontal" in note for note in listing.notes)
    assert listing.target.class_names[-2:] == ("Pleural Effusion", "Uncertain")
    labels = dict(zip(listing.ids, listing.target.labels.tolist(), strict=True))
    assert labels[frontal[0]] == [0, 0, 0, 0, 0, 1]
    assert labels[frontal[1]] == [0, 1, 0, 0, 0, 0]
    assert labels[frontal[2]] == [0] * 6


def test_chexpert_of_baharoon_2023s_last_state_is_the_owner_s_three_sets(tmp_path):
    paths = make_chexpert(tmp_path, n=20)
    name = "chexpert-baharoon2023-frontal"
    refusal(name, tmp_path, "lacks test_labels.csv of chexpert-baharoon2023-frontal")
    add_test_set(tmp_path)
    listing = listed(name, tmp_path)
    frontal = [path for path in paths if "lateral" not in path]
    assert of_split(listing, TRAIN) == frontal[:10]
    assert of_split(listing, VAL) == frontal[10:]
    assert of_split(listing, TEST) == ["test/patient64741/study1/view1_frontal.jpg"]
    assert listing.target.class_names[-1] == "Uncertain"
    assert any("--data chexpert-baharoon2023-ap" in note for note in listing.notes)


# ---------------------------------------------------------------------------- NIH ChestX-ray14

NIH_HEADER = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]"
)


def make_nih(root: Path, edition: str = "2020", folder: str = "images") -> list[str]:
    """30 patients with two images each; the last ten are test."""
    names = [f"{1 + i // 2:08d}_{i % 2:03d}.png" for i in range(60)]
    findings = ["No Finding", "Hernia|Mass", "Pleural_Thickening"]
    rows = [
        f"{name},{findings[i % 3]},{i % 2},{1 + i // 2},{30 + i},M,PA,2682,2749,0.143,0.143"
        for i, name in enumerate(names)
    ]
    extra = "00000099_000.png,No Finding,0,99,50,F,AP,2682,2749,0.143,0.143"
    if edition == "2020":
        write_lines(root / "Data_Entry_2017_v2020.csv", [NIH_HEADER, *rows, extra])
    else:  # ages with their unit, and a comma at the end of every line
        old = [row.replace(f",{30 + i},M", f",{30 + i:03d}Y,M") for i, row in enumerate(rows)]
        old[0] = old[0].replace(",030Y,", ",006M,")
        old[1] = old[1].replace(",031Y,", ",412Y,")
        write_lines(root / "Data_Entry_2017.csv", [f"{row}," for row in (NIH_HEADER, *old)])
    write_lines(root / "train_val_list.txt", names[:40])
    (root / "test_list.txt").write_bytes("\r\n".join(names[40:]).encode())
    put(root, [f"{folder}/{name}" for name in names])
    return names


@pytest.mark.parametrize("folder", ["images", "images_012/images"])
def test_chestxray14(tmp_path, folder):
    names = make_nih(tmp_path, folder=folder)
    listing = listed("chestxray14", tmp_path)
    assert list(listing.ids) == names
    assert of_split(listing, TEST) == names[40:]
    # 20 patients that aren't test, every tenth: the first and the eleventh, with all their images.
    assert of_split(listing, VAL) == [*names[:2], *names[20:22]]
    assert listing.groups[[0, 1, 59]].tolist() == ["00000001", "00000001", "00000030"]
    classes = listing.target.class_names
    assert len(classes) == 14
    assert listing.target.labels[0].tolist() == [0] * 14
    assert {classes[i] for i in np.flatnonzero(listing.target.labels[1])} == {"Hernia", "Mass"}
    assert listing.meta["age"][:2].tolist() == [30, 31]
    assert listing.meta["view"][0] == "PA"
    assert any(
        "1 images of Data_Entry_2017_v2020.csv are in neither list" in n for n in listing.notes
    )


def test_chestxray14_with_the_table_of_2017(tmp_path):
    make_nih(tmp_path, edition="2017")
    listing = listed("chestxray14", tmp_path)
    assert listing.meta["age"][[0, 2]].tolist() == [0.5, 32]
    assert np.isnan(listing.meta["age"][1])
    assert "1 ages beyond 120 years are taken as unknown" in listing.notes
    table = tmp_path / "Data_Entry_2017.csv"
    table.write_text(table.read_text() + "00000031_000.png,No Finding,0,31,50Y,F,AP,1,1,1,1,what\n")
    refusal("chestxray14", tmp_path, "line 1: column 12 has no name")


def test_chestxray14_of_baharoon_2023(tmp_path, monkeypatch):
    monkeypatch.setattr("extract.datasets.recipes.chestxray14.N_VAL_BAHAROON", 7)
    names = make_nih(tmp_path)
    listing = listed("chestxray14-baharoon2023", tmp_path)
    assert of_split(listing, VAL) == names[33:40]
    assert of_split(listing, TEST) == names[40:]
    classes = listing.target.class_names
    assert len(classes) == 15
    assert list(classes) == sorted(classes)
    assert classes[listing.target.labels[0].argmax()] == "No Finding"


def test_chestxray14_refuses_tables_that_don_t_fit(tmp_path):
    names = make_nih(tmp_path)
    table = tmp_path / "Data_Entry_2017_v2020.csv"
    whole = table.read_text()
    table.write_text(whole.replace("Hernia|Mass", "Hernia|Masse", 1))
    refusal("chestxray14", tmp_path, "line 3: no finding is called 'Masse'")
    table.write_text(whole)
    (tmp_path / f"images/{names[5]}").unlink()
    refusal("chestxray14", tmp_path, f"lacks 1 of 60 images .images/{names[5]}")
    for lines, match in [
        (names[:1], f"{names[0]} is in train_val_list.txt and in test_list.txt"),
        (["00000077_000.png"], "no row for 00000077_000.png"),
        (["../00000077_000.png"], "test_list.txt, line 1: expected a path below"),
    ]:
        write_lines(tmp_path / "test_list.txt", lines)
        refusal("chestxray14", tmp_path, match)
    table.unlink()
    refusal("chestxray14", tmp_path, "lacks Data_Entry_2017_v2020.csv of chestxray14")


# ---------------------------------------------------------------------------- CBIS-DDSM

CBIS_HEADER = (
    "patient_id,{density},left or right breast,image view,abnormality id,abnormality type,"
    "{kind} shape,{kind} margins,assessment,pathology,subtlety,image file path,"
    "cropped image file path,ROI mask file path"
)


def make_cbis(root: Path) -> None:
    def row(case: str, number: int, pathology: str) -> str:
        _, _, patient, side, view = case.split("_")
        kind = "mass" if case.startswith("Mass") else "calcification"
        path = f"{case}/1.3.6.1.4.1/1.3.6.1.4.2/000000.dcm"
        # The owner's cells end in line breaks here and there.
        return (
            f"P_{patient},3,{side},{view},{number},{kind},OVAL,SPICULATED,4,{pathology},4,{path},"
            f'"{case}_1/1/2/000001.dcm\n","{case}_1/1/2/000000.dcm\n"'
        )

    def table(name: str, kind: str, rows: list[str]) -> None:
        density = "breast_density" if kind == "mass" else "breast density"
        write_lines(root / f"{name}.csv", [CBIS_HEADER.format(density=density, kind=kind), *rows])

    train = [f"Mass-Training_P_{number:05d}_LEFT_CC" for number in range(1, 22)]
    rows = [row(case, 1, "BENIGN_WITHOUT_CALLBACK") for case in train]
    rows.insert(1, row(train[0], 2, "MALIGNANT"))  # two lesions, one malignant
    table("mass_case_description_train_set", "mass", rows)
    both = "Calc-Test_P_00001_RIGHT_MLO"
    table("calc_case_description_test_set", "calc", [row(both, 1, "BENIGN")])
    calc = "Calc-Training_P_00005_RIGHT_CC"
    table("calc_case_description_train_set", "calc", [row(calc, 1, "MALIGNANT")])
    test = "Mass-Test_P_00016_LEFT_MLO"
    test_rows = [row(test.replace("00016", "00116"), 1, "MALIGNANT")]
    table("mass_case_description_test_set", "mass", test_rows)
    images = root / "CBIS-DDSM"
    for i, case in enumerate((*train, both, calc, test.replace("00016", "00116"))):
        study = f"{case}/07-20-2016-DDSM-NA-{74994 + i}"
        put(images, [f"{study}/1.000000-full mammogram images-24515/1-1.dcm"], b"DICM")
        crops = f"{case}_1/07-21-2016-DDSM-NA-1/1.000000-cropped images-1"
        put(images, [f"{crops}/1-1.dcm", f"{crops}/1-2.dcm"], b"DICM")


def test_cbis_ddsm(tmp_path):
    make_cbis(tmp_path)
    listing = listed("cbis-ddsm", tmp_path)
    assert len(listing.ids) == 24
    assert all("full mammogram images" in path for path in some(listing.paths))
    labels = dict(zip(listing.ids, listing.target.labels.tolist(), strict=True))
    assert labels["Mass-Training_P_00001_LEFT_CC"] == 1
    assert labels["Mass-Training_P_00002_LEFT_CC"] == 0
    assert set(of_split(listing, TEST)) == {
        "Calc-Test_P_00001_RIGHT_MLO",
        "Mass-Test_P_00116_LEFT_MLO",
    }
    # Of the patients 2 to 21 every tenth; patient 1 is in test too, and stays in train.
    assert of_split(listing, VAL) == [
        "Mass-Training_P_00002_LEFT_CC",
        "Mass-Training_P_00012_LEFT_CC",
    ]
    assert any(note.startswith("1 patients are in train and in test") for note in listing.notes)
    kinds = dict(zip(listing.ids, listing.meta["abnormality"].tolist(), strict=True))
    assert kinds["Calc-Training_P_00005_RIGHT_CC"] == "calcification"
    assert set(listing.meta["breast_density"]) == {"3"}


def test_cbis_ddsm_as_its_table_names_the_folders(tmp_path):
    make_cbis(tmp_path)
    case = tmp_path / "CBIS-DDSM/Mass-Training_P_00002_LEFT_CC"
    study = next(case.iterdir())
    next(study.iterdir()).rename(study / "1.3.6.1.4.2")
    study.rename(case / "1.3.6.1.4.1")
    paths = listed("cbis-ddsm", tmp_path).paths
    assert "CBIS-DDSM/Mass-Training_P_00002_LEFT_CC/1.3.6.1.4.1/1.3.6.1.4.2/1-1.dcm" in paths


def test_cbis_ddsm_names_missing_mammograms_and_bad_rows(tmp_path):
    make_cbis(tmp_path)
    case = "Mass-Training_P_00002_LEFT_CC"
    (tmp_path / f"CBIS-DDSM/{case}").rename(tmp_path / "gone")
    refusal("cbis-ddsm", tmp_path, rf"lacks 1 of 24 mammograms \({case}")
    table = tmp_path / "calc_case_description_train_set.csv"
    table.write_text(table.read_text().replace("MALIGNANT", "UNPROVEN"))
    refusal("cbis-ddsm", tmp_path, "line 2: the pathology is one of BENIGN")
    table.write_text(table.read_text().replace(",Calc-Training_P_00005_RIGHT_CC/", ",../", 1))
    refusal("cbis-ddsm", tmp_path, "line 2: expected an image file path like")


# ---------------------------------------------------------------------------- DDSM


def make_ddsm(root: Path) -> dict[str, list[str]]:
    lists = {
        "train": [
            "cancer_15-B_3504_1.RIGHT_CC.LJPEG.1.jpg",
            "benign_01-C_0029_1.LEFT_MLO.LJPEG.1.jpg",
        ],
        "val": ["normal_12-B_3660_1.LEFT_CC.LJPEG.1.jpg"],
        "test": ["cancer_15-B_3505_1.LEFT_CC.LJPEG.1.jpg", "normal_scan.jpg"],
    }
    for split, names in lists.items():
        write_lines(root / f"ddsm_raw_image_lists/{split}.txt", names)
        put(root / "ddsm_raw", names)
    return lists


def test_ddsm_of_huix_2024(tmp_path):
    lists = make_ddsm(tmp_path)
    put(tmp_path, ["ddsm_raw/normal_12-B_3660_1.LEFT_CC.LJPEG.1.png"])
    listing = listed("ddsm-huix2024", tmp_path)
    assert [of_split(listing, split) for split in range(3)] == [lists[name] for name in SPLITS]
    assert listing.target.labels.tolist() == [1, 1, 0, 1, 0]
    assert listing.groups.tolist() == ["B_3504", "C_0029", "B_3660", "B_3505", "normal_scan.jpg"]
    assert listing.meta["diagnosis"].tolist() == ["cancer", "benign", "normal", "cancer", "normal"]
    assert listing.paths[2].endswith(".png")  # as their code prefers
    assert listing.ids[2].endswith(".jpg")
    assert any(note.startswith("1 images whose names") for note in listing.notes)
    test = tmp_path / "ddsm_raw_image_lists/test.txt"
    write_lines(test, lists["train"])
    refusal("ddsm-huix2024", tmp_path, "stands in two lists")
    write_lines(test, ["other_1.jpg"])
    put(tmp_path / "ddsm_raw", ["other_1.jpg"])
    refusal("ddsm-huix2024", tmp_path, "names begin with normal, benign, cancer; found other_1.jpg")


# ---------------------------------------------------------------------------- SARS-CoV-2 CT


def make_sars(root: Path) -> None:
    for diagnosis, n in [("Covid", 80), ("Healthy", 50), ("Others", 80)]:
        for number in range(1, n + 1):
            slices = [f"{diagnosis}/Patient ({number})/{i}.png" for i in range(1, 3)]
            put(root, slices)
    put(root, ["Covid/desktop.ini"], b"-")


def test_sars_cov_2_ct(tmp_path):
    make_sars(tmp_path / "New_Data_CoV2")
    listing = listed("sars-cov-2-ct", tmp_path)
    assert len(listing.ids) == 210
    assert len(listing.paths) == 420
    assert listing.paths[listing.sample.tolist().index(1)].startswith("Covid/Patient (10)/")
    assert listing.target.labels.tolist() == [1] * 80 + [0] * 130
    assert listing.target.positive_class == "COVID-19"
    assert of_split(listing, TEST) == list(listing.ids[::3])
    assert np.bincount(listing.split).tolist() == [90, 50, 70]
    assert len(set(listing.groups)) == 210
    assert listing.meta["diagnosis"][[0, 80, 130]].tolist() == ["Covid", "Healthy", "Others"]
    assert not any("split" in note for note in listing.notes)


def test_sars_cov_2_ct_with_other_patients_isn_t_the_paper_s_split(tmp_path):
    put(tmp_path, [f"{d}/{p}/1.png" for d in ("Covid", "Healthy", "Others") for p in "abcdefg"])
    listing = listed("sars-cov-2-ct", tmp_path)
    assert np.bincount(listing.split).tolist() == [9, 5, 7]
    assert any("the split isn't the paper's" in note for note in listing.notes)


def test_the_first_edition_knows_no_patients(tmp_path):
    put(tmp_path, ["COVID/Covid (1).png", "COVID/Covid (2).png", "non-COVID/Non-Covid (1).png"])
    listing = listed("sars-cov-2-ct-slices", tmp_path)
    assert listing.target.labels.tolist() == [1, 1, 0]
    assert listing.split is None
    assert listing.groups is None
    assert any("nobody says which slices are of one patient" in note for note in listing.notes)


# ---------------------------------------------------------------------------- Brain Tumor


def write_mat(path: Path, label: float, patient: str) -> None:
    """As MATLAB 7.3 writes it: HDF5 behind 512 bytes of its own, text as UTF-16 in a column."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w", userblock_size=512) as file:
        group = file.create_group("cjdata")
        group["image"] = np.arange(16, dtype="<i2").reshape(4, 4)
        group["label"] = np.array([[label]])
        group["PID"] = np.frombuffer(patient.encode("utf-16-le"), "<u2")[:, None]


def make_brain_tumor(root: Path) -> None:
    """Twelve patients with one or two slices, in the folders of the owner's archives."""
    for number in range(1, 19):
        folder = "brainTumorDataPublic_1-766" if number < 10 else "brainTumorDataPublic_767-1532"
        write_mat(root / folder / f"{number}.mat", 1 + number % 3, f"MR{(number - 1) % 12:05d}D")
    with h5py.File(root / "cvind.mat", "w", userblock_size=512) as file:
        file["cvind"] = np.arange(18)[None] % 5 + 1.0


@pytest.fixture
def brain_root(tmp_path, monkeypatch):
    monkeypatch.setattr(brain_tumor, "N_IMAGES", 18)
    make_brain_tumor(tmp_path)
    return tmp_path


def test_brain_tumor(brain_root):
    listing = listed("brain-tumor", brain_root)
    assert listing.ids[:3] == ("1.mat", "2.mat", "3.mat")
    assert listing.paths[9] == "brainTumorDataPublic_767-1532/10.mat"
    assert listing.target.labels.tolist() == [number % 3 for number in range(1, 19)]
    assert listing.target.class_names == ("meningioma", "glioma", "pituitary tumour")
    assert listing.window == "percentile:5,95"
    assert listing.groups[[0, 12]].tolist() == ["MR00000D", "MR00000D"]
    # A patient is in one split with all slices.
    assert listing.split[12:].tolist() == listing.split[:6].tolist()
    expected = systematic_split(12, round(12 * 70 / 233), round(8 * 50 / 163), 12)
    assert listing.split[:12].tolist() == expected.tolist()
    assert listing.meta["fold"].tolist() == [str(i % 5 + 1) for i in range(18)]
    assert any("not the paper's split" in note for note in listing.notes)


def test_brain_tumor_in_one_folder_without_folds(brain_root):
    for path in list(brain_root.glob("*/*.mat")):
        path.rename(brain_root / path.name)
    (brain_root / "cvind.mat").unlink()
    listing = listed("brain-tumor", brain_root)
    assert listing.paths[9] == "10.mat"
    assert listing.meta == {}


def test_brain_tumor_refuses_missing_and_foreign_files(brain_root):
    first = brain_root / "brainTumorDataPublic_1-766"
    folds = brain_root / "cvind.mat"
    kept = folds.read_bytes()
    folds.unlink()
    with h5py.File(folds, "w") as file:  # no link is followed
        file["cvind"] = h5py.ExternalLink("brainTumorDataPublic_1-766/1.mat", "cjdata/image")
    refusal("brain-tumor", brain_root, "no fold for each of 18 slices")
    folds.write_bytes(kept)
    write_mat(first / "3.mat", 4, "P")
    refusal("brain-tumor", brain_root, "3.mat: label 4, patient 'P'; it isn't one of the set's")
    (first / "3.mat").write_bytes(b"MATLAB 5.0")
    refusal("brain-tumor", brain_root, "3.mat: not HDF5")
    (first / "3.mat").unlink()
    refusal("brain-tumor", brain_root, r"lacks 1 of 18 images \(3.mat, ...\)")
