"""Masks: what overlaps, how far borders lie apart, and what an absent or missed structure counts."""

import math

import numpy as np
import pytest
from overlapping import TASK, measured, predicted_masks, true_masks
from scipy.ndimage import binary_erosion, distance_transform_edt, gaussian_filter

from cache.errors import RequestError
from cache.task import OVERLAP, SEGMENTATION, Task
from probe.metrics import overlap
from probe.metrics.intervals import COUNTS, JACKKNIFE, NONE, estimate
from probe.metrics.jackknife import left_out
from probe.metrics.measure import measure
from probe.metrics.metric import Measuring
from probe.metrics.overlap import BACKGROUND, NOT_MEASURED, image_overlap, together
from probe.metrics.patients import Scored, by_patient
from probe.metrics.prepared import prepare

STEPS = {2: (0.7, 1.3), 3: (2.0, 0.7, 1.3)}  # mm along each axis
SPACING = (0.7, 1.3, 2.0)  # row, column, slice


def random_masks(shape, seed, n_classes=3):
    """Two masks of blobs, alike but not the same."""
    rng = np.random.default_rng(seed)

    def blobs():
        noise = rng.normal(size=(n_classes, *shape))
        return gaussian_filter(noise, (0, *[2.0] * len(shape))).argmax(0).astype(np.uint8)

    true = blobs()
    return np.where(rng.random(shape) < 0.1, blobs(), np.roll(true, 2, -1)).astype(np.uint8), true


def slowly(predicted, true, c, tolerance):
    """HD95 and NSD of a class by erosion and distance transforms of whole images."""
    masks = predicted == c, true == c
    a, b = (mask & ~binary_erosion(mask) for mask in masks)
    step = STEPS[true.ndim]
    there = distance_transform_edt(~b, sampling=step)[a]
    back = distance_transform_edt(~a, sampling=step)[b]
    near = (np.r_[there, back] <= tolerance).mean()
    return max(np.percentile(there, 95), np.percentile(back, 95)), near


@pytest.mark.parametrize("shape", [(40, 30), (9, 24, 20)])
@pytest.mark.parametrize("seed", range(3))
def test_an_image_and_a_volume_as_distance_transforms_have_it(shape, seed):
    predicted, true = random_masks(shape, seed)
    found = image_overlap(predicted, true, true, 3, background=None, spacing=SPACING, tolerance=1.6)
    for c in range(3):
        is_true, is_predicted = true == c, predicted == c
        both = (is_true & is_predicted).sum()
        assert found[:4, c].tolist() == [both, is_predicted.sum(), is_true.sum(), is_true.sum()]
        assert found[4:, c] == pytest.approx(slowly(predicted, true, c, 1.6), rel=1e-12)


def test_a_square_moved_by_hand():
    true, predicted = np.zeros((2, 10, 12), np.uint8)
    true[2:6, 2:6] = predicted[2:6, 4:8] = 1
    found = image_overlap(predicted, true, None, 2, background=0, spacing=(1.0, 0.5))
    # Both borders have 12 pixels: 4 of each lie in the other's square; the farthest is 2 columns.
    assert dict(zip(OVERLAP, found[:, 1], strict=True)) == {
        "both": 8, "predicted": 16, "bound_both": -1, "bound_predicted": -1, "hd95": 1.0, "nsd": 1.0
    }  # fmt: skip
    assert found[:, 0].tolist() == [96, 104, -1, -1, BACKGROUND, BACKGROUND]
    strict = image_overlap(
        predicted, true, None, 2, background=0, spacing=(1.0, 0.5), tolerance=0.5
    )
    assert strict[5, 1] == pytest.approx(slowly_nsd(true, predicted, (1.0, 0.5), 0.5))


def slowly_nsd(a, b, step, tolerance):
    borders = [np.argwhere((m == 1) & ~binary_erosion(m == 1)) * step for m in (a, b)]
    apart = np.sqrt(((borders[0][:, None] - borders[1]) ** 2).sum(-1))
    near = (apart.min(0) <= tolerance).sum() + (apart.min(1) <= tolerance).sum()
    return near / sum(map(len, borders))


def test_a_missed_structure_is_as_far_as_the_image_is_wide():
    true = np.zeros((30, 40), np.uint8)
    true[3:6, 3:6] = 1
    found = image_overlap(np.zeros_like(true), true, None, 3, background=0, spacing=(0.1, 0.1))
    assert found[:, 1].tolist() == pytest.approx([0, 0, -1, -1, 5.0, 0.0])
    assert found[:, 2].tolist() == [0, 0, -1, -1, NOT_MEASURED, NOT_MEASURED]  # nobody has it


@pytest.mark.parametrize("spacing", [None, (np.nan, 1.0, 1.0), (1.0, 1.0), (1.0, 1.0, np.nan)])
def test_a_spacing_that_is_not_known_measures_no_distance(spacing):
    predicted, true = random_masks((5, 12, 12), 0)
    found = image_overlap(predicted, true, None, 3, background=0, spacing=spacing)
    assert (found[4:, 0] == BACKGROUND).all()
    assert (found[4:, 1:] == NOT_MEASURED).all()


def test_ignored_pixels_are_nowhere():
    predicted, true = random_masks((30, 30), 3)
    true[:, 20:] = 255
    found = image_overlap(predicted, true, predicted, 3, background=0, ignore=255, spacing=(1, 1))
    cut = image_overlap(
        predicted[:, :20], true[:, :20], predicted[:, :20], 3, background=0, spacing=(1, 1)
    )
    assert np.array_equal(found, cut)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda p, t: (p[1:], t), "the prediction has shape"),
        (lambda p, t: (p + 3, t), "the prediction has the class 3"),
        (lambda p, t: (p, t + 5), "the true mask has the class 5"),
    ],
)
def test_masks_that_cannot_be(change, said):
    masks = change(*np.zeros((2, 4, 4), np.uint8))
    with pytest.raises(RequestError, match=said):
        image_overlap(*masks, None, 3, background=0)


def test_several_images_as_one_sample():
    true = true_masks(6)
    scores, labels = measured(true, predicted_masks(true, 0.5))
    parts = overlap.shaped(scores)
    found = together(parts)
    assert np.array_equal(found[:4], parts[:, :4].sum(0))
    for c in (1, 2):
        known = parts[:, 4, c] >= 0
        assert found[4, c] == pytest.approx(parts[known, 4, c].mean())
    assert (found[4:, 0] == BACKGROUND).all()
    nothing = parts.copy()
    nothing[0, 2:4] = NOT_MEASURED
    assert (together(nothing)[2:4] == NOT_MEASURED).all()
    assert (together(parts[labels[:, 2] == 0])[4:, 2] == NOT_MEASURED).all()


# One class beside the background; each sample is (both, predicted, true, hd95): what is said of a
# structure that is there, missed, absent, and seen where it isn't.
THERE, MISSED, ABSENT, ALARM = (8, 10, 10, 2.0), (0, 0, 5, 99.0), (0, 0, 0, -1), (0, 4, 0, -1)


def by_hand(*samples, n_pixels=100):
    scores, labels = [], []
    for both, predicted, true, hd95 in samples:
        background = n_pixels - predicted - true + both, n_pixels - predicted
        nsd = -1 if hd95 < 0 else 0.5
        columns = [background, (both, predicted)]
        each = [[c[0] for c in columns], [c[1] for c in columns]]
        scores.append([*each, *each, [BACKGROUND, hd95], [BACKGROUND, nsd]])
        labels.append([n_pixels - true, true])
    return np.array(scores, float).reshape(len(samples), -1), np.array(labels)


@pytest.mark.parametrize(
    ("samples", "expected"),
    [
        ([THERE], {"dice": 0.8, "jaccard": 8 / 12, "hd95": 2, "detection_sensitivity": 1}),
        ([THERE, MISSED], {"dice": 0.4, "hd95": 50.5, "hd95_median": 50.5, "nsd": 0.5}),
        ([THERE, THERE, MISSED], {"hd95_median": 2, "detection_sensitivity": 2 / 3}),
        ([THERE, ABSENT], {"dice": 0.8, "hd95": 2, "detection_specificity": 1}),
        ([THERE, ABSENT, ALARM], {"dice": 0.8, "detection_specificity": 0.5}),
        ([MISSED], {"dice": 0, "jaccard": 0, "hd95": 99, "detection_sensitivity": 0}),
        ([ABSENT, ALARM], {"dice": math.nan, "hd95": math.nan, "detection_sensitivity": math.nan}),
        ([ABSENT], {"miou": 1.0, "dice_all": 1.0}),  # the background's alone
        ([THERE, ALARM], {"miou": ((86 + 88 + 8) and (8 / 16 + 184 / 192) / 2)}),
        ([THERE], {"dice_all": (0.8 + 2 * 88 / 180) / 2, "bound": 0.8}),
    ],
)  # fmt: skip
def test_what_absent_and_missed_structures_count(samples, expected):
    found = prepare(*by_hand(*samples), SEGMENTATION).evaluate()
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, nan_ok=True), name


def test_a_sample_of_ignored_pixels_alone_counts_nowhere():
    scores, labels = by_hand(THERE, ABSENT, ALARM, (0, 0, 0, -1))
    labels[-1], scores[-1].reshape(6, 2)[:4] = 0, 0
    found, without = (prepare(scores[:n], labels[:n], SEGMENTATION).evaluate() for n in (4, 3))
    assert found == pytest.approx(without, nan_ok=True)


def slow_metrics(true, predicted, scores):
    """Dice, Jaccard and detection sample by sample."""
    dice, jaccard, sensitivity, specificity = [], [], [], []
    for c in (1, 2):
        of = [(t == c, p == c) for t, p in zip(true, predicted, strict=True)]
        dice.append(np.mean([2 * (t & p).sum() / (t.sum() + p.sum()) for t, p in of if t.any()]))
        jaccard.append(np.mean([(t & p).sum() / (t | p).sum() for t, p in of if t.any()]))
        sensitivity.append(np.mean([p.any() for t, p in of if t.any()]))
        specificity += [np.mean([not p.any() for t, p in of if not t.any()])] if c == 2 else []
    return {
        "dice": np.mean(dice),
        "jaccard": np.mean(jaccard),
        "dice_jaccard": (np.mean(dice) + np.mean(jaccard)) / 2,
        "detection_sensitivity": np.mean(sensitivity),
        "detection_specificity": np.mean(specificity),
    }


def test_metrics_as_a_loop_has_them_and_the_jackknife_leaves_out():
    true = true_masks(20)
    predicted = predicted_masks(true, 0.5)
    scores, labels = measured(true, predicted)
    found = prepare(scores, labels, SEGMENTATION)
    values = found.evaluate()
    for name, value in slow_metrics(true, predicted, scores).items():
        assert values[name] == pytest.approx(value), name
    cluster = np.arange(20) // 2
    without = left_out(found, cluster)
    assert "hd95_median" not in without
    for unit in (0, 7):
        kept = cluster != unit
        rest = prepare(scores[kept], labels[kept], SEGMENTATION).evaluate()
        for name, each in without.items():
            assert each[unit] == pytest.approx(rest[name]), name


def test_intervals_go_by_the_rarest_structure():
    true = true_masks(60)
    predicted = predicted_masks(true, 0.6)
    found = estimate(*measured(true, predicted), SEGMENTATION)
    assert found.supports["dice"].weakest == 36
    for name in ("dice", "hd95", "nsd", "detection_sensitivity", "detection_specificity", "bound"):
        value, low, high = found.metrics[name]
        assert low < value < high, name
        assert found.methods[name] == JACKKNIFE
    assert found.methods["hd95_median"] == NONE
    few = np.r_[0, 1, 2, 3, np.arange(60)[true_masks(60).reshape(60, -1).max(1) < 2]]
    found = estimate(*measured(true[few], predicted[few]), SEGMENTATION)
    assert found.supports["dice"].who == 2
    assert found.methods["dice"] == NONE
    assert found.methods["detection_sensitivity"] == COUNTS


def test_a_miss_that_is_not_in_test_is_reckoned_with():
    scores, labels = by_hand(*[THERE] * 5, ABSENT)
    found = overlap.unseen(scores, labels, np.arange(6))
    half = 0.5 / 6
    variance = half * (1 - half) / 5 * 0.8**2
    assert found["dice"] == pytest.approx(variance / (2 * 0.8 * 0.2) ** 2)
    assert found["hd95"] == 0  # nothing is farther than another
    seen = overlap.unseen(*by_hand(*[THERE] * 5, MISSED), np.arange(6))
    assert (seen["dice"], seen["hd95"]) == (0, 0)


@pytest.mark.parametrize(("n", "method"), [(4, NONE), (5, JACKKNIFE), (9, JACKKNIFE)])
def test_few_structures_have_no_interval(n, method):
    other = (5, 9, 8, 3.0), (7, 8, 9, 1.0)
    scores, labels = by_hand(*[THERE, *other] * 3, *[ABSENT] * 9)
    kept = np.r_[np.arange(n), np.arange(9, 18)]
    answers = {"test": Scored(scores[kept], labels[kept], np.arange(n + 9).astype(str), None)}
    found = measure(answers, Task(SEGMENTATION, ("background", "spot")))
    assert found.intervals["dice"] == method
    assert found.intervals["hd95"] == NONE
    assert any(f"class spot has {n} samples" in mark and "hd95" in mark for mark in found.marks)


def test_patients_sum_their_images():
    true = true_masks(10)
    scores, labels = measured(true, predicted_masks(true, 0.5))
    groups = np.array([f"p{i // 2}" for i in range(10)])
    ids = np.arange(10).astype(str)
    found = by_patient(Scored(scores, labels, ids, groups), is_dense=True)
    assert found.labels.tolist() == labels.reshape(5, 2, 3).sum(1).tolist()
    first = together(overlap.shaped(scores)[:2]).ravel()
    assert np.array_equal(found.scores[0], first)
    both = by_patient(Scored(np.stack([scores, scores]), labels, ids, groups), is_dense=True)
    assert np.array_equal(both.scores, np.stack([found.scores, found.scores]))


def measured_row(true, predicted, spacing=(0.5, 0.5), **more):
    scores, labels = measured(true, predicted, spacing)
    ids = np.arange(len(true)).astype(str)
    return measure({"test": Scored(scores, labels, ids, None)}, TASK, **more)


def test_what_a_row_says_of_classes_and_sizes():
    true = true_masks(20)
    found = measured_row(true, predicted_masks(true, 0.5, 3), patch_pixels=np.full(20, 16.0))
    by_class = found.per_class
    assert by_class["background"] == [True, False, False]
    assert by_class["n"] == [20, 20, 12]
    assert by_class["n_empty"] == [0, 0, 8]
    assert 0 < by_class["missed"][2] < 12
    assert 0 < by_class["false_alarms"][2] < 8
    assert found.test["dice"].value == pytest.approx(np.mean(by_class["dice"][1:]))
    assert "dice_jaccard" not in {*found.test, *found.intervals}
    sizes = dict(found.per_size)
    assert set(sizes["class"]) == {"organ", "lesion"}
    of = [n for n, c in zip(sizes["n"], sizes["class"], strict=True) if c == "lesion"]
    assert sum(of) == 12
    lesions = (true == 2).sum((1, 2))
    small = sizes["n"][sizes["size"].index("<1")]
    assert small == ((lesions > 0) & (lesions < 16)).sum()


def test_the_mean_of_dice_and_jaccard_is_of_one_protocol():
    true = true_masks(10)
    found = measured_row(true, predicted_masks(true), protocol="baharoon2023").test
    assert found["dice_jaccard"].value == pytest.approx(
        (found["dice"].value + found["jaccard"].value) / 2
    )


def test_marks_say_what_is_in_no_mean():
    true = true_masks(10)
    true[true == 2] = 1
    found = measured_row(true, true, spacing=None)
    assert "no test image has lesion: out of all means" in found.marks
    assert "no distances: the spacing of pixels is unknown" in found.marks
    assert math.isnan(found.test["hd95"].value)
    assert any("nothing scatters" in mark for mark in found.marks)
    all_have = np.concatenate([m[None] for m in true_masks(10) if (m == 2).any()])
    assert any(
        "every test image has every structure" in m for m in measured_row(all_have, all_have).marks
    )


def test_episodes_are_means():
    true = true_masks(30)
    each = [measured(true, predicted_masks(true, 0.5, seed)) for seed in range(3)]
    scores, labels = np.stack([s for s, _ in each]), each[0][1]
    answers = {"test": Scored(scores, labels, np.arange(30).astype(str), None)}
    found = measure(answers, TASK, measuring=Measuring(n_resamples=20))
    values = [prepare(s, labels, SEGMENTATION).evaluate()["dice"] for s in scores]
    assert found.episodes["dice"] == pytest.approx(values)
    assert found.test["dice"].low < np.mean(values) < found.test["dice"].high


def test_episodes_that_are_alike_have_the_interval_of_one_answer():
    true = true_masks(30)
    scores, labels = measured(true, predicted_masks(true, 0.5, 0))
    names = np.arange(30).astype(str)
    one = measure({"test": Scored(scores, labels, names, None)}, TASK)
    same = measure({"test": Scored(np.stack([scores] * 3), labels, names, None)}, TASK)
    assert same.test["dice"] == pytest.approx(one.test["dice"])
    assert same.test["jaccard"] == pytest.approx(one.test["jaccard"])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda s, y: (s[:, :-1], y), "have shape"),
        (lambda s, y: (s, y.astype(float)), "have shape"),
        (lambda s, y: (s * np.nan, y), "finite"),
        (lambda s, y: (s, y // 2), "more pixels are both"),
    ],
)
def test_numbers_that_cannot_be(change, said):
    true = true_masks(4)
    with pytest.raises(RequestError, match=said):
        prepare(*change(*measured(true, true)), SEGMENTATION)


def test_a_dense_task_has_six_numbers_a_class():
    task = Task(SEGMENTATION, ("background", "organ"))
    assert task.is_dense
    assert not task.has_several_labels
    assert task.n_outputs == 12
