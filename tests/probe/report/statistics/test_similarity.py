"""CKA and shared neighbours: values worked out elsewhere, slow obvious versions, and the traps."""

import math
import tracemalloc

import numpy as np
import pytest

from cache.errors import RequestError
from probe.report.statistics import similarity
from probe.report.statistics.similarity import (
    as_representation,
    cka,
    cka_matrix,
    hsic,
    nearest,
    represent,
    shared,
)

X = np.array([[1, 0], [0, 1], [1, 1], [2, 1], [0, 3]])
Y = np.array([[1, 0, 2], [0, 1, 1], [1, 1, 0], [2, 0, 1], [1, 3, 0]])
A = np.array([[1, 0, 2, 1], [0, 1, 1, 3], [1, 1, 0, 0], [2, 0, 1, 1], [1, 3, 0, 2]])
B = np.array([[1, 2, 0, 1], [0, 1, 2, 2], [1, 0, 1, 0], [3, 0, 1, 1], [1, 3, 1, 2]])


def slow_hsic(x, y, is_debiased=True):
    """By the n x n matrices of the definition."""
    n, one = len(x), np.ones(len(x))
    k, l = x @ x.T, y @ y.T
    if not is_debiased:
        h = np.eye(n) - 1 / n
        return np.trace(k @ h @ l @ h) / (n - 1) ** 2
    np.fill_diagonal(k, 0)
    np.fill_diagonal(l, 0)
    both = (one @ k @ one) * (one @ l @ one) / ((n - 1) * (n - 2))
    return (np.trace(k @ l) + both - 2 / (n - 2) * (one @ k @ l @ one)) / (n * (n - 3))


def slow_cka(x, y, is_debiased=True):
    own = slow_hsic(x, x, is_debiased) * slow_hsic(y, y, is_debiased)
    return slow_hsic(x, y, is_debiased) / math.sqrt(own)


def noise(n, *widths, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=(n, width)) for width in widths]


def alike(n, *widths, seed=0, signal=5):
    """Representations that have something in common."""
    rng = np.random.default_rng(seed)
    common = rng.normal(size=(n, signal))
    return [
        common @ rng.normal(size=(signal, width)) + rng.normal(size=(n, width)) for width in widths
    ]


def matrix(left, right=None, **options):
    ours = [as_representation(x) for x in left]
    return cka_matrix(ours, right and [as_representation(y) for y in right], **options)


# ---------------------------------------------------------------------- CKA of two


def test_worked_example():
    assert cka(X, Y, is_debiased=False) == pytest.approx(0.9232509559)
    assert cka(X, Y) == pytest.approx(0.7758801774)
    assert hsic(X, Y, is_debiased=False) == pytest.approx(2.905)
    assert hsic(X, Y) == pytest.approx(1.1)
    assert cka(X, X) == pytest.approx(1)


@pytest.mark.parametrize(
    ("n", "width", "biased", "debiased"),
    [
        (50, 10, 0.1592, -0.0061),
        (50, 768, 0.9419, 0.0634),
        (200, 768, 0.7913, -0.0025),
        (2000, 768, 0.2769, -0.0007),
    ],
)
def test_noise(n, width, biased, debiased):
    x, y = noise(n, width, width)
    assert cka(x, y, is_debiased=False) == pytest.approx(biased, abs=5e-5)
    assert cka(x, y) == pytest.approx(debiased, abs=5e-5)


@pytest.mark.parametrize("is_debiased", [True, False])
@pytest.mark.parametrize("widths", [(3, 8), (3, 60), (70, 60)])  # in feature and in sample space
def test_as_defined(widths, is_debiased):
    x, y = alike(30, *widths)
    x += 7  # a mean changes nothing
    assert hsic(x, y, is_debiased) == pytest.approx(slow_hsic(x, y, is_debiased))
    assert cka(x, y, is_debiased) == pytest.approx(slow_cka(x, y, is_debiased))


def test_chunks_of_rows_change_nothing(monkeypatch):
    x, y = alike(30, 70, 60)
    whole = hsic(x, y)
    monkeypatch.setattr(similarity, "CHUNK_ROWS", 7)
    assert hsic(x, y) == pytest.approx(whole)


def test_stored_halves_are_summed_in_doubles():
    x, y = (side.astype(np.float16) for side in alike(300, 40, 20))
    wide = [side.astype(np.float64) for side in (x, y)]
    assert cka(x, y) == cka(*wide)
    assert matrix([x], [y]).cka == matrix([wide[0]], [wide[1]]).cka


@pytest.mark.parametrize("is_debiased", [True, False])
@pytest.mark.parametrize("value", [0.0, 0.1, 1e4])
def test_without_variance_there_is_no_cka(value, is_debiased):
    x, y = np.full((40, 6), value), noise(40, 5)[0]
    assert math.isnan(cka(x, y, is_debiased))
    found = matrix([x, y], [y], is_debiased=is_debiased)
    assert np.isnan(found.cka).ravel().tolist() == [True, False]
    assert np.isnan(found.trimmed).ravel().tolist() == [True, False]


def test_what_centring_takes_off_is_no_variance():
    # K is a constant off its diagonal: one vector far from equal ones in as many directions.
    x = np.eye(12)
    assert slow_hsic(x, x) == 0
    assert math.isnan(cka(x, noise(12, 3)[0]))
    assert np.isnan(matrix([x]).cka).all()


def test_refusals():
    with pytest.raises(RequestError, match="as many rows, found 5 and 4"):
        cka(X, Y[:4])
    with pytest.raises(RequestError, match="4 samples at least, found 3"):
        cka(X[:3], Y[:3])
    with pytest.raises(RequestError, match="4 samples at least, found 3"):
        matrix([X[:3]])
    with pytest.raises(RequestError, match="as many rows, found 5 and 4"):
        matrix([X], [Y[:4]])
    with pytest.raises(RequestError, match="minibatches have 4 samples at least, not 3"):
        matrix([X], batch=3)
    with pytest.raises(RequestError, match="biased CKA depends on n and has no minibatches"):
        matrix([X], is_debiased=False, batch=4)
    assert cka(X[:3], Y[:3], is_debiased=False) == pytest.approx(slow_cka(X[:3], Y[:3], False))


# ---------------------------------------------------------------------- CKA of many


@pytest.mark.parametrize("is_debiased", [True, False])
def test_matrix_is_of_pairs(is_debiased):
    left, right = alike(60, 7, 20, 90), alike(60, 11, 130, seed=1)
    right[0] += left[0][:, :1]
    found = matrix(left, right, is_debiased=is_debiased)
    assert found.cka == pytest.approx(
        np.array([[cka(x, y, is_debiased) for y in right] for x in left])
    )
    own = matrix(left, is_debiased=is_debiased)
    assert own.cka == pytest.approx(
        np.array([[cka(x, y, is_debiased) for y in left] for x in left])
    )
    assert own.cka == pytest.approx(own.cka.T)


def test_as_another_program_has_it():
    # pytorch-cka 1.1.3, cka_from_features
    rng = np.random.default_rng(3)
    common = rng.normal(size=(60, 5))
    x, y = (
        [common @ rng.normal(size=(5, d)) + rng.normal(size=(60, d)) for d in widths]
        for widths in ((7, 20, 90), (7, 130))
    )
    expected = np.array([[0.3792, 0.5858], [0.5921, 0.8096], [0.6179, 0.9450]])
    assert matrix(x, y).cka == pytest.approx(expected, abs=6e-5)


@pytest.mark.parametrize("is_debiased", [True, False])
@pytest.mark.parametrize("n", [5, 40, 250])
def test_trimmed_is_without_either_sides_largest_norms(n, is_debiased):
    sides = alike(n, 6, 9, 200)
    for place, side in enumerate(sides):  # largest once the mean is off, not before
        side += 50
        side[place] -= 20
    found = matrix(sides, is_debiased=is_debiased)
    n_left_out = math.ceil(n / 100)
    for i, x in enumerate(sides):
        for j, y in enumerate(sides):
            kept = np.ones(n, bool)
            for side in (x, y):
                norms = np.linalg.norm(side - side.mean(axis=0), axis=1)
                kept[np.argsort(norms)[-n_left_out:]] = False
            assert not kept[i]
            assert found.n_trimmed[i, j] == kept.sum()
            if is_debiased and kept.sum() < 4:
                assert math.isnan(found.trimmed[i, j])
            else:
                expected = slow_cka(x[kept] - 50, y[kept] - 50, is_debiased)
                assert found.trimmed[i, j] == pytest.approx(expected)


def test_grams_some_rows_at_a_time(monkeypatch):
    left, right = alike(60, 7, 90), alike(60, 11, 130, 5, seed=1)
    whole = matrix(left, right)
    monkeypatch.setattr(similarity, "GRAM_BYTES", 8 * 5 * 60 * 7)  # 7 rows
    parts = matrix(left, right)
    assert parts.cka == pytest.approx(whole.cka)
    assert parts.trimmed == pytest.approx(whole.trimmed)


@pytest.mark.parametrize(("batch", "away"), [(64, 0.0024), (16, 0.0016)])
def test_minibatches_agree_with_the_exact(batch, away):
    """A shared signal of 256 samples: .8119, in batches of 64 .8143, of 16 .8103, each drawn once."""
    x, y = alike(256, 64, 64, signal=4)
    exact = matrix([x], [y], batch=256).cka[0, 0]
    assert exact == pytest.approx(cka(x, y))
    found = [matrix([x], [y], batch=batch, seed=seed).cka[0, 0] for seed in range(20)]
    assert exact == pytest.approx(np.mean(found), abs=away)
    assert 1e-4 < np.std(found) < 0.005


def test_minibatches_are_summed_before_the_ratio():
    x, y = alike(45, 6, 9)
    order = np.random.default_rng(5).permutation(45)
    batches = np.array_split(order, 4)  # 12, 11, 11, 11
    sums = [
        sum(slow_hsic(a[rows], b[rows]) for rows in batches) for a, b in ((x, y), (x, x), (y, y))
    ]
    found = matrix([x], [y], batch=12, seed=5)
    assert found.cka[0, 0] == pytest.approx(sums[0] / math.sqrt(sums[1] * sums[2]))
    mean = np.mean([slow_cka(x[rows], y[rows]) for rows in batches])
    assert abs(found.cka[0, 0] - mean) > 0.002
    # One sample, or two, of 45 aren't in the second.
    usual = as_representation(x).is_usual & as_representation(y).is_usual
    batches = [rows[usual[rows]] for rows in batches]
    sums = [
        sum(slow_hsic(a[rows], b[rows]) for rows in batches) for a, b in ((x, y), (x, x), (y, y))
    ]
    assert found.n_trimmed[0, 0] == usual.sum() < 45
    assert found.trimmed[0, 0] == pytest.approx(sums[0] / math.sqrt(sums[1] * sums[2]))


def test_many_samples_go_by_minibatches_and_the_seed_says_which(monkeypatch):
    monkeypatch.setattr(similarity, "EXACT", 100)
    monkeypatch.setattr(similarity, "BATCH", 20)
    x, y = alike(101, 6, 9)
    assert matrix([x], [y]).cka == matrix([x], [y], batch=20, seed=0).cka != cka(x, y)
    assert matrix([x], [y], seed=1).cka != matrix([x], [y]).cka
    assert matrix([x[:100]], [y[:100]]).cka == pytest.approx(cka(x[:100], y[:100]))
    assert matrix([x], [y], is_debiased=False).cka == pytest.approx(cka(x, y, is_debiased=False))


def test_outliers_need_the_second_number():
    x, y = noise(200, 20, 20)
    assert abs(matrix([x], [y]).cka[0, 0]) < 0.03
    for side in (x, y):
        side[:2] += 1e3
    found = matrix([x], [y])
    assert found.cka[0, 0] > 0.99
    assert abs(found.trimmed[0, 0]) < 0.03
    assert found.n_trimmed[0, 0] == 198


@pytest.mark.parametrize("far", [1e4, 1e8])
def test_a_far_outlier_costs_the_others_no_digits(far):
    x, y = alike(200, 20, 30)
    x[3] = far
    y[3] = -far
    found = matrix([x], [y])
    kept = np.array(as_representation(x).is_usual & as_representation(y).is_usual)
    assert found.trimmed[0, 0] == pytest.approx(slow_cka(x[kept], y[kept]))


def test_layers_are_read_once_a_batch_and_no_gram_of_all_samples_is_made():
    n, width, n_layers = 3000, 8, 3
    layers = [side.astype(np.float16) for side in noise(n, *[width] * n_layers)]
    reads = []

    def reading(i):
        def read(places):
            reads.append((i, len(places)))
            return layers[i][places]

        return read

    tracemalloc.start()
    represented = [represent(reading(i), n) for i in range(n_layers)]
    reads.clear()
    cka_matrix(represented[:2], represented[2:], batch=100)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert sorted(reads) == [(i, 100) for i in range(n_layers) for _ in range(30)]
    assert peak < 8 * n * n / 20


# ---------------------------------------------------------------------- neighbours that are shared


def slow_nearest(x, k):
    x = np.asarray(x, float)
    norms = np.linalg.norm(x, axis=1)
    found = []
    for i in range(len(x)):
        cosine = [
            round(float(x[i] @ x[j] / ((norms[i] * norms[j]) or 1)), 12) for j in range(len(x))
        ]
        others = sorted((j for j in range(len(x)) if j != i), key=lambda j: (-cosine[j], j))
        found.append(sorted(others[:k]))
    return np.array(found)


def test_worked_overlap():
    assert shared(nearest(A, 2), nearest(B, 2)) == pytest.approx(0.7)


@pytest.mark.parametrize("k", [1, 3, 19])
def test_nearest_as_defined(k, monkeypatch):
    rng = np.random.default_rng(2)
    x = rng.integers(-2, 3, (20, 3)).astype(np.float16)  # many are equally near
    x[4] = 0
    x[7] = x[8] = x[9]
    expected = slow_nearest(x, k)
    assert nearest(x, k).tolist() == expected.tolist()
    monkeypatch.setattr(similarity, "GRAM_BYTES", 32 * 20 * 3)  # 3 rows
    assert nearest(x, k).tolist() == expected.tolist()


def test_overlap_is_symmetric_and_at_chance_of_noise():
    n, k = 400, 10
    x, y = (nearest(side, k) for side in noise(n, 16, 32))
    assert shared(x, y) == shared(y, x)
    assert shared(x, x) == 1
    # 4,000 neighbours, each shared with probability k / (n - 1)
    assert shared(x, y) == pytest.approx(k / (n - 1), abs=4 * math.sqrt(k / n / (n * k)))
    common = alike(n, 16, 32)
    assert shared(*(nearest(side, k) for side in common)) > 5 * k / n


@pytest.mark.parametrize("k", [0, 5, -1])
def test_neighbours_that_there_arent(k):
    with pytest.raises(RequestError, match="5 samples have 1 to 4 neighbours each"):
        nearest(A, k)
