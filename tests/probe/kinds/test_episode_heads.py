"""Heads trained on many episodes at once, against one episode after another."""

import dataclasses

import numpy as np
import pytest
from features import make_features
from numpy.testing import assert_allclose
from probing import answered, refused, rows, run

from cache.task import BINARY, MULTI_CLASS, MULTI_LABEL
from probe.choosing.in_episode import make_episode_folds
from probe.kinds import adamw, heads
from probe.kinds.adamw import AdamW
from probe.kinds.heads import Heads
from probe.questions.question import Split
from probe.solvers import adamw as solver
from probe.solvers.adamw import Diverged

ADAMW = AdamW(iterations=120, batch_size=8, seeds=(0, 3), n_checks=5)
GRID = Heads(lrs=(0.1, 1.0), n_last=(1, 2), batch_size=8, epochs=3, iterations=10)


def problem(task, n_classes, n=60, width=24):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n, width)).astype(np.float16)
    y = np.arange(n) % n_classes
    x[:, :n_classes] += np.eye(n_classes, dtype=np.float16)[y]
    if task == MULTI_LABEL:
        y = (x[:, :n_classes] + rng.normal(size=(n, n_classes)) > 0).astype(int)
        y[::7, 1] = -1
    # Of 6, 8 and 20 images: less than a batch, one, and more.
    episodes = [np.sort(rng.choice(40, size, replace=False)) for size in (6, 20, 8, 6, 20)]
    return x, y, episodes


TASKS = [(BINARY, 2), (MULTI_CLASS, 3), (MULTI_LABEL, 3)]


@pytest.mark.parametrize(("task", "n_classes"), TASKS)
@pytest.mark.parametrize("has_val", [True, False])
def test_every_episode_is_adamw_on_its_samples(task, n_classes, has_val):
    x, y, episodes = problem(task, n_classes)
    val = (x[40:], y[40:])
    found = adamw.fit_episodes(x, y, episodes, task, n_classes, ADAMW, val if has_val else None)
    for rows_, of_seeds in zip(episodes, found, strict=True):
        own = dataclasses.replace(
            ADAMW, batch_size=min(8, len(rows_)), n_checks=5 if has_val else 1
        )
        (expected,) = adamw.fit_heads([x[rows_]], y[rows_], [val[0]], val[1], task, n_classes, own)
        for fit, other in zip(of_seeds, expected, strict=True):
            assert fit.seed == other.seed
            if has_val:
                assert (fit.iteration, fit.checks) == (other.iteration, other.checks)
                assert_allclose(fit.weights, other.weights, atol=2e-4)
            else:
                assert (fit.iteration, fit.checks) == (other.checks[-1][0], ())


def test_without_val_the_last_step_is_taken():
    """That of the smallest loss on the episode's own images, where one looks at these."""
    x, y, episodes = problem(MULTI_CLASS, 3)
    own, labels = x[episodes[0]], y[episodes[0]]
    ((found, _), *_) = adamw.fit_episodes(x, y, episodes, MULTI_CLASS, 3, ADAMW)
    config = dataclasses.replace(ADAMW, batch_size=6, choose_by="loss")
    ((expected, _),) = adamw.fit_heads([own], labels, [own], labels, MULTI_CLASS, 3, config)
    assert found.iteration == expected.iteration == ADAMW.iterations
    assert_allclose(found.weights, expected.weights, atol=2e-4)


@pytest.mark.parametrize(("task", "n_classes"), TASKS)
def test_every_episode_is_the_grid_on_its_samples(task, n_classes):
    x, y, episodes = problem(task, n_classes)
    found = heads.fit_episode_grids(x, y, episodes, 2, True, task, n_classes, GRID)
    for rows_, grid in zip(episodes, found, strict=True):
        expected = heads.fit_grid(x[rows_], y[rows_], 2, True, task, n_classes, GRID)
        for fit, other in zip(grid, expected, strict=True):
            assert (fit.lr, fit.n_last, fit.with_mean) == (other.lr, other.n_last, other.with_mean)
            assert_allclose(fit.weights, other.weights, atol=1e-4)
            assert_allclose(fit.intercept, other.intercept, atol=1e-4)


def test_episodes_in_pieces_are_the_same(monkeypatch):
    x, y, episodes = problem(MULTI_CLASS, 3)
    whole = adamw.fit_episodes(x, y, episodes, MULTI_CLASS, 3, ADAMW)
    grids = heads.fit_episode_grids(x, y, episodes, 2, True, MULTI_CLASS, 3, GRID)
    monkeypatch.setattr("probe.solvers.epochs.CACHE_BYTES", 1)
    for one, other in zip(
        whole, adamw.fit_episodes(x, y, episodes, MULTI_CLASS, 3, ADAMW), strict=True
    ):
        assert_allclose(one[1].weights, other[1].weights, atol=1e-4)
    pieces = heads.fit_episode_grids(x, y, episodes, 2, True, MULTI_CLASS, 3, GRID)
    for one, other in zip(grids, pieces, strict=True):
        assert_allclose(one[-1].weights, other[-1].weights, atol=1e-4)


def test_no_more_than_a_batch_of_an_episode_is_gathered_at_one_time(monkeypatch):
    x, y, episodes = problem(MULTI_CLASS, 3)
    take, sizes = solver.EpisodeDraw._take, []

    def noting(self, places):
        sizes.append(places.shape[1])
        return take(self, places)

    monkeypatch.setattr("probe.solvers.adamw.EpisodeDraw._take", noting)
    adamw.fit_episodes(x, y, episodes, MULTI_CLASS, 3, ADAMW)
    assert set(sizes) == {6, 8}  # it was 20 too, before the first step


def test_a_head_that_diverges_is_told_from_the_others():
    x, y, episodes = problem(MULTI_CLASS, 3)
    x = x.astype(np.float32)
    x[episodes[0]] *= 1e30
    config = dataclasses.replace(ADAMW, lr=1e20)
    found = adamw.fit_episodes(x, y, episodes[:1], MULTI_CLASS, 3, config)
    assert all(isinstance(fit, Diverged) for fit in found[0])


# ---------------------------------------------------------------------------- the command

QUICK = {"adamw": "--iterations 30 --seeds 0,1", "heads": "--lr 0.01,0.1 --iterations 4 --epochs 2"}


def stored(results):
    (path,) = results.rglob("*.npz")
    with np.load(path) as found:
        return found["test_scores"]


@pytest.mark.parametrize("kind", QUICK)
@pytest.mark.parametrize("task", ["binary-class", "multi-class", "multi-label, binary-class"])
def test_shots_of_trained_heads(places, capsys, kind, task):
    n_classes = 2 if task == "binary-class" else 3
    make_features(places[0], task=task, n_classes=n_classes, n_layers=4)
    words = f"--kind {kind} --shots 3,6 --episodes 4 {QUICK[kind]} --resamples 50"
    out = answered(capsys, words)
    found = rows()
    assert len(found) == (4 if kind == "adamw" else 2)  # a row for each seed
    for row in found:
        assert row["probe"]["read"] == ["train", "test"]  # never val
        assert row["probe"]["few_shot"]["episodes"] == len(row["episodes"]["acc"]) == 4
        assert row["val_metrics"] == {}
    assert ("val isn't read" if kind == "adamw" else "folds of each episode") in out


@pytest.mark.parametrize("kind", QUICK)
def test_val_is_read_where_the_paper_does_and_said(places, capsys, kind):
    make_features(places[0], n_layers=4)
    protocol = {"adamw": "wu2025", "heads": "baharoon2023"}[kind]
    words = f"--protocol {protocol} --shots 3 {QUICK[kind]} --resamples 50".replace(
        "--iterations 4 ", ""
    )
    out = answered(capsys, words)
    assert "chosen on all 40 val images, as the paper does: more than the shots" in out
    for row in rows():
        assert row["probe"]["read"] == ["train", "val", "test"]
        assert row["probe"]["few_shot"]["draw"] == {"adamw": "first", "heads": "patients"}[kind]
        assert row["probe"]["chosen_by"].startswith("val ")
    assert ("no refit" in out) == (kind == "heads")


def test_val_changes_nothing_where_it_is_not_read(places, capsys):
    words = "--kind heads --shots 4 --episodes 3 --resamples 50 " + QUICK["heads"]
    make_features(places[0], n_layers=4)
    assert run(capsys, words)[0] == 0
    first = stored(places[1])
    for path in [*places[0].rglob("*.h5"), *places[1].rglob("*.*")]:
        path.unlink()
    make_features(
        places[0],
        n_layers=4,
        labels=lambda y: np.where((np.arange(len(y)) >= 120) & (np.arange(len(y)) < 160), 0, y),
    )
    assert run(capsys, words)[0] == 0
    assert np.array_equal(stored(places[1]), first)


def test_a_grid_is_chosen_by_folds_of_the_episode():
    """By hand: fit without each fold, pool the answers."""
    from probe.choosing.in_episode import best_of_folds
    from probe.metrics.classification import PROBABILITY
    from probe.metrics.losses import loss_of

    x, y, episodes = problem(MULTI_CLASS, 3)
    own = episodes[1]
    part = Split(x[own], y[own], np.array([f"{i:03d}" for i in own]))
    fold = make_episode_folds(part, MULTI_CLASS)
    parts = [
        heads.fit_grid(part.x[fold != f], part.y[fold != f], 2, True, MULTI_CLASS, 3, GRID)
        for f in range(fold.max() + 1)
    ]
    losses = []
    for place in range(len(parts[0])):
        scores = np.empty((len(own), 3))
        for f, fits in enumerate(parts):
            scores[fold == f] = fits[place].predict_scores(part.x[fold == f])
        losses.append(loss_of(scores[fold >= 0], part.y[fold >= 0], MULTI_CLASS))
    assert len(set(losses)) > 1
    said = [[fit.predict_scores(part.x[fold == f]) for fit in fits] for f, fits in enumerate(parts)]
    best = best_of_folds(said, fold, part.y, MULTI_CLASS, PROBABILITY)
    assert best == int(np.argmin(losses))


def test_one_shot_has_no_folds(places, capsys):
    make_features(places[0], n_layers=4)
    words = "--kind heads --shots 1,2 --episodes 2 --lr 0.1 --iterations 2 --epochs 1"
    err = refused(capsys, words)
    assert "--shots 1: an episode has one sample, or patient, of each class" in err
    assert "--kind adamw chooses nothing" in err
    assert [row["probe"]["few_shot"]["shots"] for row in rows()] == [2]


@pytest.mark.parametrize(
    "words",
    [
        "--protocol baharoon2023 --as-published --shots 2",
        "--kind heads --shots 2 --refit train+val",
    ],
)
def test_few_shots_are_not_refitted_on_val(capsys, words):
    from probe.cli import main

    with pytest.raises(SystemExit):
        main(words.split())
    assert "val" in capsys.readouterr().err


def test_a_papers_draw_is_for_those_who_ask_for_shots(places, capsys):
    make_features(places[0])
    assert run(capsys, "--protocol wu2025 --iterations 30 --resamples 50")[0] == 0
    assert len(rows()) == 3
    assert all("few_shot" not in row["probe"] for row in rows())
