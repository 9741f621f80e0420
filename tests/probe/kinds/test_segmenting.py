"""From patches to masks: what kinds that segment share, by a kind of one line."""

import os
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from shapes import CLASSES, make_masks_file, make_shapes, make_token_file

from cache.errors import CacheError, RequestError
from cache.geometry import PADDING
from probe.config import ProbeConfig, RunConfig
from probe.episodes.draw import FewShotConfig
from probe.finding import FindConfig, choose_asked
from probe.kinds.linear import Linear
from probe.kinds.segment import Segment
from probe.kinds.segmenting import Segmenting
from probe.maps import Maps, patch_shares
from probe.metrics.metric import Measuring
from probe.metrics.overlap import image_overlap
from probe.places import Place, PlacesConfig
from probe.questions.overlay import OverlayConfig
from probe.run import run_probe


class Shares:
    """Least squares from tokens to shares."""

    settings, chosen, marks = {"loss": "squared"}, {"penalty": 0.0}, ["one mark"]
    trained_parameters = None

    def __init__(self, maps, rows):
        x = maps.tokens(rows).reshape(-1, maps.width)
        y = maps.shares(rows).reshape(-1, maps.n_classes)
        self.weights = np.linalg.lstsq(np.column_stack([x, np.ones(len(x))]), y, rcond=None)[0]
        self.maps = maps

    def logits(self, rows):
        for part in self.maps.chunks(rows, n_bytes=1 << 16):
            x = self.maps.tokens(part)
            yield (x @ self.weights[:-1] + self.weights[-1]).astype(np.float32)


@dataclass(frozen=True)
class Squares(Segmenting):
    """Each patch's shares by least squares."""

    name = "squares"

    def fit_maps(self, problem, train, val):
        yield Shares(problem.maps, train)


@pytest.fixture
def shapes():
    return make_shapes(n=24)


@pytest.fixture
def there(tmp_path, shapes):
    make_token_file(tmp_path, shapes, layers=(5, 11))
    make_masks_file(tmp_path, shapes)
    return tmp_path


def ask(root, kind=None, **more):
    config = ProbeConfig(
        kind or Squares(),
        FindConfig(features=root),
        run=RunConfig(results=root / "results"),
        **more,
    )
    found, failures = choose_asked(config.find, tokens=config.kind.reads == "tokens")
    assert not failures
    said = []
    rows, failures = run_probe(config, found, said.append)
    return rows, failures, said


def masks_of(row):
    """The predicted masks of a row's test, by id."""
    arrays = row.scores
    whole = np.repeat(arrays["masks_values"], arrays["masks_lengths"])
    found, start = {}, 0
    for name, (height, width) in zip(arrays["masks_ids"], arrays["masks_shapes"], strict=True):
        found[str(name)] = whole[start : start + height * width].reshape(height, width)
        start += height * width
    assert start == len(whole)
    return found


def test_shares_of_patches_are_counted_pixel_by_pixel():
    rng = np.random.default_rng(0)
    mask = rng.integers(0, 4, (13, 10)).astype(np.uint8)  # class 3 is none of three
    found = patch_shares(mask, (4, 3), 3)
    for i in range(4):
        for j in range(3):
            cell = [
                mask[y, x]
                for y in range(13)
                for x in range(10)
                if (y * 4 // 13, x * 3 // 10) == (i, j)
            ]
            expected = [cell.count(c) / len(cell) for c in range(3)]
            np.testing.assert_allclose(found[i, j], expected, atol=1e-7)


def test_a_row_is_measured_by_the_masks_that_it_keeps(there, shapes):
    (row,), failures, _ = ask(there)
    assert not failures
    predicted, truths = masks_of(row), dict(zip(shapes.ids, shapes.masks, strict=True))
    assert sorted(predicted) == sorted(shapes.ids[16:])
    for number, name in enumerate(CLASSES[1:], start=1):
        dice = []
        for sample, mask in predicted.items():
            a, b = mask == number, truths[sample] == number
            if b.any():
                dice.append(2 * (a & b).sum() / (a.sum() + b.sum()))
        place = row.measured.per_class["class"].index(name)
        assert row.measured.per_class["dice"][place] == pytest.approx(np.mean(dice), abs=1e-12)
    answered = row.answered.settings
    assert (answered["layer"], answered["pool"]) == (11, "tokens")
    assert row.posed.target["task"] == "segmentation"
    assert "one mark" in row.marks
    assert row.posed.target["masks"].startswith("sha256:")


def test_what_the_grid_costs_stands_beside(there):
    (row,), _, _ = ask(there)
    assert row.measured.test["dice"].value < row.measured.test["bound"].value < 1
    assert {"4-16", ">16"} <= {*row.measured.per_size["size"]}


def test_layers_side_by_side_and_compared(there):
    (joined,), failures, _ = ask(there, places=PlacesConfig(layer="5+11"))
    assert not failures
    assert [p["layer"] for p in joined.answered.settings["places"]] == [5, 11]
    each, _, _ = ask(there, places=PlacesConfig(layer="all", all_test=True))
    assert [row.answered.settings["layer"] for row in each] == [5, 11]
    # Layer 11's tokens are layer 5's and noise: beside them it adds little, alone it is worse.
    dice = [row.measured.test["dice"].value for row in (*each, joined)]
    assert dice[1] < dice[0]
    assert dice[2] > dice[1]


def test_few_shots_are_images_in_all_and_all_of_them_are_full(there):
    rows, failures, _ = ask(there, few_shot=FewShotConfig((2, 8), 3))
    assert not failures
    assert [row.n["train"] for row in rows] == [2, 8]
    (full,), _, _ = ask(there)
    assert rows[1].measured.test["dice"].value == pytest.approx(full.measured.test["dice"].value)
    assert "masks_ids" not in rows[0].scores


def test_few_shots_are_patients_with_all_their_images(tmp_path, shapes):
    make_token_file(tmp_path, shapes, groups=np.repeat([f"p{i}" for i in range(12)], 2))
    make_masks_file(tmp_path, shapes)
    (row,), failures, _ = ask(tmp_path, few_shot=FewShotConfig((2,), 3))
    assert not failures
    assert row.n["train"] == 4


def test_a_volume_is_one_sample_of_all_its_slices(tmp_path):
    shapes = make_shapes(n=24)
    volumes = np.array([f"v{i}" for i in range(8)])
    split = np.array([0, 0, 0, 1, 1, 2, 2, 2], np.uint8)
    make_token_file(
        *(tmp_path, shapes),
        row_ids=shapes.ids,
        row_sample=np.repeat(np.arange(8), 3),
        ids=volumes,
        split=split,
        labels=np.zeros(8, int),
    )
    make_masks_file(tmp_path, shapes, spacing=np.tile([1.0, 1.0, 2.0], (24, 1)))
    (row,), failures, _ = ask(tmp_path)
    assert not failures
    assert row.n == {"train": 3, "val": 2, "test": 3}
    predicted = masks_of(row)
    truths = dict(zip(shapes.ids, shapes.masks, strict=True))
    of_volume = [shapes.ids[15 + 3 * v : 18 + 3 * v] for v in range(3)]
    dice = []
    for names in of_volume:
        a = np.stack([predicted[name] for name in names]) == 1
        b = np.stack([truths[name] for name in names]) == 1
        dice += [2 * (a & b).sum() / (a.sum() + b.sum())] if b.any() else []
    assert row.measured.per_class["dice"][1] == pytest.approx(np.mean(dice))
    of_slices = [
        2
        * ((predicted[i] == 1) & (truths[i] == 1)).sum()
        / ((predicted[i] == 1).sum() + (truths[i] == 1).sum())
        for i in shapes.ids[15:]
        if (truths[i] == 1).any()
    ]
    assert row.measured.per_class["n_images"][1] == len(of_slices)
    assert row.measured.per_class["dice_image"][1] == pytest.approx(np.mean(of_slices))
    assert row.measured.test["hd95"].value > 0
    assert row.answered.settings["nsd_tolerance"] == 1.0
    (wide,), _, _ = ask(tmp_path, measuring=Measuring(nsd_tolerance=5.0))
    assert wide.measured.test["nsd"].value > row.measured.test["nsd"].value


def test_slices_without_a_mask_are_not_read(tmp_path):
    shapes = make_shapes(n=24)
    volumes = {"row_ids": shapes.ids, "row_sample": np.repeat(np.arange(8), 3)}
    volumes |= {"ids": np.array([f"v{i}" for i in range(8)]), "labels": np.zeros(8, int)}
    split = np.array([0, 0, 0, 1, 1, 2, 2, 2], np.uint8)
    make_token_file(tmp_path, shapes, split=split, **volumes)
    kept = np.delete(np.arange(24), [1, 10, 19])  # the middle of a volume of each split
    few = replace(shapes, masks=[shapes.masks[i] for i in kept], ids=shapes.ids[kept])
    make_masks_file(tmp_path, few, spacing=np.tile([1.0, 1.0, 2.0], (21, 1)))
    (row,), failures, _ = ask(tmp_path)
    assert not failures
    assert row.scores["masks_ids"].tolist() == [*shapes.ids[15:19], *shapes.ids[20:]]
    assert row.scores["test_labels"].sum(axis=1).tolist() == [3 * 64**2, 2 * 64**2, 3 * 64**2]
    # What has a gap is no stack: distances are the mean over its slices.
    predicted, each = masks_of(row), []
    for i in (18, 20):
        said = predicted[shapes.ids[i]], shapes.masks[i]
        each.append(image_overlap(*said, None, 3, background=0, spacing=[1.0, 1.0])[4])
    hd95 = row.scores["test_scores"].reshape(3, 6, 3)[1, 4]
    known = [[mm for mm in of_class if mm >= 0] for of_class in np.array(each)[:, 1:].T]
    assert any(known)
    assert hd95[1:] == pytest.approx([np.mean(mm) if mm else -1 for mm in known])


def test_rows_of_another_tolerance_are_others_where_some_spacing_is_known(there, shapes):
    spacing = np.full((24, 3), np.nan)
    digests = {}
    for name, n_known in (("none", 0), ("some", 20)):
        spacing[:n_known] = 1.0
        masks = make_masks_file(there, shapes, spacing=spacing)
        for mm in (1.0, 5.0):
            (row,), _, _ = ask(
                there,
                overlay=OverlayConfig(masks=masks),
                measuring=Measuring(nsd_tolerance=mm),
            )
            digests[name, mm] = row.digest
    assert digests["none", 1.0] == digests["none", 5.0]
    assert digests["some", 1.0] != digests["some", 5.0]


@pytest.mark.parametrize("read", ["tokens", "stored"])
def test_layers_of_several_grids_are_not_read_side_by_side(read):
    grids = SimpleNamespace(grid=lambda layer: (layer, layer), path=Path("a.h5"))
    maps = Maps(cast("Any", grids), (Place(2, "tokens"), Place(4, "tokens")))
    with pytest.raises(RequestError, match="2 x 2 and 4 x 4"):
        getattr(maps, read)(np.arange(2))


def test_an_ignored_value_is_padding_to_the_encoder():
    key = {"transform": {"resize": "scale"}, "size": 4}
    given = SimpleNamespace(key=key), (), SimpleNamespace(ignore=9)
    maps = Maps(*cast("Any", given))
    assert set(maps.input_mask(np.array([[0, 9], [1, 0]], np.uint8)).ravel()) == {0, 1, PADDING}


def test_a_patch_covers_pixels_of_the_image_not_of_the_encoders_input(tmp_path, shapes):
    make_token_file(tmp_path, shapes, size=128)
    odd = [np.repeat(m, 1 + i % 2, axis=0) for i, m in enumerate(shapes.masks)]  # twice as high
    make_masks_file(tmp_path, replace(shapes, masks=odd))
    (row,), _, _ = ask(tmp_path)
    assert row.scores["patch_pixels"].tolist() == [64, 128] * 4


def test_images_without_a_mask_are_left_out(tmp_path, shapes):
    make_token_file(tmp_path, shapes)
    few = replace(shapes, masks=shapes.masks[:20], ids=shapes.ids[:20])
    make_masks_file(tmp_path, few)
    (row,), failures, _ = ask(tmp_path)
    assert not failures
    assert row.n["test"] == 4
    assert "4 of 24 images have no mask: left out" in row.marks


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda s: None, "has no masks in"),
        (lambda s: replace(s, ids=np.char.add("other", s.ids)), "a mask of none of the images"),
        (lambda s: replace(s, masks=[np.zeros_like(m) for m in s.masks]), "background alone"),
    ],
)
def test_masks_that_say_nothing_are_refused(tmp_path, shapes, spoil, said):
    make_token_file(tmp_path, shapes)
    if (spoilt := spoil(shapes)) is not None:
        make_masks_file(tmp_path, spoilt)
    rows, failures, _ = ask(tmp_path)
    assert not rows
    assert said in failures[0].why


def test_of_several_masks_files_the_newest_answers_and_says_so(there, shapes):
    (first,) = there.glob("shapes/masks_*.h5")
    other = make_masks_file(there, replace(shapes, masks=[mask.T for mask in shapes.masks]))
    os.utime(first, (1, 1))
    (row,), failures, _ = ask(there)
    assert not failures
    assert row.posed.target["file"] == other.name
    assert any("is the newest of 2 masks files" in mark for mark in row.marks)
    (row,), failures, _ = ask(there, overlay=OverlayConfig(masks=first))
    assert not failures
    assert row.posed.target["file"] == first.name


def test_splits_by_rule_are_of_samples_with_masks(there):
    from cache.splits.rules import SplitRule

    (row,), failures, _ = ask(there, overlay=OverlayConfig(split=SplitRule.parse("50/25/25")))
    assert not failures
    assert row.n == {"train": 12, "val": 6, "test": 6}


def test_token_files_and_pooled_files_are_not_taken_for_each_other(there):
    with pytest.raises(CacheError):
        choose_asked(FindConfig(features=there))
    (path,) = there.glob("shapes/*_tokens_*.h5")
    with pytest.raises(CacheError, match="holds patch tokens"):
        choose_asked(FindConfig((path,)))
    assert Linear().reads == "pooled"


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"overlay": OverlayConfig(target="a")}, "learn from masks"),
        ({"places": PlacesConfig(pools=("mean",))}, "leave out --pool mean"),
        ({"few_shot": FewShotConfig((2,), draw="first")}, "counts images of a class"),
        ({"run": RunConfig(controls=True)}, "takes no --controls"),
        ({"kind": Linear(), "measuring": Measuring(nsd_tolerance=2.0)}, "is about masks"),
    ],
)
def test_flags_without_a_use_are_refused(there, more, said):
    try:
        config = ProbeConfig(**{"kind": Squares(), "find": FindConfig(features=there), **more})
        found, _ = choose_asked(config.find, tokens=True)
        _, failures = run_probe(config, found, lambda line: None)
        why = failures[0].why
    except RequestError as error:
        why = str(error)
    assert said in why


def test_a_val_without_masks_chooses_nothing(tmp_path, shapes):
    make_token_file(tmp_path, shapes)
    kept = np.r_[0:8, 16:24]  # val has none
    few = replace(shapes, masks=[shapes.masks[i] for i in kept], ids=shapes.ids[kept])
    make_masks_file(tmp_path, few)
    rows, failures, _ = ask(tmp_path, Segment())
    assert not rows
    assert "is chosen on val patches, found none; name one" in failures[0].why
    (row,), failures, _ = ask(tmp_path, Segment(strengths=(0.1,)))
    assert not failures
    assert not row.measured.val
