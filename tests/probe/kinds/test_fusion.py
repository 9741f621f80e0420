"""--kind fusion from the command line to the row."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from features import make_features, make_spec, write_rows
from looking import some
from probing import answered, refused, rows, run
from sklearn.metrics import balanced_accuracy_score

from cache import open_features
from cache.splits.strata import divide
from cache.task import BINARY, MULTI_LABEL, ORDINAL, Task
from probe.choosing.plan import Plan
from probe.cli import read_config
from probe.kinds.fusion import Fusion
from probe.kinds.fusion_search import RUNGS, Asking, Found
from probe.kinds.kind import DivergedError
from probe.questions.question import Split
from probe.solvers.fusion import Shape
from probe.solvers.fusion_training import Course, Tokens, Training
from probe.solvers.outputs import Outputs
from probe.solvers.side_by_side import Rate
from probe.solvers.standardise import Standard

PROBLEM = SimpleNamespace(
    task=Task(BINARY, ("a", "b")),
    widths=(6, 6),
    say=lambda line: None,
    question=SimpleNamespace(title="toys"),
)
SHORT = "--kind fusion --iterations 8 --epochs 1 --batch-size 32 --seeds 0"
ONE = f"{SHORT} --lr 1e-2 --weight-decay 1e-2 --dropout 0"


def arrays_of(places):
    (path,) = places[1].glob("*/*.npz")
    with np.load(path) as file:
        return {name: file[name] for name in file.files}


def test_a_row_says_all_that_changes_its_numbers(places, capsys):
    make_features(places[0], n_layers=3)
    answered(capsys, f"{SHORT} --lr 1e-3,1e-2 --dropout 0,0.3 --choose val")
    (row,) = rows()
    asked = row["probe"]
    assert (asked["layer"], asked["pool"]) == (2, "joined")
    assert [(p["layer"], p["pool"]) for p in asked["places"]] == [
        (layer, pool) for layer in range(3) for pool in ("cls", "mean")
    ]
    assert {name: asked[name] for name in ("lrs", "dropouts", "iterations", "class_weights")} == {
        "lrs": [1e-3, 1e-2],
        "dropouts": [0.0, 0.3],
        "iterations": 8,
        "class_weights": "balanced",
    }
    assert (asked["training_seed"], asked["search_seed"]) == (0, 0)
    assert asked["chosen_by"] == "val balanced tempered log-loss"
    assert row["cost"]["trained_parameters"] == Shape(6, 8, 3).n_parameters
    chosen = row["chosen"]
    among = chosen["of_settings"]
    assert len(among) == 8  # two learning rates, weight decays and dropouts
    full = max(steps for *_, steps in among)
    assert sorted({steps for *_, steps in among}) == [2, 3, 5, full]
    lasting = [setting for setting in among if setting[-1] == full]
    assert [chosen[name] for name in ("lr", "weight_decay", "dropout")] == min(
        lasting, key=lambda setting: setting[3]
    )[:3]
    assert any(
        "chosen among 8 settings with seed 0, the worse half dropped three times" in m
        for m in row["marks"]
    )
    assert any(m.startswith("scores are of equally frequent classes") for m in row["marks"])


def test_attention_is_kept_by_place_and_class(places, capsys):
    make_features(places[0], n_layers=2)
    answered(capsys, ONE)
    found = arrays_of(places)
    assert found["attention"].shape == (4,)
    assert found["attention"].sum() == pytest.approx(1, abs=1e-5)
    of_classes, labels = found["attention_of_classes"], found["test_labels"]
    shares = np.bincount(labels) / len(labels)
    assert np.allclose(shares @ of_classes, found["attention"], atol=1e-5)


def test_the_same_is_answered_twice_and_seeds_differ(places, capsys):
    make_features(places[0], n_layers=2)
    words = f"{SHORT.replace('--seeds 0', '--seeds 0,3')} --lr 1e-3,1e-2 --weight-decay 0"
    answered(capsys, words)
    first = {row["probe"]["training_seed"]: row for row in rows()}
    again = {}
    for seed in first:  # alone, as another process would
        results = places[1].parent / f"again{seed}"
        answered(capsys, f"{words.replace('0,3', str(seed))} --results {results}")
        again |= {row["probe"]["training_seed"]: row for row in rows(results)}
    assert first.keys() == again.keys() == {0, 3}
    for seed in some(first):
        assert first[seed]["id"] == again[seed]["id"]
        assert first[seed]["metrics"] == again[seed]["metrics"]
        assert first[seed]["chosen"] == again[seed]["chosen"]
    assert first[0]["chosen"]["of_settings"] == first[3]["chosen"]["of_settings"]
    assert first[0]["chosen"]["temperature"] != first[3]["chosen"]["temperature"]


@pytest.mark.parametrize(("choose", "n"), [("val", 40), ("cv", 160)])
def test_val_or_folds_choose(choose, n, places, capsys):
    make_features(places[0], n_layers=2)
    answered(capsys, f"{SHORT} --lr 1e-3,1e-2 --weight-decay 0 --choose {choose}")
    found = arrays_of(places)
    assert len(found["val_ids"]) == n
    # What is asked lies in its own order: the places tell the labels, so answers do, too.
    right = found["val_scores"].argmax(axis=1) == found["val_labels"]
    assert right.mean() > 0.45


@pytest.mark.parametrize("task", [ORDINAL, MULTI_LABEL])
def test_other_tasks(task, places, capsys):
    make_features(places[0], n_layers=2, task=task)
    answered(capsys, f"{ONE} --choose val")
    found = arrays_of(places)
    sums = found["test_scores"].sum(axis=1)
    assert np.allclose(sums, 1) == (task == ORDINAL)


def test_encoders_of_several_widths(places, capsys):
    make_features(places[0], n=(60, 20, 40), n_layers=2)
    other = open_features(places[0] / "toys" / next((places[0] / "toys").glob("*.h5")).name)
    split = np.searchsorted(["test", "train", "val"], other.split)
    spec = make_spec(
        len(other.ids),
        {"layers/00/mean": 9},
        model="cnn",
        encoder="cnn.full",
        ids=other.ids,
        row_ids=other.ids,
        labels=other.labels,
        split=np.array([2, 0, 1], np.uint8)[split],
        key={"layers": {"of": 1}},
        class_names=tuple(other.class_names),
    )
    wide = np.random.default_rng(0).normal(size=(len(other.ids), 9))
    write_rows(places[0] / "toys" / "cnn_8_0123456789ab.h5", spec, {"layers/00/mean": wide})
    answered(capsys, f"{ONE} --model toy+cnn")
    (row,) = rows()
    assert row["probe"]["places"][0] == {"layer": 0, "pool": "mean"}
    assert [place.get("file", 0) for place in row["probe"]["places"]] == [0, 1, 1, 1, 1]
    assert row["probe"]["pads_first"] is False
    assert row["cost"]["trained_parameters"] == Shape(5, 9, 3).n_parameters


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (f"{ONE} --layer -1 --pool cls", "attention over one place has nothing to choose"),
        (f"{ONE} --protocol ciernik2026 --choose cv", "chooses on a fifth of train"),
        (f"{SHORT} --lr 1e30,1e31 --weight-decay 0 --dropout 0", "diverged"),
    ],
)
def test_what_it_refuses(words, said, places, capsys):
    make_features(places[0], n_layers=2)
    assert said in refused(capsys, words)
    assert not [*places[1].glob("*/*.json")]


def test_a_fifth_that_is_none_is_refused(places, capsys):
    make_features(places[0], n_layers=2, n=(2, 20, 40))
    assert "a fifth of 2 training images is none" in refused(capsys, "--protocol ciernik2026")


def test_one_class_is_refused(places, capsys):
    make_features(
        places[0], n_layers=2, labels=lambda labels: np.where(np.arange(220) < 120, 1, labels)
    )
    assert "are of class" in refused(capsys, ONE)


def test_few_shots_are_refused_with_the_cure(capsys):
    with pytest.raises(SystemExit):
        run(capsys, "--kind fusion --shots 5")
    assert "use --kind linear --layer all+ --pool cls+mean" in capsys.readouterr().err


def test_settings_that_diverge_are_named_and_dropped(places, capsys):
    make_features(places[0], n_layers=2)
    answered(capsys, f"{SHORT} --lr 1e30,1e-2 --weight-decay 0 --dropout 0 --choose val")
    (row,) = rows()
    assert row["chosen"]["lr"] == 1e-2
    assert row["chosen"]["of_settings"][0][3] is None
    assert any("1 of 2 settings diverged (lr 1e+30" in mark for mark in row["marks"])
    json.dumps(row, allow_nan=False)


def test_halving_drops_the_worse_and_trains_the_rest_as_if_they_were_alone(places, capsys):
    """What is left is what all to the end would have, by its loss."""
    make_features(places[0], n_layers=2)
    words = f"{SHORT} --lr 1e-4,1e-3,1e-2 --weight-decay 0 --choose val"
    answered(capsys, words)
    (row,) = rows()
    halved = row["chosen"]["of_settings"]
    counts = [sum(steps >= n for *_, steps in halved) for n in (2, 3, 5, 10)]
    assert counts == [6, 3, 2, 1]
    assert len(RUNGS) == 3
    (lasting,) = [setting for setting in halved if setting[-1] == 10]
    lr, decay, dropout, loss, _ = lasting
    answered(capsys, f"{SHORT} --lr {lr},5 --weight-decay {decay} --dropout {dropout} --choose val")
    alone = next(r for r in rows() if len(r["chosen"]["of_settings"]) == 2)
    assert alone["chosen"]["of_settings"][0][3] == pytest.approx(
        loss, abs=0.02
    )  # AdamW steps by rounding


def test_ciernik2026_is_facts_of_its_release():
    config = read_config(["--protocol", "ciernik2026"])
    kind = config.kind
    assert isinstance(kind, Fusion)
    assert kind.lrs == (1e-1, 1e-2, 1e-3)
    assert kind.weight_decays == pytest.approx([10**i for i in range(-6, 1)])
    assert (kind.dropouts, kind.seeds) == ((0, 0.1, 0.3), (0,))
    assert len(kind.candidates) == 63
    assert kind.candidates[0] == Rate(1e-1, 1e-6, 0)
    assert (kind.iterations, kind.epochs, kind.batch_size) == (1000, 40, 2048)
    assert (kind.noise, kind.is_absolute, kind.class_weights) == (0.05, True, "balanced")
    assert (kind.halves, kind.chooses_inside, kind.standardised, kind.pads_first) == (
        False, True, False, True,
    )  # fmt: skip
    assert not kind.noise_on_val
    assert (config.places.layer, config.places.pools) == ("all+", ("cls+mean",))
    published = read_config(["--protocol", "ciernik2026", "--as-published"])
    assert published.kind.noise_on_val
    assert any("keeps it" in mark for mark in published.protocol.marks)


def test_the_protocol_chooses_on_a_fifth_of_train(places, capsys):
    path = make_features(places[0], n_layers=2, n=(100, 20, 40))
    words = "--protocol ciernik2026 --iterations 4 --epochs 1 --lr 1e-1,1e-2 --weight-decay 0"
    answered(capsys, f"{words} --dropout 0")
    (row,) = rows()
    assert row["probe"]["chosen_by"] == "a fifth of train 1 - balanced accuracy"
    features = open_features(path)
    train = features.split == "train"
    part = divide((1, 4), features.ids[train], features.labels[train], None, 0)
    held = features.labels[train][part == 0]
    assert np.bincount(part).tolist() == [20, 80]
    sizes = np.bincount(held)
    for *_, loss, _ in some(row["chosen"]["of_settings"]):
        hits = 3 * sizes[0] * sizes[1] * sizes[2] * (1 - loss)  # a mean of three shares
        assert hits == pytest.approx(round(hits), abs=1e-6)
    found = arrays_of(places)
    assert len(found["val_ids"]) == 20  # answered as test is
    assert row["chosen"]["temperature"] == 1
    again = balanced_accuracy_score(found["test_labels"], found["test_scores"].argmax(axis=1))
    assert row["metrics"]["balanced_accuracy"]["value"] == pytest.approx(again)


@pytest.mark.parametrize("is_by_folds", [True, False])
def test_an_answer_is_made_of_trainings_that_see_their_own_samples_alone(is_by_folds):
    """Scales, temperature and order against the same by hand."""
    rng = np.random.default_rng(0)
    labels = np.tile([0, 1], 30)
    signal = np.outer(labels - 0.5, np.tile([1, -1], 6))  # layer norm takes away what all share
    x = (rng.normal(size=(60, 12)) + signal).astype(np.float16)
    x[20:40] = 1.5 * x[20:40] + 0.5  # scales of parts differ
    ids = np.array([f"{i:02d}" for i in range(60)])
    train, val, test = (Split(x[p], labels[p], ids[p]) for p in np.split(np.arange(60), [20, 40]))
    fold = rng.permutation(np.arange(40) % 5) if is_by_folds else None
    plan = Plan(train, val, fold, "train+val" if is_by_folds else "train")
    problem = SimpleNamespace(**vars(PROBLEM), splits={"test": test})
    kind = Fusion(lrs=(1e-2, 1e-3), weight_decays=(0.1,), dropouts=(0.0,), iterations=8, epochs=1)
    asking = Asking(kind, problem, plan)
    searched = asking.search()
    found, rate = asking.answer(searched, 0), kind.candidates[searched.place]
    outputs = Outputs(BINARY, 2, one_logit=False)

    def logits(seen, asked):
        standard = Standard.of(x[seen])
        own = Tokens(x[seen], (6, 6), standard), np.arange(len(seen)), labels[seen], outputs
        training = Training(*own, Course(8, 1, 2048, None, True), [rate], 0)
        training.run(training.n_steps)
        return training.answer(Tokens(x[asked], (6, 6), standard))[0][0]

    pool = np.arange(40)
    if is_by_folds:
        held, seen, name = np.empty((40, 2)), pool, "train+val"
        for i in range(5):
            held[fold == i] = logits(pool[fold != i], pool[fold == i])
    else:
        held, seen, name = logits(pool[:20], pool[20:]), pool[:20], "val"
    y = labels[:40] if is_by_folds else labels[20:40]
    targets = np.eye(2)[y]
    t = min(np.exp(np.linspace(-4, 4, 20_001)), key=lambda t: log_loss_of(held / t, targets))
    assert found.chosen["temperature"] == pytest.approx(t, rel=0.03)
    assert searched.losses[searched.place] == pytest.approx(
        log_loss_of(held / t, targets), abs=0.01
    )
    assert np.allclose(found.scores[name], outputs.scores(held / t), atol=0.01)
    of_test = logits(seen, np.arange(40, 60))
    assert np.allclose(found.scores["test"], outputs.scores(of_test / t), atol=0.01)


def log_loss_of(logits, targets):
    """Of classes that are equally frequent."""
    top = logits - logits.max(axis=1, keepdims=True)
    return -(targets * (top - np.log(np.exp(top).sum(axis=1, keepdims=True)))).sum(axis=1).mean()


def asking_of(kind, problem, n=50):
    """Of train alone, as the protocol asks."""
    rng = np.random.default_rng(0)
    labels = np.arange(n) % 2
    x = (rng.normal(size=(n, 12)) + labels[:, None]).astype(np.float16)
    train = Split(x, labels, np.array([f"{i:02d}" for i in range(n)]))
    return Asking(kind, problem, Plan(train, train, None, "train"))


def test_one_class_of_val_tells_no_temperature(places, capsys):
    make_features(places[0], n=(60, 1, 40))
    answered(capsys, f"{ONE} --choose val")
    (row,) = rows()
    assert row["chosen"]["temperature"] == 1
    assert not any("logits are divided" in mark for mark in row["marks"])


@pytest.mark.parametrize("noise_on_val", [False, True])
def test_the_published_fifth_has_noise(noise_on_val):
    kind = Fusion(noise=0.5, chooses_inside=True, noise_on_val=noise_on_val, iterations=2, epochs=1)
    asking = asking_of(kind, PROBLEM)
    (each,) = asking._rounds
    training = asking._start(each, kind.candidates[:1], 0)
    clean = training.answer(each.held_tokens, each.held_rows)[0]
    assert np.array_equal(asking._held_out([training]), clean) != noise_on_val
    named = kind.row_settings((6, 6))
    assert named["noise_on_val"] == noise_on_val
    assert "noise_on_val" not in Fusion().row_settings((6, 6))


# Batches of 49 are of 19, which leave one sample of 39; 40 alone would be divided by 20.
@pytest.mark.parametrize(("n", "size"), [(49, 20), (50, 25), (59, 24)])
def test_four_fifths_have_the_batches_of_all(n, size):
    asking = asking_of(Fusion(chooses_inside=True), PROBLEM, n)
    (each,) = asking._rounds
    assert asking._start(each, asking.kind.candidates[:1], 0).batch_size == size


def test_what_was_dropped_is_not_chosen_and_seeds_that_diverge_come_last(monkeypatch):
    asking = asking_of(Fusion(iterations=8, epochs=1), PROBLEM)
    lasting = iter([*([0.1] * 12), *([0.5] * 30)])  # all look better before than at the end
    monkeypatch.setattr(Asking, "_loss", lambda self, logits: next(lasting))
    found = asking.search()
    assert found.steps[found.place] == max(found.steps)

    def answer(self, found: Found, seed):
        if seed == 0:
            raise DivergedError("seed 0", "")
        return seed

    monkeypatch.setattr(Asking, "answer", answer)
    problem = SimpleNamespace(**vars(PROBLEM), places=(1, 2), plan=lambda n: asking.plan)
    answers = Fusion(lrs=(1e-2,), weight_decays=(0,), dropouts=(0,)).answer(problem)
    assert [next(answers), next(answers)] == [1, 2]
    with pytest.raises(DivergedError, match="seed 0"):
        next(answers)
