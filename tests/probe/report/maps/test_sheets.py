"""Sheets of maps: which images, which columns, and what is refused."""

import dataclasses
import shutil

import numpy as np
import pytest
from answering import make_row
from mapping import N_TEST, make_shown, row_of
from shapes import make_token_file

from cache.errors import RequestError
from cache.features import open_features
from probe.report.maps.asked import AskedOfMaps, Patch, _read_patch
from probe.report.maps.chosen import command
from probe.report.maps.given import find_given
from probe.report.maps.make import make_sheet
from probe.results import write_row


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    return make_shown(tmp_path_factory.mktemp("shown"))


def sheet_of(shown, *paths, rows=None, **asked):
    files = [open_features(path) for path in paths or (shown.path,)]
    given = find_given(files, rows, shown.results, None, shown.features)
    return make_sheet(AskedOfMaps(**asked), given)


def ids_of(sheet):
    return [lines[0] for lines in sheet.names]


def titles_of(sheet):
    return [(column.title, *column.under[:1]) for column in sheet.columns]


def test_what_is_shown_unasked(shown):
    sheet = sheet_of(shown)
    assert titles_of(sheet) == [
        ("image",),
        ("PCA", "layer 11"),
        ("true",),
        ("predicted", "segment, layer\N{NO-BREAK SPACE}3"),
        ("errors", "segment, layer\N{NO-BREAK SPACE}3"),
    ]
    assert ids_of(sheet) == shown.shapes.ids[-N_TEST:].tolist()  # the test images, all of them
    assert "on shapes: 4 test images." in sheet.caption
    assert [key.label for key in sheet.keys][:2] == ["disc", "square"]
    assert sheet.columns[-1].cells[0].said == "Dice 1.00"  # the first isn't moved


def test_layers_and_kinds_of_maps(shown):
    sheet = sheet_of(shown, what=("pca", "kmeans", "norm"), layers=(5, -1))
    assert titles_of(sheet)[1:] == [
        (title, f"layer {layer}") for title in ("PCA", "k-means", "norm") for layer in (5, 11)
    ]
    norms = sheet.columns[-1]
    x = open_features(shown.path).tokens(11, slice(-N_TEST, None)).astype(float)
    lengths = np.sqrt((x**2).sum(axis=-1))
    assert norms.scale is not None
    assert (norms.scale.low, norms.scale.high) == pytest.approx((lengths.min(), lengths.max()))
    assert titles_of(sheet_of(shown, what=("norm",), layers="all"))[1:] == [
        ("norm", "layer 5"),
        ("norm", "layer 11"),
    ]


def test_colours_do_not_depend_on_the_order_of_images(shown):
    ids = [str(name) for name in shown.shapes.ids[[2, 9, 5]]]
    what = ("pca", "kmeans", "norm")
    one, other = (sheet_of(shown, images=",".join(names), what=what) for names in (ids, ids[::-1]))
    assert ids_of(one) == ids
    for a, b in zip(one.columns, other.columns, strict=True):
        for cell, same in zip(a.cells, b.cells[::-1], strict=True):
            assert np.array_equal(cell.pixels(), same.pixels())


def test_maps_lie_as_their_pictures_do(shown, tmp_path):
    places = np.arange(64).reshape(8, 8)  # rows from the top, columns from the left
    tokens = np.zeros((len(shown.shapes.ids), 8, 8, 2), np.float32)
    tokens[..., 0] = places + 1
    file = dataclasses.replace(shown.shapes, tokens=tokens)
    path = make_token_file(tmp_path, file, size=32, pictures=True)
    sheet = sheet_of(shown, path, what=("norm",))
    picture, norm = (column.cells[0] for column in sheet.columns)
    light = norm.pixels(8).astype(int).sum(axis=2)
    assert (np.diff(light.ravel()) < 0).all()  # darker from place to place
    stored = open_features(path).pictures
    assert stored is not None
    assert np.array_equal(picture.pixels(), stored[-N_TEST])


def test_images_that_are_drawn(shown):
    drawn = sheet_of(shown, images="random:2", seed=1)
    assert len(ids_of(drawn)) == 2
    assert ids_of(drawn) == ids_of(sheet_of(shown, images="random:2", seed=1))
    assert "2 of 4 test images, drawn with seed 1" in drawn.caption
    train = sheet_of(shown, images="random:3", split="train")
    assert set(ids_of(train)) <= set(shown.shapes.ids[:4].tolist())


def test_the_worst_masks_first(shown):
    sheet = sheet_of(shown, images="wrong:3")
    said = [float(lines[1].removeprefix("Dice ")) for lines in sheet.names]
    assert said == sorted(said)
    assert said[0] < 0.9
    shown_by = {
        name: cell.said for name, cell in zip(ids_of(sheet), sheet.columns[-1].cells, strict=True)
    }
    assert [shown_by[name] for name in ids_of(sheet)] == [f"Dice {value:.2f}" for value in said]


def test_rows_stand_in_the_order_in_which_they_are_named(shown, tmp_path):
    again = write_row(tmp_path, dataclasses.replace(row_of(shown.shapes, shown.predicted), seed=9))
    for named in ([shown.row, again], [again, shown.row]):
        given = find_given([open_features(shown.path)], named, None, None, shown.features)
        assert [of.path for of in given.rows] == named
    titles = [title for title, *_ in titles_of(sheet_of(shown, rows=[again, shown.row]))]
    assert titles == ["image", "PCA", "true", *["predicted", "errors"] * 2]


def test_the_surest_wrong_answers(shown, tmp_path):
    features = open_features(shown.path)
    row = make_row("linear", "shapes")
    scores = np.array([[0.9, 0.1, 0], [0.2, 0.7, 0.1], [0.1, 0.1, 0.8], [0.3, 0.4, 0.3]])
    arrays = {
        "test_ids": shown.shapes.ids[-N_TEST:],
        "test_scores": scores,
        "test_labels": np.array([0, 0, 0, 0]),
        "class_names": np.array(["a", "b", "c"]),
    }
    encoded = dataclasses.replace(
        row.encoded, model="toy", size=features.size, dataset="shapes", task="multi-class"
    )
    path = write_row(tmp_path, dataclasses.replace(row, encoded=encoded, scores=arrays))
    sheet = sheet_of(shown, rows=[path], images="wrong:2", what=("pca",))
    assert [lines[1:] for lines in sheet.names] == [
        ("labelled a", "answered c", "0.80"),
        ("labelled a", "answered b", "0.70"),
    ]
    assert "the surest 2 of 3 wrong answers" in sheet.caption


def test_attention_is_told_in_multiples_of_the_uniform(shown, tmp_path):
    maps = np.full((2, 8, 8), 1 / 64)
    maps[0, 0, 7] = 5 / 64
    ids = shown.shapes.ids[-2:]
    row = row_of(shown.shapes, shown.predicted, attention_maps=maps, attention_ids=ids)
    path = write_row(tmp_path, row)
    sheet = sheet_of(shown, rows=[path], what=("attention",))
    column = sheet.columns[-1]
    assert column.scale is not None
    assert (column.scale.low, column.scale.high) == pytest.approx((0, 5))
    assert [cell.said for cell in column.cells] == ["not in its test"] * 2 + [""] * 2
    moved = row_of(shown.shapes, shown.predicted, attention_maps=maps[::-1], attention_ids=ids)
    of_seeds = [
        write_row(
            tmp_path,
            dataclasses.replace(
                of,
                answered=dataclasses.replace(
                    of.answered, settings={**of.answered.settings, "training_seed": seed}
                ),
            ),
        )
        for seed, of in enumerate((row, moved))
    ]
    mean = sheet_of(shown, rows=of_seeds, what=("attention",))
    assert mean.columns[-1].scale is not None
    assert mean.columns[-1].scale.high == pytest.approx(3)
    assert "2 trainings" in mean.caption
    dark = column.cells[2].pixels(8).astype(int).sum(axis=2)
    assert np.unravel_index(dark.argmin(), dark.shape) == (0, 7)  # top right


def test_the_patch_of_cosines_is_framed_and_shown(shown):
    name = str(shown.shapes.ids[0])  # of train, which isn't drawn
    sheet = sheet_of(shown, what=("cosine",), patch=Patch(name, 1, 6, False))
    assert ids_of(sheet)[0] == name
    frame = (6 / 8, 1 / 8, 7 / 8, 2 / 8)
    assert sheet.columns[0].cells[0].mark == frame
    assert sheet.columns[1].cells[0].mark == frame
    assert sheet.columns[1].cells[1].mark is None
    assert sheet.columns[1].scale is not None
    assert sheet.columns[1].scale.high == pytest.approx(1)
    same = sheet_of(shown, what=("cosine",), patch=_read_patch(f"{name}:80%,15%"))
    assert same.columns[0].cells[0].mark == frame


def test_encoders_side_by_side(shown, tmp_path):
    root = tmp_path / "features"
    shutil.copytree(shown.features, root)
    again = dataclasses.replace(shown.shapes, tokens=shown.shapes.tokens[:, ::2, ::2])
    other = make_token_file(root, again, model="other", size=32, pictures=True)
    first = root / "shapes" / shown.path.name
    sheet = sheet_of(shown, first, other, what=("pca", "overlay"))
    assert [(column.group, column.title) for column in sheet.columns] == [
        ("toy", "image"),  # both see the same square
        ("toy", "PCA"),
        ("toy", "true"),
        ("toy", "predicted"),
        ("toy", "errors"),
        ("other", "PCA"),
    ]
    assert "grid 8 x 8" in sheet.caption
    assert "grid 4 x 4" in sheet.caption


def test_without_pictures_maps_stand_alone(shown, tmp_path):
    path = make_token_file(tmp_path, shown.shapes, size=32)
    sheet = sheet_of(shown, path, what=("pca",))
    assert titles_of(sheet) == [("PCA", "layer 11")]
    assert any("no pictures" in note and "extract" in note for note in sheet.notes)


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        (
            {"layers": (3,)},
            r"no layer 3: .*stored are 5, 11; `extract .*--tokens=3,5,11` stores it",
        ),
        ({"images": "im001,gone"}, r"no image gone; .*\n.*extract .*--ids gone"),
        ({"what": ("cosine",), "patch": Patch("im001", 9, 0, False)}, "rows 0..7 and columns 0..7"),
        ({"what": ("cosine",), "patch": Patch("gone", 0, 0, False)}, "has no image gone"),
        ({"what": ("attention",)}, "probe --kind attentive .* makes one"),
        ({"threshold": 30.0}, "above the threshold"),
    ],
)
def test_what_is_not_there_is_refused_with_the_command(shown, asked, told):
    with pytest.raises(RequestError, match=told):
        sheet_of(shown, **asked)


def test_the_command_is_the_files_own_but_for_images_and_layers(shown, tmp_path):
    typed = "extract --model toy --data folder:a b --tokens 5,11 --no-pictures --ids x,y --size 32"
    said = typed.replace("folder:a b", "'folder:a b'")
    features = open_features(make_token_file(tmp_path, shown.shapes, size=32, command=said))
    kept = "extract --model toy --data 'folder:a b' --size 32 --tokens="
    assert command(features, ["im001"]) == f"{kept}11 --ids im001"
    assert command(features, layers=[-1]) == f"{kept}-1"
    exported = make_token_file(tmp_path / "e", shown.shapes, size=32, command="cache export a.h5")
    assert (
        command(open_features(exported))
        == "extract --model toy --data shapes --size 32 --tokens=11"
    )


def test_masks_that_are_not_there(shown, tmp_path):
    path = make_token_file(tmp_path, shown.shapes, size=32)
    with pytest.raises(RequestError, match="no masks below"):
        sheet_of(shown, path, what=("overlay",))
    assert titles_of(sheet_of(shown, path)) == [("PCA", "layer 11")]


def test_one_image_that_takes_the_component_is_noted(shown, tmp_path):
    tokens = shown.shapes.tokens.copy()
    tokens[-1] += 50
    path = make_token_file(
        tmp_path, dataclasses.replace(shown.shapes, tokens=tokens), size=32, pictures=True
    )
    notes = sheet_of(shown, path, what=("pca",)).notes
    assert any("lies between images" in note for note in notes)
