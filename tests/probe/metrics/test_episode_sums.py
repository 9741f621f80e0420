"""Sums over resamples of many episodes at once, against those of one after another."""

import numpy as np
import pytest
from looking import some
from numpy.testing import assert_allclose, assert_array_equal

from cache.task import BINARY, MISSING, MULTI_CLASS, MULTI_LABEL, ORDINAL
from probe.metrics import classification as metrics
from probe.metrics import episodes
from probe.metrics.classification import MARGIN, PROBABILITY
from probe.metrics.episodes import EpisodeSums, multiplicities
from probe.metrics.metric import metrics_of

E, N = 3, 70
N_CLASSES = {BINARY: 2, MULTI_CLASS: 4, ORDINAL: 5, MULTI_LABEL: 3}


def parts_of(task, score_type=PROBABILITY, lowest=0):
    rng = np.random.default_rng(0)
    n_classes = N_CLASSES[task]
    scores = rng.dirichlet(np.ones(n_classes), (E, N))
    labels = rng.integers(0, n_classes, N)
    if task == MULTI_LABEL:
        labels = rng.integers(lowest, 2, (N, n_classes))
    if score_type == MARGIN:
        scores = scores - 0.4
    return [metrics.sample_parts(answers, labels, task, score_type) for answers in scores]


@pytest.mark.parametrize("task", N_CLASSES)
@pytest.mark.parametrize("score_type", [PROBABILITY, MARGIN])
@pytest.mark.parametrize("lowest", [0, MISSING])
@pytest.mark.parametrize("exact", [2**24, 0])
def test_every_episode_has_the_sums_of_its_own(monkeypatch, task, score_type, lowest, exact):
    """Also where float32 couldn't hold them."""
    monkeypatch.setattr(episodes, "EXACT", exact)
    each = parts_of(task, score_type, lowest)
    drawn = multiplicities(N, 40, 1)
    together = EpisodeSums(each).of(drawn)
    known = metrics.metrics_for(task, score_type)
    found = metrics_of(together, known, task)
    for e, parts in enumerate(each):
        sums = {name: np.tensordot(drawn, part, 1) for name, part in parts.items()}
        assert_array_equal(together["counts"][:, e], sums["counts"])
        for name, values in metrics_of(sums, known, task).items():
            assert_allclose(found[name][:, e], values, rtol=1e-12, err_msg=name)


def test_what_is_no_count_is_summed_as_it_is():
    rng = np.random.default_rng(0)
    each = [{"moments": rng.normal(size=(N, 8))} for _ in range(E)]
    drawn = rng.integers(0, 3, (5, N))
    sums = EpisodeSums(each).of(drawn)["moments"]
    for e, parts in some(enumerate(each)):
        assert_allclose(sums[:, e], drawn @ parts["moments"], rtol=1e-12)
