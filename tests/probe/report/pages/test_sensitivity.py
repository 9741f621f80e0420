"""Sensitivity: which answers are ranked together, ranks, gaps, and what is more than noise."""

import shlex
from dataclasses import replace

import numpy as np
import pytest
from features import make_features
from papers import make_stored
from probing import answered as ask

from cache.errors import RequestError
from probe.metrics.classification import evaluate
from probe.report.cli import main
from probe.report.pages import sensitivity
from probe.report.pages.sensitivity import USUAL, make_parts, page_of_sensitivity, say_missing
from probe.report.rows.contenders import contenders_of
from probe.report.rows.people import People
from probe.report.rows.stored import read_stored, stored_files
from probe.results import Posed

AMONG = {"by": "val log-loss", "among": [[5, "cls"], [11, "cls"]]}
N = 400


def answer(model, auc, kind="linear", **asked):
    """A row by its AUC alone."""
    values = {"auc": auc, **asked.pop("values", {})}
    return make_stored(
        kind, model=model, encoder=f"{model}.full", protocol="", prepared="", values=values, **asked
    )


def scored(model, strength, kind="linear", **asked):
    """A row with scores of N samples; those of one strength are the same."""
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], N // 2)
    yes = 1 / (1 + np.exp(-(strength * (2 * labels - 1) + rng.standard_normal(N))))
    row = answer(model, 0.0, kind, **asked)
    scores = np.stack([1 - yes, yes], axis=1)
    found = evaluate(scores, labels, "binary-class")
    arrays = {
        "test_scores": scores,
        "test_labels": labels,
        "test_ids": np.array([f"s{i}" for i in range(N)]),
    }
    of = row.row
    test = {"auc": of.measured.test["auc"]._replace(value=found["auc"])}
    return replace(row, row=replace(of, scores=arrays, measured=replace(of.measured, test=test)))


def page_of(rows, metrics=("auc",), people=None, **settings):
    return page_of_sensitivity(contenders_of(rows), metrics, people, **settings)


def column(table, name, over=""):
    [place] = [i for i, c in enumerate(table.columns) if (c.over, c.name) == (over, name)]
    return {row[0].text: row[place] for row in table.rows}


THREE = {"a": (0.9, 0.7), "b": (0.8, 0.8), "c": (0.7, 0.9)}


def rows_of_three():
    found = [answer(model, of[0]) for model, of in THREE.items()]
    return found + [answer(model, of[1], "knn", k=10) for model, of in THREE.items()]


def test_ranks_and_tau():
    page = page_of(rows_of_three())
    ranks, order = page.tables
    assert ranks.title == "dermamnist: ranks by auc"
    linear = column(ranks, "rank", "linear, last layer")
    assert {model: cell.value for model, cell in linear.items()} == {"a": 1, "b": 2, "c": 3}
    nearest = column(ranks, "rank", "knn, last layer, k 10")
    assert {model: cell.value for model, cell in nearest.items()} == {"a": 3, "b": 2, "c": 1}
    assert column(ranks, "auc", "linear, last layer")["b"].value == 0.8
    first, second = order.rows
    assert [row[0].text for row in order.rows] == [
        "1 knn, last layer, k 10",
        "2 linear, last layer",
    ]
    assert (second[1].value, first[2].value) == (-1.0, pytest.approx(1 / 3))
    assert order.below[1:3] == (
        "largest change of a rank: 2, a, c, from knn, last layer, k 10 to linear, last layer",
        "changes of rank: not tested against noise",
    )
    assert order.below[3].startswith("3 encoders: tau has 4 values")
    assert page.lead == ("dermamnist, auc: tau -1.00 to -1.00",)


def test_of_losses_the_smaller_is_the_better():
    rows = [answer(m, 0.5, k, values={"brier": v}) for k in ("ridge", "linear")
            for m, v in (("a", 0.1), ("b", 0.3))]  # fmt: skip
    ranks = page_of(rows, ["brier"]).tables[0]
    found = column(ranks, "rank", "ridge, last layer")
    assert (found["a"].value, found["b"].value) == (1, 2)


def test_equal_values_share_their_mean_rank():
    rows = [
        answer(m, v, k)
        for k in ("ridge", "linear")
        for m, v in (("a", 0.9), ("b", 0.9), ("c", 0.5))
    ]
    ranks = column(page_of(rows).tables[0], "rank", "ridge, last layer")
    assert [cell.value for cell in ranks.values()] == [1.5, 1.5, 3]


def test_best_and_last_layer_are_probes_of_their_own():
    rows = [answer(m, 0.8, layer=5, place_chosen=AMONG) for m in "ab"] + [
        answer(m, 0.7) for m in "ab"
    ]
    overs = dict.fromkeys(c.over for c in page_of(rows).tables[0].columns if c.over)
    assert list(overs) == ["linear, last layer", "linear, best layer"]
    rows += [answer(m, 0.7, layer=5) for m in "ab"]
    assert "linear, layer 5" in {c.over for c in page_of(rows).tables[0].columns}


def test_a_best_of_one_layer_says_so():
    one = {"by": "val log-loss", "among": [[11, "cls"]]}
    rows = [answer(m, 0.8, place_chosen=one) for m in "ab"] + [answer(m, 0.7) for m in "ab"]
    cell = page_of(rows).tables[0].rows[0][3]
    assert cell.value == 0.8
    assert cell.notes[0].startswith("the best of one")
    pools = {"by": "val log-loss", "among": [[11, "cls"], [11, "mean"]]}
    rows = [answer(m, 0.8, place_chosen=pools) for m in "ab"] + [
        answer(m, 0.7, "knn") for m in "ab"
    ]
    assert "linear, last layer" in {c.over for c in page_of(rows).tables[0].columns}


def test_gaps_name_the_commands_that_fill_them():
    rows = [*rows_of_three(), answer("d e", 0.6)]
    page = page_of(rows)
    assert column(page.tables[0], "rank", "knn, last layer, k 10")["d e"].value is None
    assert any(line.startswith("3 encoders") for line in page.tables[1].below)  # that both have
    start = page.notes.index("Missing answers are made by:")
    assert page.notes[start + 1 :] == (
        "probe --kind knn --k 10 --model 'd e' --data dermamnist",
        "probe --kind knn --k auto --layer auto --model 'a,b,c,d e' --data dermamnist",
        "probe --kind ridge --layer auto --model 'a,b,c,d e' --data dermamnist",
        "probe --kind linear --layer auto --model 'a,b,c,d e' --data dermamnist",
    )


def test_gaps_are_of_rows_that_read_test_and_of_layers_that_the_encoder_has():
    rows = rows_of_three()
    rows += [answer("a", 0.5, layer=4), answer("b", 0.5, layer=4), answer("c", 0.5, layer=1)]
    named = {"model": "a", "encoder": "a.full", "protocol": "", "prepared": ""}
    rows += [
        make_stored("linear", layer=layer, values={}, **named) for layer in (2, 3)
    ]  # val alone
    short = replace(rows[1].row.encoded, key={"layers": {"of": 3, "stored": [0, 2]}})
    rows = [
        replace(of, row=replace(of.row, encoded=short, answered=of.row.answered))
        if of.row.encoded.model == "b" and of.row.answered.settings["layer"] == 11
        else of
        for of in rows
    ]
    said = [note for note in page_of(rows, by=("kind", "place")).notes if "--layer 4" in note]
    assert said == ["probe --kind linear --layer 4 --model c --data dermamnist"]
    assert not any("--layer 2" in note for note in page_of(rows).notes)


def test_commands_fill_the_gaps_they_stand_for(tmp_path, monkeypatch, capsys):
    """Of toys whose split is laid over, patients measured, and of which one encoder has less."""
    monkeypatch.chdir(tmp_path)
    patients = np.array([f"p{i // 2}" for i in range(120)])
    for model, layers in (("toy", 3), ("lite", 2)):
        make_features(
            tmp_path / "features", "toys", model, n=(60, 30, 30), n_layers=layers, groups=patients,
            labels=np.arange(120) // 2 % 3,
        )  # fmt: skip
    lines = [f"{i:05d},{('train', 'val', 'test')[i // 2 % 5 % 3]}" for i in range(120)]
    (tmp_path / "split.csv").write_text("\n".join(["id,split", *lines, ""]))
    asked = "--split-file split.csv --aggregate patient"
    ask(capsys, f"--kind linear {asked}")
    ask(capsys, f"--kind ridge --model toy {asked}")
    ask(capsys, f"--kind ridge --model toy --layer 0 {asked}")
    ask(capsys, f"--kind ridge --model toy --layer 1 {asked}")
    for _ in range(2):
        rows, _ = read_stored(tmp_path / "results", stored_files(tmp_path / "results"))
        missing = say_missing(make_parts(contenders_of(rows), USUAL), USUAL)
        for line in missing:
            ask(capsys, shlex.split(line)[1:])
    assert missing == []
    assert {of.row.posed.split["file"] for of in rows} == {"split.csv"}
    assert {of.row.answered.settings["scores_of"] for of in rows} == {"patients"}


def test_of_several_answers_none_is_ranked():
    rows = [*rows_of_three(), answer("a", 0.95, pool="mean")]
    ranks = page_of(rows).tables[0]
    cell = ranks.rows[0][[c.over for c in ranks.columns].index("linear, last layer")]
    assert cell.text == "2 rows"
    assert "--where 'pool=" in cell.notes[0]
    linear = column(ranks, "rank", "linear, last layer")
    assert (linear["b"].value, linear["a"].value) == (1, None)


def test_probes_by_other_fields():
    rows = [answer(m, v, few_shot={"shots": n, "episodes": 100})
            for n in (1, 10, 5) for m, v in (("a", 0.9), ("b", 0.8))]  # fmt: skip
    page = page_of(rows, by=("kind", "shots"))
    overs = dict.fromkeys(c.over for c in page.tables[0].columns if c.over)
    assert list(overs) == ["linear, shots 1", "linear, shots 5", "linear, shots 10"]


def test_other_questions_are_ranked_apart():
    rows = rows_of_three()
    divided = Posed(split={"rule": "80/10/10", "seed": 1})
    other = [answer(m, 0.6, k, posed=divided) for m in "ab" for k in ("ridge", "linear")]
    titles = [table.title for table in page_of([*rows, *other]).tables]
    assert titles[::2] == ["dermamnist: ranks by auc", "dermamnist, split 80/10/10: ranks by auc"]


def test_undefined_values_and_lacking_metrics_are_left_out():
    rows = [*rows_of_three(), answer("d", np.nan), answer("d", 0.3, "knn", k=10)]
    linear = column(page_of(rows).tables[0], "rank", "linear, last layer")
    assert linear["d"].value is None
    page = page_of(rows, ["auc", "kappa"])
    assert any("dermamnist, kappa" in note for note in page.notes)
    with pytest.raises(RequestError, match="ranks need two probes"):
        page_of(rows, ["kappa"])


def test_nothing_to_rank():
    with pytest.raises(RequestError, match="--layer auto"):
        page_of([answer("a", 0.9), answer("b", 0.8)])


BETWEEN = "from ridge, last layer to linear, last layer"


def test_rank_sets_tell_noise_from_change(tmp_path):
    """Orders turn around: of models far apart that is no noise, of near ones it may be."""
    for gap, moved in ((1.0, "a, c"), (0.0005, "none")):
        strengths = dict(zip("abc", (1 + gap, 1, 1 - gap), strict=True))
        rows = [scored(m, s) for m, s in strengths.items()]
        rows += [scored(m, 2 - s, "ridge") for m, s in strengths.items()]
        page = page_of(rows, people=People(tmp_path))
        ranks, order = page.tables
        found = column(ranks, "rank", "linear, last layer")["a"]
        assert found.value == 1
        assert (found.low, found.high) == ((1, 1) if moved != "none" else (1, 3))
        said = [line for line in order.below if line.startswith("more than noise")]
        assert said == ([] if moved == "none" else [f"more than noise: {moved}, {BETWEEN}"])
        assert "by more than noise" in page.lead[0]
        assert ("no rank is shown" in page.lead[0]) == (moved == "none")
        assert "level 0.05 over all 2 probes" in ranks.below[0]


def test_without_scores_nothing_is_tested_and_it_says_why(tmp_path):
    page = page_of(rows_of_three(), people=People(tmp_path))
    assert "not tested" in page.tables[0].below[0]
    assert "changes of rank: not tested against noise" in page.tables[1].below


def test_the_command_refuses_a_level_and_unknown_words(tmp_path, capsys):
    for flags in (["--level", "2"], ["--metric", "acuracy"], ["--results", str(tmp_path)]):
        assert main(["sensitivity", *flags]) == 1
    said = capsys.readouterr().err
    assert "--level lies between 0 and 1" in said
    assert "no metric 'acuracy'" in said
    assert "no row in" in said


def test_the_level_is_that_of_all_probes_together(tmp_path, monkeypatch):
    levels = []

    def stand(sets, name, level):
        levels.append(level)
        return sensitivity.Untested("only asked")

    monkeypatch.setattr(sensitivity, "stand", stand)
    rows = [scored(m, 1, kind) for kind in ("knn", "ridge", "linear") for m in "ab"]
    page = page_of(rows, people=People(tmp_path), level=0.06)
    assert levels == [pytest.approx(0.02)] * 3  # one family a probe, asked once
    assert page.tables[0].below[0] == "knn, last layer: not tested: only asked"


@pytest.mark.parametrize(
    "otherwise",
    [
        {"probe_protocol": {"name": "wu2025", "as_published": False, "changed": {}}},
        {"mode": "full"},
        {"aggregate": "max"},
        {"standardised": "by each episode"},
    ],
    ids=lambda of: next(iter(of)),
)
def test_what_was_asked_otherwise_is_ranked_apart(otherwise):
    """b was asked otherwise throughout: then there is no order of both."""
    rows = [answer("a", 0.9), answer("a", 0.8, "ridge")]
    for kind in ("linear", "ridge"):
        of = answer("b", 0.7, kind)
        settings = {n: v for n, v in otherwise.items() if n != "probe_protocol"}
        answered = replace(
            of.row.answered,
            settings={**of.row.answered.settings, **settings},
            protocol=otherwise.get("probe_protocol", {}),
        )
        rows.append(replace(of, row=replace(of.row, answered=answered)))
    with pytest.raises(RequestError, match="ranks need two probes"):
        page_of(rows)
