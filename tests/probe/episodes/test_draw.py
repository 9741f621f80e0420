"""Which samples an episode gets: by rule, by chance, by file."""

import numpy as np
import pytest
from looking import some

from cache.errors import RequestError
from cache.task import BINARY, MISSING, MULTI_CLASS, MULTI_LABEL, Task
from probe.episodes.draw import (
    FewShotConfig,
    digest_of,
    draw_episodes,
    read_episodes,
    seats,
    write_episodes,
)

N = 120
IDS = np.array([f"train/{i:03d}" for i in range(N)])
LABELS = np.repeat([0, 1, 2], [70, 40, 10])


def draw(labels=LABELS, task=MULTI_CLASS, n_classes=3, groups=None, ids=IDS, **settings):
    return draw_episodes(
        FewShotConfig(**settings), ids, labels, Task(task, tuple("abcdefgh"[:n_classes])), groups
    )


def test_an_episode_has_the_shots_of_each_class_and_a_small_class_gives_all():
    draws = draw(shots=(1, 5, 25), n_episodes=20)
    for shots, counts in {1: [1, 1, 1], 5: [5, 5, 5], 25: [25, 25, 10]}.items():
        assert len(draws[shots]) == 20
        for rows in draws[shots]:
            assert np.bincount(LABELS[rows]).tolist() == counts
            assert np.all(np.diff(rows) > 0)


@pytest.mark.parametrize("rule", ["balanced", "natural", "bigvision"])
def test_few_shots_lie_within_more(rule):
    draws = draw(shots=(5, 1, 10), n_episodes=10, draw=rule)
    for one, five, ten in some(zip(draws[1], draws[5], draws[10], strict=True)):
        assert set(one) < set(five) < set(ten)


def test_episodes_hang_on_ids_and_seed_alone():
    """Another order of rows, or more episodes, or other shots: the same ids."""
    order = np.random.default_rng(0).permutation(N)
    here = draw(shots=(1, 5), n_episodes=4)
    there = draw(LABELS[order], ids=IDS[order], shots=(5,), n_episodes=9)
    assert [set(IDS[rows]) for rows in here[5]] == [set(IDS[order][rows]) for rows in there[5][:4]]
    assert digest_of(here[5], IDS) == digest_of(there[5][:4], IDS[order])
    assert digest_of(here[5], IDS) != digest_of(draw(shots=(5,), n_episodes=4, seed=1)[5], IDS)


def test_the_draw_is_the_same_on_every_machine():
    """SHA-256 and whole numbers: a constant of this project."""
    assert [rows.tolist() for rows in draw(shots=(1,), n_episodes=3)[1]] == [
        [53, 98, 114],
        [46, 87, 110],
        [50, 87, 110],
    ]


def test_each_sample_is_drawn_as_often_as_any_other():
    draws = draw(shots=(5,), n_episodes=2000)[5]
    often = np.bincount(np.concatenate(draws), minlength=N)
    for c, size in enumerate([70, 40, 10]):
        expected = 2000 * 5 / size
        assert np.abs(often[LABELS == c] - expected).max() < 5 * np.sqrt(expected)


def test_natural_has_one_of_each_and_then_the_shares_of_train():
    draws = draw(shots=(1, 10), n_episodes=3, draw="natural")
    assert all(np.bincount(LABELS[rows]).tolist() == [1, 1, 1] for rows in draws[1])
    assert all(np.bincount(LABELS[rows]).tolist() == [18, 10, 2] for rows in draws[10])


def test_a_seat_is_never_taken_back():
    """Shares 6, 6 and 2 of 10 and 11 are Alabama's paradox by largest remainder: 4 4 2, 5 5 1."""
    before = seats([6, 6, 2], 3)
    for n in range(4, 16):
        after = seats([6, 6, 2], n)
        assert sum(after) == min(n, 14)
        assert all(a <= b for a, b in zip(before, after, strict=True))
        before = after


def test_first_is_paper_000s_first_of_each_class_in_file_order():
    labels = np.array([1, 0, 0, 1, 1, 0, 1])
    ids = np.array(list("gfedcba"))
    for shots, rows in {1: [0, 1], 2: [0, 1, 2, 3], 9: list(range(7))}.items():
        found = draw(labels, BINARY, 2, ids=ids, shots=(shots,), draw="first")
        assert [part.tolist() for part in found[shots]] == [rows]


def test_bigvision_is_numpys_permutation_of_each_class():
    draws = draw(shots=(1, 5), draw="bigvision")
    assert len(draws[5]) == 3
    for seed, rows in enumerate(draws[5]):
        rng = np.random.default_rng(seed)
        expected = [rng.permutation(np.flatnonzero(LABELS == c))[:5] for c in range(3)]
        assert rows.tolist() == sorted(np.concatenate(expected).tolist())


def published_patients(groups, labels, shots):
    """Paper 003's rule, written out: dinov2/data/utils.py:4-28."""
    sets = {}
    for patient, row in zip(groups, labels, strict=True):
        found = set(np.flatnonzero(row == 1))
        sets[patient] = sets[patient] & found if patient in sets else found
    taken = set()
    for c in range(labels.shape[1]):
        n = 0
        for patient in sorted(sets):
            if n < shots and c in sets[patient] and patient not in taken:
                taken.add(patient)
                n += 1
    return [i for i, patient in enumerate(groups) if patient in taken]


@pytest.mark.parametrize("shots", [1, 2, 4])
def test_patients_is_paper_003s_rule(shots):
    rng = np.random.default_rng(3)
    labels = (rng.random((N, 4)) < 0.35).astype(np.int64)
    groups = np.array([f"p{p:02d}" for p in rng.integers(0, 50, N)])
    found = draw(labels, MULTI_LABEL, 4, groups, shots=(shots,), draw="patients")[shots]
    assert [rows.tolist() for rows in found] == [published_patients(groups, labels, shots)]


def test_a_shot_is_a_patient_with_all_images_where_patients_are_known():
    groups = np.array([f"p{i // 3}" for i in range(N)])  # some have images of two classes
    for rows in some(draw(groups=groups, shots=(2,), n_episodes=30)[2]):
        patients = np.unique(groups[rows])
        assert len(patients) == 6
        assert len(rows) == 18
        assert all(len(np.unique(LABELS[groups == p])) == 1 for p in patients)


def test_an_empty_group_is_a_patient_of_its_own():
    groups = np.full(N, "")
    assert digest_of(draw(shots=(5,))[5], IDS) == digest_of(draw(groups=groups, shots=(5,))[5], IDS)


def test_several_labels_are_drawn_in_rounds_the_rarest_first_with_some_that_have_none():
    labels = np.zeros((N, 2), np.int64)
    labels[:40, 0] = 1
    labels[35:40, 1] = 1  # all that have the second label have the first too
    labels[50, 0] = MISSING
    for rows in some(draw(labels, MULTI_LABEL, 2, shots=(4,), n_episodes=20)[4]):
        assert labels[rows, 1].sum() == 4
        assert len(rows) == 12
        assert (labels[rows] == 0).all(axis=1).sum() == 4
        assert 50 not in rows


def test_continuous_labels_have_no_classes():
    draws = draw(np.linspace(0, 1, N), "regression", 1, shots=(1, 7), n_episodes=5)
    assert [len(rows) for rows in draws[7]] == [7] * 5


def test_a_file_gives_back_what_was_written_and_refuses_what_is_not_of_train(tmp_path):
    draws = draw(shots=(1, 5), n_episodes=3)
    path = tmp_path / "episodes.csv"
    write_episodes(path, draws, IDS, "toys")
    order = np.random.default_rng(0).permutation(N)
    there = read_episodes(path, (5,), IDS[order], "toys")
    assert digest_of(there[5], IDS[order]) == digest_of(draws[5], IDS)
    with pytest.raises(RequestError, match="episodes of 1, 5 shots, and none of 10"):
        read_episodes(path, (10,), IDS, "toys")
    with pytest.raises(RequestError, match="isn't a training sample"):
        read_episodes(path, (5,), IDS[:50], "toys")
    with pytest.raises(RequestError, match="line 2: these are ids of toys, and dolls is asked"):
        read_episodes(path, (5,), IDS, "dolls")
    path.write_text("shots,episode,id\n1,0,train/001\n1,0,train/001\n")
    with pytest.raises(RequestError, match="line 3: 'train/001' stands twice in episode 0"):
        read_episodes(path, (1,), IDS, "toys")


def test_what_is_named_is_told_from_what_is_meant():
    assert FewShotConfig((1,)).rule == FewShotConfig((1,), draw="balanced").rule == "balanced"
    assert not FewShotConfig((1,)).names_rule
    for named in ({"draw": "balanced"}, {"seed": 0}, {"n_episodes": 100}):
        assert FewShotConfig((1,), **named).names_rule


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"shots": ()}, "--shots takes numbers from 1 up"),
        ({"shots": (0,)}, "--shots takes"),
        ({"shots": (5, 5)}, "each once"),
        ({"shots": (1,), "n_episodes": 0}, "--episodes takes 1"),
        ({"shots": (1,), "seed": -1}, "--episode-seed takes 0"),
        ({"shots": (1,), "draw": "evenly"}, "--draw takes balanced"),
        ({"shots": (1,), "prior": "flat"}, "--prior takes train"),
        ({"shots": (1,), "draw": "first", "n_episodes": 100}, "leaves nothing to chance"),
    ],
)
def test_wrong_settings_are_refused(settings, match):
    with pytest.raises(RequestError, match=match):
        FewShotConfig(**settings)


@pytest.mark.parametrize("rule", ["first", "bigvision"])
def test_rules_of_single_classes_refuse_several_labels(rule):
    with pytest.raises(RequestError, match="counts images of single classes"):
        draw(np.zeros((N, 2), np.int64), MULTI_LABEL, 2, shots=(1,), draw=rule)
