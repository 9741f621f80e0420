"""The kNN probe against float64 brute force, scikit-learn, and corners that can be seen by eye."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from here import REPOSITORY
from looking import some
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.neighbors import KNeighborsClassifier, NearestNeighbors
from torch import nn

from cache.errors import RequestError
from cache.task import BINARY, MULTI_CLASS, MULTI_LABEL, REGRESSION
from probe.kinds.knn import Knn
from probe.metrics import classification as metrics
from probe.solvers.knn import scores
from probe.solvers.neighbours import _Bank, neighbours
from probe.solvers.votes import vote, vote_multilabel, weigh

REAL = Path(os.environ.get("MEDPROBE_REAL", REPOSITORY / ".." / "shared"))
BREAST = REAL / "data" / "medmnist" / "breastmnist.npz"


def clusters(n, width=16, n_classes=3, seed=0):
    """Overlapping clouds around n_classes fixed centres."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(0, 1, (n_classes, width))
    labels = rng.integers(0, n_classes, n)
    return (centres[labels] + rng.normal(0, 1, (n, width))).astype(np.float32), labels


def brute_force(bank, queries, k, metric):
    """Similarities and neighbours in float64; equal ones in the order of the bank."""
    bank, queries = bank.astype(np.float64), queries.astype(np.float64)
    if metric == "cosine":
        bank = bank / np.linalg.norm(bank, axis=1, keepdims=True)
        queries = queries / np.linalg.norm(queries, axis=1, keepdims=True)
        similarities = queries @ bank.T
    else:
        similarities = -np.linalg.norm(queries[:, None] - bank, axis=2)
    order = np.argsort(-similarities, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(similarities, order, axis=1), order


@pytest.fixture(params=["direct", "blas"])
def faiss_path(request):
    """Both ways in which faiss computes distances; which one is its default varies by version."""
    import faiss

    before = faiss.cvar.distance_compute_blas_threshold
    faiss.cvar.distance_compute_blas_threshold = 1 if request.param == "blas" else 2**30
    yield
    faiss.cvar.distance_compute_blas_threshold = before


CORNERS = np.array([[1, 1], [-1, 1], [-1, -1], [1, -1]], dtype=np.float32)


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_the_four_corners(metric):
    queries = np.array([[3, 2], [-3, 2], [-3, -2], [3, -2]], dtype=np.float32)
    similarities, indices = neighbours(CORNERS, queries, 2, metric)
    # The nearest corner is that of the own quadrant; the next one lies across the nearer axis.
    assert indices.tolist() == [[0, 3], [1, 2], [2, 1], [3, 0]]
    if metric == "cosine":
        assert_allclose(similarities, [[5 / 26**0.5, 1 / 26**0.5]] * 4, rtol=1e-6)
    else:
        assert_allclose(similarities, [[-(5**0.5), -(13**0.5)]] * 4, rtol=1e-6)


@pytest.mark.usefixtures("faiss_path")
@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_equal_to_float64_brute_force(metric, dtype):
    bank, queries = clusters(700, seed=1)[0].astype(dtype), clusters(90, seed=2)[0].astype(dtype)
    similarities, indices = neighbours(bank, queries, 130, metric)
    expected, order = brute_force(bank, queries, 130, metric)
    assert similarities.dtype == np.float32
    assert indices.dtype == np.int64
    assert_allclose(similarities, expected, atol=1e-5)
    assert np.mean(indices == order) > 0.999  # float32 may swap two that agree to 7 digits


@pytest.mark.usefixtures("faiss_path")
def test_euclidean_far_from_the_origin():
    bank, queries = clusters(500, seed=1)[0] + 1000, clusters(60, seed=2)[0] + 1000
    _, indices = neighbours(bank, queries, 20, "euclidean")
    assert np.mean(indices == brute_force(bank, queries, 20, "euclidean")[1]) > 0.999


@pytest.mark.usefixtures("faiss_path")
@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_chunks_change_nothing(metric, monkeypatch):
    bank, queries = clusters(300, seed=1)[0], clusters(70, seed=2)[0]
    whole = neighbours(bank, queries, 15, metric)
    monkeypatch.setattr("probe.solvers.neighbours.CHUNK_ROWS", 32)
    parts = neighbours(bank, queries, 15, metric)
    assert_allclose(whole[0], parts[0], atol=1e-6)
    assert_array_equal(whole[1], parts[1])


@pytest.mark.usefixtures("faiss_path")
@pytest.mark.parametrize("k", [1, 3, 40, 120])
@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_equal_similarities_come_in_the_order_of_the_bank(k, metric):
    # 300 rows, of which 200 are the same: whatever faiss keeps of them, we want the earliest.
    rng = np.random.default_rng(0)
    bank = np.repeat([[0.0, 1.0]], 300, axis=0)
    bank[rng.permutation(300)[:100]] = [1.0, 0.0]
    queries = np.repeat([[0.0, 2.0], [2.0, 0.0]], 15, axis=0)
    _, indices = neighbours(bank, queries, k, metric)
    assert_array_equal(indices, brute_force(bank, queries, k, metric)[1])


def test_a_row_of_zeros_resembles_nothing():
    bank = np.array([[0, 0], [1, 0], [-1, 0]], dtype=np.float32)
    queries = np.array([[2, 0], [0, 0]], dtype=np.float32)
    similarities, indices = neighbours(bank, queries, 3, "cosine")
    assert similarities.tolist() == [[1, 0, -1], [0, 0, 0]]
    assert indices.tolist() == [[1, 0, 2], [0, 1, 2]]


@pytest.mark.parametrize("factor", [1e-30, 1e30])
def test_lengths_beyond_the_squares_of_float32(factor):
    bank = (CORNERS * factor).astype(np.float32)
    similarities, indices = neighbours(bank, bank, 1, "cosine")
    assert indices.ravel().tolist() == [0, 1, 2, 3]
    assert_allclose(similarities, 1, rtol=1e-6)


def test_a_class_named_twice_counts_twice():
    similarities = np.zeros((1, 3), dtype=np.float32)  # equal weights: 1/3 each
    for rule in ("weighted", "majority"):
        found = vote(weigh(similarities, rule), np.array([[1, 1, 0]]), n_classes=3)
        assert_allclose(found, [[1 / 3, 2 / 3, 0]], rtol=1e-12)


def test_the_temperature_sets_the_odds():
    # exp(0.07 * ln 3 / 0.07) = 3: the first neighbour has three votes, the second one.
    similarities = np.array([[0.07 * np.log(3), 0.0]])
    weights = weigh(similarities, "weighted", 0.07)
    assert_allclose(vote(weights, np.array([[1, 0]]), 2), [[0.25, 0.75]], rtol=1e-12)
    weights = weigh(similarities, "weighted", 1e-4)
    assert_allclose(vote(weights, np.array([[1, 0]]), 2), [[0, 1]])


def test_a_majority_tie_is_exact():
    found = vote(np.ones((1, 11)), np.array([[2] * 5 + [1] * 5 + [0]]), 3)
    assert found[0, 1] == found[0, 2]
    assert found.argmax() == 1


def test_multilabel_votes_by_eye():
    similarities = np.array([[0.07 * np.log(3), 0.0]])
    neighbour_labels = np.array([[[1, 1, 0], [0, 1, 0]]])
    for rule, expected in (("weighted", [[0.75, 1, 0]]), ("majority", [[0.5, 1, 0]])):
        found = vote_multilabel(weigh(similarities, rule), neighbour_labels, 3)
        assert_allclose(found, expected)


@pytest.mark.parametrize("k", [10, 200])
def test_the_exponential_vote_divided_by_its_sum_is_the_softmax_vote(k):
    # As in Huix et al.'s trainer.py, before the division, and in DINO's eval_knn.py, at k alone.
    (bank, labels), (queries, _) = clusters(300, seed=1), clusters(40, seed=2)
    similarities, indices = brute_force(bank, queries, k, "cosine")
    one_hot = np.eye(3)[labels[indices]]
    exponential = np.einsum("qk,qkc->qc", np.exp(similarities / 0.1), one_hot)
    found = scores(Knn((k,), temperature=0.1), bank, labels, queries, MULTI_CLASS, 3)[k]
    assert_allclose(found, exponential / exponential.sum(axis=1, keepdims=True), atol=1e-5)


def test_weighted_vote_equals_scikit_learn():
    (bank, labels), (queries, _) = clusters(400, seed=1), clusters(80, seed=2)

    def weigh(distances):
        return np.exp((1 - distances) / 0.07)

    for k in (1, 10, 50):
        settings = {"metric": "cosine", "algorithm": "brute", "weights": weigh}
        reference = KNeighborsClassifier(k, **settings)
        expected = reference.fit(bank.astype(np.float64), labels).predict_proba(queries)
        found = scores(Knn(k=(k,)), bank, labels, queries, MULTI_CLASS, 3)[k]
        assert_allclose(found, expected, atol=1e-5)


def test_multilabel_equals_scikit_learn():
    bank, queries = clusters(400, seed=1)[0], clusters(80, seed=2)[0]
    labels = np.random.default_rng(3).integers(0, 2, (400, 4))
    rules = {"weighted": lambda d: np.exp((1 - d) / 0.07), "majority": "uniform"}
    for vote_name, weights in some(rules.items()):
        reference = KNeighborsClassifier(20, metric="cosine", algorithm="brute", weights=weights)
        expected = reference.fit(bank.astype(np.float64), labels).predict_proba(queries)
        found = scores(Knn((20,), vote=vote_name), bank, labels, queries, MULTI_LABEL, 4)[20]
        assert_allclose(found, np.stack([column[:, 1] for column in expected], axis=1), atol=1e-5)


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_each_k_alone_equals_all_at_once(metric):
    (bank, labels), (queries, _) = clusters(400, seed=1), clusters(80, seed=2)
    together = scores(Knn((50, 1, 10), metric), bank, labels, queries, MULTI_CLASS, 3)
    assert list(together) == [50, 1, 10]
    for k, found in together.items():
        alone = scores(Knn((k,), metric), bank, labels, queries, MULTI_CLASS, 3)[k]
        assert_allclose(found, alone, atol=1e-6)
        assert_allclose(found.sum(axis=1), 1)


@pytest.mark.parametrize("task", [MULTI_CLASS, MULTI_LABEL])
def test_votes_in_chunks_change_nothing(task, monkeypatch):
    (bank, labels), (queries, _) = clusters(100, seed=1), clusters(50, seed=2)
    labels = np.eye(3, dtype=int)[labels] if task == MULTI_LABEL else labels
    whole = scores(Knn((5, 9)), bank, labels, queries, task, 3)
    monkeypatch.setattr("probe.solvers.knn.CHUNK_VOTES", 70)
    parts = scores(Knn((5, 9)), bank, labels, queries, task, 3)
    for k in (5, 9):
        assert_array_equal(whole[k], parts[k])


def ball_tree_majority(bank, labels, queries, k):
    """Doerrich et al.'s protocol: Euclidean on raw features, most common label, smallest wins."""
    nearest = NearestNeighbors(n_neighbors=k, algorithm="ball_tree").fit(bank)
    found = labels[nearest.kneighbors(queries, return_distance=False)]
    return np.array([np.bincount(row).argmax() for row in found])


def test_doerrich_protocol_equals_ball_tree():
    (bank, labels), (queries, _) = clusters(500, n_classes=5, seed=1), clusters(200, seed=2)
    config = Knn(k=(11,), metric="euclidean")
    found = scores(config, bank, labels, queries, MULTI_CLASS, 5)[11]
    assert_array_equal(found.argmax(axis=1), ball_tree_majority(bank, labels, queries, 11))


@pytest.mark.real
@pytest.mark.skipif(not BREAST.exists(), reason="no official breastmnist.npz")
def test_breastmnist_pixels():
    with np.load(BREAST) as file:
        bank, queries = (file[f"{s}_images"].reshape(-1, 784) for s in ("train", "test"))
        labels, truth = (file[f"{s}_labels"].ravel().astype(int) for s in ("train", "test"))
    bank, queries = bank.astype(np.float32), queries.astype(np.float32)
    found = scores(Knn((11,), "euclidean"), bank, labels, queries, BINARY, 2)[11]
    expected = ball_tree_majority(bank, labels, queries, 11)
    assert_array_equal(metrics.predict(found, BINARY), expected)
    assert metrics.accuracy(found, truth, BINARY) == np.mean(expected == truth)
    assert metrics.accuracy(found, truth, BINARY) > metrics.larger_class_rate(truth, BINARY)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"k": ()}, "--k takes numbers from 1 up, each once; not nothing"),
        ({"k": (5, 0)}, "not 5,0"),
        ({"k": (5, 5)}, "each once; not 5,5"),
        ({"metric": "l2"}, "--metric takes cosine, euclidean, not 'l2'"),
        ({"vote": "loud"}, "--vote takes weighted, majority, mlknn, not 'loud'"),
        ({"temperature": 0}, "--temperature takes a number above 0, not 0"),
        ({"temperature": float("inf")}, "above 0, not inf"),
        ({"metric": "euclidean", "vote": "weighted"}, "needs cosine similarities"),
        ({"self_counts": True}, "only --vote mlknn counts"),
    ],
)
def test_config_refusals(settings, message):
    with pytest.raises(RequestError, match=message):
        Knn(**settings)


def test_the_vote_follows_from_the_metric():
    assert Knn().rule == "weighted"
    assert Knn(metric="euclidean").rule == "majority"
    assert Knn(vote="majority").rule == "majority"


def test_search_refusals():
    with pytest.raises(RequestError, match="k = 5 neighbours can't be found in a bank of 4"):
        neighbours(CORNERS, CORNERS, 5)
    with pytest.raises(RequestError, match="2 in the bank and 3 in the queries"):
        neighbours(CORNERS, np.ones((1, 3)), 1)
    with pytest.raises(RequestError, match=r"found \(4, 2\) in the bank and \(2,\)"):
        neighbours(CORNERS, np.ones(2), 1)
    with pytest.raises(RequestError, match='unknown metric "manhattan"'):
        neighbours(CORNERS, CORNERS, 1, "manhattan")
    with pytest.raises(RequestError, match="inf or nan in row 1 of the queries"):
        neighbours(CORNERS, np.array([[1, 1], [np.inf, 1]]), 1)
    with pytest.raises(RequestError, match="inf or nan in row 3 of the bank"):
        neighbours(np.vstack([CORNERS[:3], [[np.nan, 1]]]), CORNERS, 1, "euclidean")


def test_label_refusals():
    with pytest.raises(RequestError, match=r"0\.\.1, found 0\.\.2"):
        vote(np.zeros((1, 2)), np.array([[0, 2]]), n_classes=2)
    with pytest.raises(RequestError, match=r"\(Q, K, 3\), found \(1, 1, 2\)"):
        vote_multilabel(np.zeros((1, 1)), np.ones((1, 1, 2), dtype=int), n_classes=3)
    with pytest.raises(RequestError, match="3 labels and 4 rows"):
        scores(Knn((1,)), CORNERS, np.zeros(3, dtype=int), CORNERS, MULTI_CLASS, 2)
    with pytest.raises(RequestError, match=r"0\.\.1, found 0\.\.3"):
        scores(Knn((1,)), CORNERS, np.arange(4), CORNERS, BINARY, 2)


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("k", [1, 20, 1500])  # the last is more than a part of the bank has
def test_a_bank_in_parts_gives_the_same_to_the_last_bit(metric, k, monkeypatch):
    bank, queries = clusters(2500, width=8, seed=1)[0], clusters(60, width=8, seed=2)[0]
    bank[2400:] = bank[:100]  # ties across the parts
    expected = neighbours(bank.astype(np.float16), queries, k, metric)
    assert (np.diff(expected[0], axis=1) == 0).any() or k == 1
    monkeypatch.setattr("probe.solvers.neighbours.BANK_BYTES", 1)
    assert len(_Bank(bank, None).parts) == 3
    found = neighbours(bank.astype(np.float16), queries, k, metric)
    for part, whole in zip(found, expected, strict=True):
        assert_array_equal(part, whole)


@pytest.mark.gpu
@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("k", [20, 2100])  # the second is more than a GPU selects
def test_a_gpu_finds_the_same_neighbours(metric, k, monkeypatch):
    import faiss

    bank, queries = clusters(5000, seed=1)[0], clusters(300, seed=2)[0]
    assert faiss.get_num_gpus(), "no GPU that faiss can use"
    similarities, indices = neighbours(bank, queries, k, metric)
    monkeypatch.setattr(faiss, "get_num_gpus", lambda: 0)
    expected, order = neighbours(bank, queries, k, metric)
    assert_allclose(similarities, expected, atol=1e-5)
    assert np.mean(indices == order) > 0.999  # float32 may swap two that agree to 7 digits


def dinov2s_votes(similarities, labels, ks, n_classes, temperature):
    """dinov2/eval/knn.py at 05c66df, KnnModule: softmax over the largest k, then sums over each."""
    shares = torch.softmax(similarities / temperature, dim=1)
    votes = nn.functional.one_hot(labels, n_classes) * shares[..., None]
    return {k: votes[:, :k].sum(dim=1).numpy() for k in ks}


def test_cut_off_scores_are_those_of_dinov2s_code():
    rng = np.random.default_rng(3)
    bank, queries = rng.normal(size=(60, 5)), rng.normal(size=(17, 5))
    labels = rng.integers(0, 3, 60)
    config = Knn(k=(2, 30, 7), temperature=0.2, cut_off=True)
    found = scores(config, bank, labels, queries, MULTI_CLASS, 3)
    x, q = (nn.functional.normalize(torch.from_numpy(a), dim=1) for a in (bank, queries))
    similarities, nearest = (q @ x.T).topk(30, dim=1)
    expected = dinov2s_votes(similarities, torch.from_numpy(labels)[nearest], config.k, 3, 0.2)
    plain = scores(Knn(k=(2, 30, 7), temperature=0.2), bank, labels, queries, MULTI_CLASS, 3)
    for k in config.k:
        assert_allclose(found[k], expected[k], atol=1e-6)
        assert_array_equal(found[k].argmax(axis=1), plain[k].argmax(axis=1))
    assert found[2].sum(axis=1).max() < 0.9
    assert_allclose(found[30], plain[30], atol=1e-12)
    with pytest.raises(RequestError, match="not for continuous labels"):
        scores(config, bank, labels[:, None].astype(float), queries, REGRESSION, 1)
