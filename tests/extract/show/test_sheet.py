"""Contact sheets: which images stand on them, how they are prepared, and that nothing is cut off."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageFont

from cache import RequestError
from cache.commands import sheet as contact_sheet
from cache.commands.sheet import (
    MARGIN,
    Pair,
    Row,
    choose_font,
    draw_pairs,
    draw_rows,
    fit,
    is_writable,
    shown_side,
    wrap,
)
from cache.format.spec import Samples
from cache.labels.target import Target
from cache.task import MISSING, MULTI_LABEL, REGRESSION, UNCERTAIN
from extract.datasets.dataset import Dataset
from extract.datasets.volumes import Slicing
from extract.prepare.transforms import Transform, describe_distortion
from extract.show.classes import draw_classes, preview
from extract.show.samples import by_class, class_words, middle_rows, samples_of, spread

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
LONG = "pneumonoultramicroscopicsilicovolcanoconiosis " * 3
RED, GREEN = (255, 0, 0), (0, 255, 0)


def plain(colour: tuple[int, int, int], height: int = 8, width: int = 8) -> np.ndarray:
    return np.full((height, width, 3), colour, np.uint8)


def places(sheet: Image.Image, colour: tuple[int, int, int]) -> tuple[int, int, int, int]:
    """Left, top, right and bottom (behind the last) of all pixels of a colour."""
    rows, columns = np.nonzero((np.asarray(sheet) == colour).all(axis=-1))
    return columns.min(), rows.min(), columns.max() + 1, rows.max() + 1


def make_dataset(images: list[np.ndarray], labels: np.ndarray, **changed) -> Dataset:
    """A data set of images of any sizes, all of them in train."""
    n = len(labels)
    ids = np.array([f"{i}.png" for i in range(n)])
    samples = Samples(ids, np.zeros(n, np.uint8), labels)
    values = {
        "name": "mine",
        "task": "binary-class",
        "class_names": ("no", "yes"),
        "source_size": None,
        "n_channels": 1 if images[0].ndim == 2 else 3,
        "samples": samples,
        "row_ids": ids,
        "row_sample": np.arange(n),
        "images_digest": "sha256:0",
        "stream": lambda ranges: (images[start:stop] for start, stop in ranges),
    }
    return Dataset(**{**values, **changed})


# ---------------------------------------------------------------------------- which images


def test_samples_by_class_in_the_order_of_the_classes():
    labels = np.array([1, 0, 2, 1, MISSING, 0])
    found = by_class(Target("multi-class", ("a", "b", "c", "d"), labels), np.array([0, 1, 3, 4, 5]))
    assert [(one.name, one.samples.tolist()) for one in found] == [
        ("a", [1, 5]),
        ("b", [0, 3]),
        ("c", []),  # sample 2 doesn't count
        ("d", []),
        ("no label", [4]),
    ]


def test_the_positive_class_is_label_1_of_a_binary_task():
    labels = np.array([0, 1])
    both = by_class(Target("binary-class", ("malignant", "normal, benign"), labels), np.arange(2))
    assert [one.is_positive for one in both] == [False, True]
    grades = by_class(Target("ordinal-regression", ("0", "1"), labels), np.arange(2))
    assert not any(one.is_positive for one in grades)


def test_of_several_labels_a_sample_stands_with_each():
    labels = np.array([[1, 1], [0, 0], [0, UNCERTAIN], [MISSING, MISSING], [1, MISSING]])
    found = by_class(Target(MULTI_LABEL, ("edema", "mass"), labels), np.arange(5))
    assert [(one.name, one.samples.tolist(), one.n_uncertain) for one in found] == [
        ("edema", [0, 4], 0),
        ("mass", [0], 1),
        ("none of these", [1], 0),
        ("no label", [3], 0),
    ]


def test_continuous_labels_stand_by_quarter():
    labels = np.array([50.0, 10, np.nan, 20, 30, 40, 60, 70, 80])
    found = by_class(Target(REGRESSION, ("age",), labels), np.arange(9))
    assert [(one.name, one.samples.tolist()) for one in found] == [
        ("age 10 to 20", [1, 3]),
        ("age 30 to 40", [4, 5]),
        ("age 50 to 60", [0, 6]),
        ("age 70 to 80", [7, 8]),
        ("no label", [2]),
    ]
    assert len(by_class(Target(REGRESSION, ("age",), labels), np.array([0, 1]))) == 2


@pytest.mark.parametrize(
    ("task", "label", "words"),
    [
        ("multi-class", 1, "b"),
        ("multi-class", MISSING, "no label"),
        (MULTI_LABEL, [1, 1], "a + b"),
        (MULTI_LABEL, [0, UNCERTAIN], "none of them"),
        (REGRESSION, 41.5, "a 41.5"),
        (REGRESSION, np.nan, "no label"),
    ],
)
def test_a_class_in_words(task, label, words):
    assert class_words(Target(task, ("a", "b"), np.array([label])), 0) == words


def test_few_samples_are_spread_over_all():
    assert spread(np.arange(100, 111), 3).tolist() == [100, 105, 110]
    assert spread(np.array([4, 9]), 6).tolist() == [4, 9]
    assert spread(np.array([4, 9, 11]), 1).tolist() == [4]
    assert spread(np.array([], np.int64), 6).tolist() == []


def test_the_middle_row_of_a_sample_wherever_its_rows_lie():
    rng = np.random.default_rng(0)
    for _ in range(20):
        row_sample = rng.permutation(np.repeat(np.arange(5), [1, 2, 3, 28, 4]))
        found = middle_rows(row_sample, np.array([4, 0, 2, 3]))
        for sample, row in found.items():
            rows = np.flatnonzero(row_sample == sample)
            assert row == rows[len(rows) // 2]


def test_a_split_without_samples_is_refused():
    samples = Samples(np.array(["a", "b"]), np.array([0, 2], np.uint8), np.zeros(2, np.int64))
    assert samples_of("x", samples, "test").tolist() == [1]
    assert samples_of("x", samples, "all").tolist() == [0, 1]
    with pytest.raises(RequestError, match="x has no images in val; it has train, test"):
        samples_of("x", samples, "val")


# ---------------------------------------------------------------------------- what is seen of them


@pytest.mark.parametrize("shape", [(16, 16), (16, 16, 3), (9, 20), (2, 2)])
@pytest.mark.parametrize("resize", ["scale", "pad", "pad-fit", "crop", "longest"])
def test_a_preview_is_the_transform_without_mean_and_std(shape, resize):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, shape, dtype=np.uint8)
    channels = "RGB" if len(shape) == 3 else "grey repeated to RGB"
    transform = Transform(32, *IMAGENET, resize=resize, channels=channels)
    seen = transform(torch.from_numpy(image[None]))[0].numpy()
    mean, std = (np.array(v)[:, None, None] for v in IMAGENET)
    expected = np.clip(255 * (seen * std + mean), 0, 255).transpose(1, 2, 0)
    found = preview(image, transform)
    assert found.shape == (32, 32, 3)
    np.testing.assert_allclose(found, expected, atol=0.5 + 1e-3)


def test_an_image_of_the_right_size_is_seen_as_it_is():
    image = np.arange(32 * 32 * 3, dtype=np.uint32).reshape(32, 32, 3).astype(np.uint8)
    np.testing.assert_array_equal(preview(image, Transform(32, *IMAGENET, channels="RGB")), image)
    levels = image.astype(np.float32)
    np.testing.assert_array_equal(preview(levels, Transform(32, *IMAGENET, channels="RGB")), image)


def test_where_one_filter_sees_the_image_it_is_grey():
    image = np.arange(64, dtype=np.uint8).reshape(8, 8)
    transform = Transform(8, *IMAGENET, channels="grey into the first filter")
    np.testing.assert_array_equal(preview(image, transform), image)


@pytest.mark.parametrize(
    ("resize", "shapes", "line"),
    [
        ("scale", [(10, 10), (500, 496)], None),
        ("pad-fit", [(10, 40)], None),
        (
            "scale",
            [(10, 10), (10, 20), (90, 60)],
            "scale distorts 2 of the 3 images shown, at most 2-fold (10 x 20 px); --resize pad-fit "
            "keeps their shape",
        ),
        (
            "scale-crop",
            [(1024, 632)],
            "scale-crop distorts 1 of the 1 images shown, at most 1.62-fold (1024 x 632 px); "
            "--resize pad-fit keeps their shape",
        ),
    ],
)
def test_distortion_is_said(resize, shapes, line):
    transform = Transform(32, *IMAGENET, resize=resize)
    assert describe_distortion(shapes, transform.resize, "images shown") == ([line] if line else [])


# ---------------------------------------------------------------------------- sheets


def test_a_sheet_of_images_of_many_sizes():
    images = [plain(RED if i % 2 else GREEN, 4 + i, 9) for i in range(12)]
    dataset = make_dataset(images, np.arange(12) % 2)
    sheet, notes = draw_classes(dataset, Transform(16, *IMAGENET, channels="RGB"), None, 3)
    assert notes == [
        "scale distorts 5 of the 6 images shown, at most 2.25-fold (4 x 9 px); --resize pad-fit "
        "keeps their shape"
    ]
    side = shown_side(16)
    for colour in (GREEN, RED):  # one row each, three squares with gaps between
        left, top, right, bottom = places(sheet, colour)
        assert (bottom - top, right - left) == (side, 3 * side + 2 * contact_sheet.GAP)
    assert places(sheet, GREEN)[3] < places(sheet, RED)[1]


def test_of_a_volume_the_middle_slice_is_drawn():
    colours = [(0, 0, 0), RED, (0, 0, 0)] * 2
    images = [plain(colour) for colour in colours]
    dataset = make_dataset(
        images,
        np.array([0, 1]),
        row_ids=np.array(list("abcdef")),
        row_sample=np.arange(6) // 3,
        slicing=Slicing(),
    )
    sheet, _ = draw_classes(dataset, Transform(8, *IMAGENET, channels="RGB"), "all", 6)
    pixels = np.asarray(sheet).reshape(-1, 3)
    assert (pixels == RED).all(axis=1).sum() == 2 * shown_side(8) ** 2
    assert not (pixels == 0).all(axis=1).any()


def test_only_a_test_split_and_one_class_are_drawn_too():
    labels = np.zeros(2, np.int64)
    ids = np.array(["a", "b"])
    samples = Samples(ids, np.array([2, 2], np.uint8), labels)
    dataset = make_dataset([plain(RED)] * 2, labels, samples=samples)
    sheet, notes = draw_classes(dataset, Transform(8, *IMAGENET, channels="RGB"), None, 6)
    assert notes == []
    assert places(sheet, RED)


def test_names_that_no_font_can_write_are_numbers_there_and_words_on_the_terminal(monkeypatch):
    monkeypatch.setattr(contact_sheet, "OTHER_FONTS", ())
    dataset = make_dataset([plain(RED)] * 2, np.array([0, 1]), class_names=("ok", "良性"))
    _, notes = draw_classes(dataset, Transform(8, *IMAGENET, channels="RGB"), None, 6)
    assert notes == ["class 1 is 良性; no font here has its letters"]


def test_a_thousand_classes_make_no_endless_sheet():
    labels = np.arange(1000)
    dataset = make_dataset(
        [plain(RED)] * 1000,
        labels,
        task="multi-class",
        class_names=tuple(f"c{i}" for i in range(1000)),
    )
    sheet, notes = draw_classes(dataset, Transform(8, *IMAGENET, channels="RGB"), None, 2)
    assert notes == ["the first 60 of 1 000 classes are drawn"]
    assert sheet.height < 60 * 2 * shown_side(8)


@pytest.mark.parametrize("name", ["a", LONG, "W" * 300, "", "a\n\tb", "مثال", "x\u202ey"])
@pytest.mark.parametrize("n", [0, 1, 6])
def test_nothing_is_cut_off_and_nothing_overlaps(name, n):
    """Margins stay white, and no word touches a picture."""
    rows = [Row(name, (LONG, "2 images"), [plain(RED)] * n), Row("last", (), [plain(GREEN)] * n)]
    sheet = np.asarray(draw_rows(LONG, [LONG, ""], rows, 40))
    free = MARGIN - 1  # a picture's frame is around it, and a letter may begin before its place
    for rim in (sheet[:free], sheet[-free:], sheet[:, :free], sheet[:, -free:]):
        assert (rim == 255).all()
    for colour in (RED, GREEN):
        assert (sheet == colour).all(axis=-1).sum() == n * 40 * 40


def test_a_sheet_of_pairs():
    pairs = [
        Pair(plain(RED), plain(GREEN, 4, 8), "r = 0.9912", ("test", LONG), ("train", "b"))
        for _ in range(7)
    ]
    sheet = draw_pairs("twins", [LONG], pairs, 40)
    pixels = np.asarray(sheet)
    assert (pixels == RED).all(axis=-1).sum() == 7 * 40 * 40
    assert (pixels == GREEN).all(axis=-1).sum() == 7 * 20 * 40  # its shape is kept
    assert (pixels[1 - MARGIN :] == 255).all()
    assert (pixels[:, 1 - MARGIN :] == 255).all()


@pytest.mark.parametrize(
    ("size", "side"),
    [(1, 128), (2, 128), (28, 140), (64, 128), (100, 200), (128, 128), (224, 224), (518, 256)],
)
def test_small_pictures_are_shown_at_a_whole_multiple(size, side):
    assert shown_side(size) == side


def test_pixels_are_repeated_or_averaged():
    image = np.array([[0, 255], [255, 0]], np.uint8)
    large = np.asarray(fit(image, 8))
    np.testing.assert_array_equal(large[..., 0], image.repeat(4, 0).repeat(4, 1))
    assert np.asarray(fit(image, 1)).tolist() == [[[128] * 3]]
    assert fit(np.zeros((1, 5000), np.uint8), 128).size == (128, 1)


# ---------------------------------------------------------------------------- words


def test_lines_are_no_wider_than_they_may_be():
    font, _ = choose_font("a", 16)
    for width in (20, 60, 200):
        lines = wrap(f"of {LONG} and W", font, width)
        assert "".join(lines).replace(" ", "") == f"of{LONG}andW".replace(" ", "")
        assert max(map(font.getlength, lines)) <= width


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("normal, benign", "normal, benign"),
        ("5 \N{MULTIPLICATION SIGN} 5 \N{EN DASH} ≤ 3 µm", "5 x 5 - <= 3 um"),
        ("Müller-Weiß", "Muller-Weiss"),
        ("良性", "??"),
        ("why?", "why?"),
        ("a\nb\u202ec", "a b c"),
    ],
)
def test_what_the_own_font_cannot_write(text, written, monkeypatch):
    monkeypatch.setattr(contact_sheet, "OTHER_FONTS", ())
    assert choose_font(text, 16)[1] == written
    assert is_writable(text) == (written != "??")


def test_another_font_that_has_all_letters_writes_them(monkeypatch):
    """A stand-in that has every letter: Pillow's own again, with no letter lacking."""
    other = ImageFont.load_default(size=16)
    monkeypatch.setattr(contact_sheet, "_other_font", lambda name, size: other)
    has = contact_sheet._has_letters
    monkeypatch.setattr(
        contact_sheet, "_has_letters", lambda font, text: font is other or has(font, text)
    )
    assert choose_font("Müller", 16) == (other, "Müller")
    assert choose_font("Muller", 16)[0] is not other
