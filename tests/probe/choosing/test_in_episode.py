"""Choices inside an episode: by its own samples alone, and never by val."""

import textwrap

import numpy as np
import pytest
from features import make_features
from leaking import make_file
from looking import some
from numpy.testing import assert_allclose
from probing import answered, refused, rows, run
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from cache import open_features
from cache.task import BINARY, MULTI_CLASS, MULTI_LABEL, REGRESSION, Task
from probe.choosing.in_episode import TooFewError, choose_by_folds, make_episode_folds
from probe.episodes.draw import FewShotConfig, draw_episodes
from probe.kinds import knn
from probe.kinds.custom import find_kind
from probe.kinds.knn import Knn
from probe.metrics.calibration import Votes
from probe.metrics.losses import loss_of
from probe.metrics.patients import Scored, by_patient
from probe.questions.question import Split

LOGISTIC = "sklearn.linear_model.LogisticRegression"


def samples(labels, groups=None, seed=0):
    rng = np.random.default_rng(seed)
    labels = np.asarray(labels)
    x = rng.normal(size=(len(labels), 5)).astype(np.float32)
    x[:, 0] += 2 * (labels if labels.ndim == 1 else labels.sum(axis=1))
    ids = np.array([f"train/{i:03d}" for i in range(len(labels))])
    return Split(x, labels, ids, groups)


# ---------------------------------------------------------------------------- folds


def test_folds_are_as_many_as_the_rarest_class_allows_and_hold_some_of_each():
    for counts, n_folds in {(10, 10): 5, (3, 8): 3, (2, 2, 9): 2}.items():
        split = samples(np.repeat(np.arange(len(counts)), counts))
        fold = make_episode_folds(split, MULTI_CLASS)
        assert fold.max() + 1 == n_folds
        for held_out in range(n_folds):
            assert len(np.unique(split.y[fold == held_out])) == len(counts)


def test_no_patient_is_in_two_folds():
    groups = np.array([f"p{i // 3}" for i in range(24)])
    fold = make_episode_folds(samples(np.repeat([0, 1], 12), groups), BINARY)
    assert fold.max() + 1 == 4  # patients of a class
    for patient in np.unique(groups):
        assert len(np.unique(fold[groups == patient])) == 1


def test_a_class_of_one_is_always_learnt_from():
    fold = make_episode_folds(samples([0] * 5 + [1] * 5 + [2]), MULTI_CLASS)
    assert fold[-1] == -1
    assert sorted(set(fold[:-1])) == [0, 1, 2, 3, 4]


def test_one_shot_has_nothing_to_choose_on():
    with pytest.raises(TooFewError, match="one sample, or patient, of each class.*name one"):
        make_episode_folds(samples([0, 1, 2]), MULTI_CLASS)
    groups = np.array(["a", "a", "b", "b"])
    with pytest.raises(TooFewError, match="or patient"):
        make_episode_folds(samples([0, 0, 1, 1], groups), BINARY)


def test_folds_of_several_labels_and_of_continuous_ones():
    labels = np.random.default_rng(1).integers(0, 2, (12, 3))
    assert set(make_episode_folds(samples(labels), MULTI_LABEL)) == {0, 1, 2, 3, 4}
    assert set(make_episode_folds(samples(np.linspace(0, 1, 3)), REGRESSION)) == {0, 1, 2}
    labels[:, 2] = -1
    labels[4, 2] = 1  # known of one alone: without its fold nothing is
    with pytest.raises(TooFewError, match="nothing is left of some class"):
        make_episode_folds(samples(labels), MULTI_LABEL)


def test_the_setting_with_the_smallest_pooled_loss_is_taken():
    split = samples(np.repeat([0, 1], 9), seed=3)
    strengths, task = (1e-4, 1e-2, 1.0, 100.0), Task(BINARY, ("a", "b"))
    config = find_kind(LOGISTIC, ["C=" + ",".join(map(str, strengths))])
    fold = make_episode_folds(split, BINARY)
    losses = []
    for strength in strengths:
        scores = np.empty((18, 2))
        for held_out in range(5):
            rest = fold != held_out
            scaler = StandardScaler().fit(split.x[rest].astype(np.float64))
            model = LogisticRegression(C=strength, random_state=0)
            model.fit(scaler.transform(split.x[rest]), split.y[rest])
            scores[~rest] = model.predict_proba(scaler.transform(split.x[~rest]))
        losses.append(loss_of(scores, split.y, BINARY))
    assert choose_by_folds(
        lambda part: config.fit(part, task), 4, split, BINARY, config.scores_of, config.name_one
    ) == int(np.argmin(losses))
    assert int(np.argmin(losses)) not in (0, 3)  # a choice that the ends don't make


# ---------------------------------------------------------------------------- the command


def scores_of(folder, row):
    (path,) = folder.glob(f"results/*/*{row['id'][:16]}*.npz")
    with np.load(path) as found:
        return {name: found[name] for name in found.files}


def episodes_of(features, shots, n_episodes):
    train = features.split == "train"
    settings = FewShotConfig((shots,), n_episodes)
    labels = features.labels[train]
    return train, draw_episodes(
        settings, features.ids[train], labels, Task(features.task, ("a", "b", "c"))
    )[shots]


@pytest.mark.parametrize("how", ["train", "episode"])
def test_an_estimator_of_one_setting_is_fitted_to_each_episode(folder, capsys, how):
    features = open_features(make_features(folder / "features"))
    words = f"--kind {LOGISTIC} --set C=0.1 --shots 3 --episodes 4 --prior none"
    assert run(capsys, f"{words} --standardise {how}")[0] == 0
    (row,) = rows()
    assert row["probe"]["chosen_by"] == "fixed"
    assert row["chosen"] == {"settings": {"C": 0.1}}
    train, episodes = episodes_of(features, 3, 4)
    x, y, test = features.array(-1, "cls"), features.labels[train], features.split == "test"
    for found, of_episode in zip(scores_of(folder, row)["test_scores"], episodes, strict=True):
        own = x[train][of_episode].astype(np.float64)
        scaler = StandardScaler().fit(own if how == "episode" else x[train].astype(np.float64))
        model = LogisticRegression(C=0.1).fit(scaler.transform(own), y[of_episode])
        assert_allclose(found, model.predict_proba(scaler.transform(x[test])), atol=1e-3)


def test_margins_stay_margins(folder, capsys):
    make_features(folder / "features")
    words = "--kind sklearn.svm.LinearSVC --shots 2 --episodes 3"
    assert "scores are margins" in run(capsys, words)[1]
    (row,) = rows()
    assert row["score_type"] == row["probe"]["score_type"] == "margin"
    assert "prior" not in row["probe"]["few_shot"]
    assert "brier" not in row["metrics"]
    err = refused(capsys, f"{words} --prior em")
    assert "--prior em corrects probabilities, and sklearn.svm.LinearSVC gives none" in err


def test_a_grid_is_chosen_in_each_episode_and_val_is_not_read(folder, capsys):
    path = make_features(folder / "features")
    words = f"--kind {LOGISTIC} --set C=0.001,1,1000 --shots 1,4 --episodes 6"
    status, out, err = run(capsys, words)
    assert status == 1  # one shot has nothing to choose on; the others are answered
    assert "--shots 1: an episode has one sample, or patient, of each class" in err
    assert "settings are chosen in each episode, by folds of its own; shown is that of" in out
    (row,) = rows()
    assert row["probe"]["few_shot"]["shots"] == 4
    assert row["probe"]["chosen_by"] == "in-episode log-loss"
    assert row["probe"]["folds"] == {"n": 5, "seed": 0}
    assert sum(row["chosen"]["wins"]) == len(row["chosen"]["of_episodes"]) == 6
    first = scores_of(folder, row)["test_scores"]

    def spoil(labels):
        is_val = (np.arange(len(labels)) >= 120) & (np.arange(len(labels)) < 160)
        return np.where(is_val, 0, labels)

    path.unlink()
    make_features(folder / "features", labels=spoil)
    for old in folder.glob("results/*/*"):
        old.unlink()
    run(capsys, words)
    assert np.array_equal(scores_of(folder, rows()[0])["test_scores"], first)


@pytest.mark.parametrize("task", ["multi-class", "multi-label, binary-class"])
def test_a_users_own_probe(folder, capsys, task):
    (folder / "mine.py").write_text(
        textwrap.dedent("""
        import numpy as np

        class Mine:
            score_type = "margin"
            def __init__(self, sign=1.0):
                self.sign = sign
            def fit(self, features, labels):
                if labels.ndim == 1:
                    labels = labels[:, None] == np.arange(labels.max() + 1)
                centred = features - features.mean(axis=0)
                self.weights = centred.T @ (labels - labels.mean(axis=0))
            def predict_scores(self, features):
                return self.sign * (features @ self.weights)
        """)
    )
    make_features(folder / "features", task=task)
    assert run(capsys, "--kind mine.py:Mine --set sign=-1,1 --shots 8 --episodes 5")[0] == 0
    (row,) = rows()
    assert row["chosen"]["settings"] == {"sign": 1}
    assert row["chosen"]["wins"] == [0, 5]
    assert row["probe"]["chosen_by"] == "in-episode 1 - AUC"
    assert row["metrics"]["auc"]["value"] > 0.6


def test_a_mistake_in_an_episode_is_one_line(folder, capsys):
    (folder / "mine.py").write_text(
        "class Mine:\n    def fit(self, x, y):\n        1 / 0\n    def predict_scores(self, x): ...\n"
    )
    make_features(folder / "features")
    err = refused(capsys, "--kind mine.py:Mine --shots 2,3")
    assert "fails in fit: ZeroDivisionError: division by zero (mine.py, line 3)" in err
    assert err.count("\n") == 1


# ---------------------------------------------------------------------------- k


def test_each_episode_has_the_k_that_leaves_the_smallest_error(folder, capsys):
    features = open_features(make_features(folder / "features"))
    words = "--kind knn --k auto:1,3,9,40 --shots 6 --episodes 5 --prior none"
    out = answered(capsys, words)
    (row,) = rows()
    assert row["probe"]["k_among"] == [9, 3, 1]  # 18 images: none leaves 40 others
    assert row["probe"]["chosen_by"] == "leave-one-out log-loss"
    assert "k" not in row["probe"]
    assert "k is chosen in each episode, by leaving one out; shown is that of" in out
    train, episodes = episodes_of(features, 6, 5)
    x, y = features.array(-1, "cls")[train], features.labels[train]
    test = features.array(-1, "cls")[features.split == "test"]
    config = Knn(k=(9, 3, 1))
    found = scores_of(folder, row)["test_scores"]
    for e, own in enumerate(episodes):
        left_out = {k: [] for k in config.k}
        for i in own:
            bank = own[own != i]
            said = knn.scores(config, x[bank], y[bank], x[[i]], MULTI_CLASS, 3)
            for k, scores in said.items():
                left_out[k].append(scores[0])
        even = np.full(3, 1 / 3)  # six images of each class
        losses = [
            loss_of(np.array(s), y[own], MULTI_CLASS, votes=Votes(k, even))
            for k, s in left_out.items()
        ]
        place = int(np.argmin(losses))
        assert row["chosen"]["of_episodes"][e] == place
        only = knn.scores(config, x[own], y[own], test, MULTI_CLASS, 3)[config.k[place]]
        assert_allclose(found[e], only, atol=1e-6)


@pytest.mark.parametrize(
    ("task", "more"),
    [("multi-label, binary-class", "--vote mlknn"), ("multi-label, binary-class", "")],
)
def test_k_of_several_labels(folder, capsys, task, more):
    make_features(folder / "features", task=task)
    assert run(capsys, f"--kind knn --k auto {more} --shots 5 --episodes 3")[0] == 0
    (row,) = rows()
    assert row["probe"]["k_among"] == [11, 5, 3, 1]
    assert row["metrics"]["auc"]["value"] > 0.6


def test_k_is_not_chosen_on_one_shot(folder, capsys):
    make_features(folder / "features")
    err = refused(capsys, "--kind knn --k auto --shots 1,2 --episodes 3")
    assert "--shots 1: leaving out the one sample, or patient, of a class" in err
    assert [row["probe"]["few_shot"]["shots"] for row in rows()] == [2]
    err = refused(capsys, "--kind knn --k auto:50 --shots 2 --episodes 3")
    assert "k = 50 needs more images than some episodes have: at most 5; name that" in err


@pytest.mark.parametrize(("protocol", "k"), [("doerrich2024", 11), ("huix2024", 200)])
def test_a_papers_k_is_refused_with_the_largest_there_is(folder, capsys, protocol, k):
    make_features(folder / "features")
    words = f"--protocol {protocol} --shots 2,5 --episodes 3"
    status, out, err = run(capsys, words)
    assert status == 1
    assert (
        f"--shots 2: k = {k} needs more images than some episodes have: at most 6; name that" in err
    )
    assert ("--shots 5" in err) == (k == 200)
    out = answered(capsys, f"{words} --k 6")
    assert f"probed as {protocol}, but k 6, shots 2/5" in out


# ---------------------------------------------------------------------------- patients


def with_patients(folder):
    """A file in which each patient has up to six samples of one class, in any split."""
    plain = make_file(folder / "features", copies={}, twins={})
    groups = np.array([f"{c} {i // 6}" for i, c in enumerate(open_features(plain).labels)])
    plain.unlink()
    settings = {"copies": {}, "twins": {}, "patients": True}
    return make_file(folder / "features", groups=groups, **settings), groups


def test_patients_are_measured_in_every_episode(folder, capsys):
    features, groups = with_patients(folder)
    words = "--kind linear --shots 2 --episodes 4"
    assert run(capsys, words)[0] == 0
    (by_sample,) = rows()
    out = answered(capsys, f"{words} --aggregate patient")
    assert "patients are measured" in out
    (row,) = (row for row in rows() if row["id"] != by_sample["id"])
    assert row["probe"]["few_shot"] == by_sample["probe"]["few_shot"]
    assert row["probe"]["scores_of"] == "patients"
    assert row["intervals"]["acc"] == by_sample["intervals"]["acc"] == "jackknife"  # few patients
    stored, each = scores_of(folder, row), scores_of(folder, by_sample)
    names = dict(zip(open_features(features).ids, groups, strict=True))
    of_test = np.array([names[name] for name in each["test_ids"]])
    expected = by_patient(
        Scored(each["test_scores"], each["test_labels"], each["test_ids"], of_test)
    )
    assert_allclose(stored["test_scores"], expected.scores, atol=1e-6)
    assert stored["test_ids"].tolist() == expected.ids.tolist()
    accs = [np.mean(s.argmax(axis=1) == stored["test_labels"]) for s in stored["test_scores"]]
    assert row["episodes"]["acc"] == pytest.approx(accs)


def test_choices_in_an_episode_keep_patients_whole(folder, capsys):
    features, _ = with_patients(folder)
    checksum = open_features(features).header.tables["samples/groups"]
    assert run(capsys, "--kind knn --k auto:1,2,3 --shots 3 --episodes 4")[0] == 0
    assert run(capsys, f"--kind {LOGISTIC} --set C=0.1,1 --shots 3 --episodes 4")[0] == 0
    by_kind = {row["probe"]["kind"]: row["probe"] for row in rows()}
    assert by_kind["knn"]["left_out"] == {"n": 1, "groups": checksum}
    assert by_kind[LOGISTIC]["folds"] == {"n": 5, "seed": 0, "groups": checksum}


def test_continuous_labels_are_chosen_for_by_squared_error(folder, capsys):
    make_features(folder / "features")
    table = folder / "ages.csv"
    table.write_text("id,age\n" + "".join(f"{i:05d},{i % 3}.5\n" for i in range(220)))
    words = f"--labels {table} --target age --task regression --shots 20 --episodes 3"
    assert run(capsys, f"--kind sklearn.linear_model.Ridge --set alpha=1,1e9 {words}")[0] == 0
    assert run(capsys, f"--kind knn --k auto:1,5 {words}")[0] == 0
    by_kind = {row["probe"]["kind"]: row for row in rows()}
    assert by_kind["sklearn.linear_model.Ridge"]["chosen"]["settings"] == {"alpha": 1}
    assert by_kind["sklearn.linear_model.Ridge"]["probe"]["chosen_by"] == "in-episode squared error"
    assert by_kind["knn"]["probe"]["chosen_by"] == "leave-one-out squared error"
    assert all(row["metrics"]["r2"]["value"] > 0 for row in some(by_kind.values()))
