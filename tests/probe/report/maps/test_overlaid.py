"""Masks over pictures."""

import numpy as np
import pytest
from overlapping import runs
from shapes import make_masks_file, make_shapes

from cache.geometry import Geometry
from cache.masks import open_masks
from probe.report.maps.overlaid import (
    CONFUSED,
    DIM,
    ERRORS,
    FALSE,
    MISSED,
    RIGHT,
    RIGHT_ALPHA,
    Overlays,
    Predicted,
    errors,
    image_dice,
)
from probe.report.maps.sheet import rgb

RIGHT_NUMBER = len(ERRORS)


@pytest.fixture(scope="module")
def shapes():
    return make_shapes(5, side=32)


@pytest.fixture(scope="module")
def masks(tmp_path_factory, shapes):
    return open_masks(make_masks_file(tmp_path_factory.mktemp("masks"), shapes))


def test_predicted_masks_are_those_that_the_row_keeps(shapes):
    of_sizes = [mask[: 20 + i, : 30 - i] for i, mask in enumerate(shapes.masks)]
    kept = {"masks_ids": shapes.ids, **runs(of_sizes)}
    found = Predicted.of(kept)
    assert found is not None
    for name, mask in zip(shapes.ids, of_sizes, strict=True):
        assert np.array_equal(found.mask(str(name)), mask)
    assert found.mask("elsewhere") is None
    lost = {**kept, "masks_lengths": kept["masks_lengths"][:-1]}
    assert Predicted.of(lost) is None
    assert Predicted.of({}) is None


@pytest.mark.parametrize(
    ("true", "predicted", "background", "ignore", "wanted"),
    [
        (0, 0, 0, None, -1),
        (1, 1, 0, None, -1),
        (1, 0, 0, None, MISSED),
        (0, 2, 0, None, FALSE),
        (1, 2, 0, None, CONFUSED),
        (2, 0, 2, None, FALSE),
        (0, 2, 2, None, MISSED),
        (1, 0, None, None, CONFUSED),
        (255, 1, 0, 255, -1),
    ],
)
def test_what_kind_of_error_a_pixel_is(true, predicted, background, ignore, wanted):
    found = errors(np.full((1, 1), true, np.uint8), np.full((1, 1), predicted), background, ignore)
    assert found[0, 0] == wanted


def slow_dice(true, predicted, classes):
    found = []
    for c in classes:
        if (true == c).sum():
            both = sum(t == p == c for t, p in zip(true.flat, predicted.flat, strict=True))
            found.append(2 * both / ((true == c).sum() + (predicted == c).sum()))
    return np.mean(found)


def test_the_dice_of_an_image(shapes, masks):
    true = next(mask for mask in shapes.masks if len(np.unique(mask)) == 3)
    predicted = np.roll(true, 2, axis=0)
    assert image_dice(true, predicted, masks) == pytest.approx(slow_dice(true, predicted, (1, 2)))
    assert np.isnan(image_dice(np.zeros_like(true), predicted, masks))


def test_colours_stand_where_the_encoder_sees_the_pixels(tmp_path):
    true = np.zeros((20, 32), np.uint8)
    true[:5, :8] = 1  # top left of a wide image, which is padded above and below
    predicted = np.zeros_like(true)
    predicted[:5, 4:12] = 1
    predicted[15:, 24:] = 2
    shapes = make_shapes(1, side=32)
    shapes.masks[0] = true
    masks = open_masks(make_masks_file(tmp_path, shapes))
    over = Overlays(masks, Geometry("pad-fit", 64))
    kept = Predicted.of({"masks_ids": shapes.ids, **runs([predicted])})
    assert kept is not None
    name = str(shapes.ids[0])
    found = over.wrong(name, None, kept).layers[-1].rgba
    assert found.shape == (64, 64, 4)
    above = 12  # (64 - 40) / 2
    for (row, column), number in {(0, 0): MISSED, (0, 12): RIGHT_NUMBER, (0, 20): FALSE}.items():
        colour = RIGHT if number == RIGHT_NUMBER else ERRORS[number][0]
        assert np.array_equal(found[above + row, column, :3], rgb(colour))
        assert found[above + row, column, 3] > 0
    assert np.array_equal(found[above + 39, 63, :3], rgb(ERRORS[FALSE][0]))
    assert not found[:above, :, 3].any()  # padding
    assert not found[above + 20, 30, 3]  # background that is right
    shown = over.true(name, None).layers[-1].rgba
    assert shown[above, 15, 3] > 0
    assert shown[above, 16, 3] == 0
    assert "no mask" in over.true("elsewhere", None).said
    assert over.wrong("elsewhere", None, kept).layers == ()


def grey(colour):
    return float(rgb(colour) @ [0.299, 0.587, 0.114])


def test_errors_can_be_told_apart_in_grey():
    found = RIGHT_ALPHA * grey(RIGHT) + (1 - RIGHT_ALPHA) * DIM * 255  # where the picture is white
    levels = sorted([found, *(grey(colour) for colour, _ in ERRORS.values())])
    assert levels[0] == found
    assert min(np.diff(levels)) > 35
    assert found > DIM * 255 + 20


def test_keys_name_structures_and_errors(masks):
    over = Overlays(masks, Geometry("scale", 32))
    assert [key.label for key in over.keys(with_errors=False)] == ["disc", "square"]
    assert [key.label for key in over.keys(with_errors=True)][-2:] == ["another structure", "found"]


def test_classes_that_are_no_background_are_confused_only(tmp_path):
    shapes = make_shapes(2, side=32)
    masks = open_masks(make_masks_file(tmp_path, shapes, background=None))
    labels = [key.label for key in Overlays(masks, Geometry("scale", 32)).keys(with_errors=True)]
    assert labels == ["background", "disc", "square", "another structure", "found"]
