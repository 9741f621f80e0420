"""What folds were asked alike is one mean, whatever the data of each made of the question."""

import dataclasses
import re

import numpy as np
import pytest
from answering import make_row
from reading import means_printed

from probe.cli import main
from probe.metrics.intervals import Interval
from probe.metrics.measure import Measured
from probe.report.pages.listing import format_rows
from probe.results import Posed, write_row

N = 5
ACC = [0.6, 0.7, 0.75, 0.85, 0.95]


def make_folds(facts, n=N, named="fold {}/5", of=None, **settings):
    """Rows of folds, of which the later ones (from the third) have other facts than the first."""
    rows = []
    for i in range(n):
        row = make_row(**{**settings, **facts[i >= 2]})
        split = {"rule": "a rule", "seed": 0, "name": named.format(i + 1), "digest": f"{i}"}
        rows.append(
            dataclasses.replace(
                row,
                encoded=dataclasses.replace(
                    row.encoded, samples={"labels": 1, "split": f"sha256:{i}"}
                ),
                posed=Posed(split={**split, **({"of": of} if of else {})}),
                measured=Measured({}, {"acc": Interval(ACC[i], 0.0, 1.0)}),
            )
        )
    return rows


def means(text):
    """The words of every mean, such as "mean of 4 of 5"."""
    return re.findall(r"mean of \d+(?: of \d+)?", text)


CV = {"folds": {"n": 5, "seed": 0}, "refit": "train+val", "chosen_by": "out-of-fold log-loss"}
RANKS = {"by": "pooled out-of-fold 1 - AUC", "among": [[1, "cls"], [2, "cls"]]}


@pytest.mark.parametrize(
    ("first", "later", "says"),
    [
        (CV, {**CV, "folds": {"n": 5, "seed": 0, "copies": 3}}, ""),
        (CV, {**CV, "folds": {"n": 5, "seed": 0, "groups": 12}, "groups": 12}, ""),
        (
            CV,
            {"chosen_by": "val log-loss"},
            "chosen by out-of-fold log-loss (2), val log-loss (3); fitted on train+val (2), train (3)",
        ),
        (
            {"k_among": [20, 5], "chosen_by": "val log-loss"},
            {"k_among": [5], "chosen_by": "val log-loss"},
            "k among 20, 5 (2), 5 (3)",
        ),
        ({"k": 5, **{n: CV[n] for n in ("folds", "refit")}}, {"k": 5}, "fitted on train+val (2)"),
        ({"pool": "mean", "place_chosen": RANKS}, {"layer": 2, "place_chosen": RANKS}, ""),
        (
            {"layer": 1, "place_chosen": RANKS},
            {"layer": 2, "place_chosen": {**RANKS, "by": "val 1 - AUC"}},
            "layer chosen by pooled out-of-fold 1 - AUC (2), val 1 - AUC (3)",
        ),
        ({"few_shot": {"shots": 5, "digest": "a", "images": 9}},
         {"few_shot": {"shots": 5, "digest": "b", "images": 10}}, ""),
    ],
    ids=["copies", "patients", "auto", "k fits", "refit", "layer", "layer by", "episodes"],
)  # fmt: skip
def test_what_a_fold_s_data_made_of_it_divides_no_mean(tmp_path, capsys, first, later, says):
    rows = make_folds([first, later])
    assert len({row.digest for row in rows}) == N
    text = format_rows(rows)
    assert means(text) == ["mean of 5"]
    assert f"{np.mean(ACC):.3f} ± {np.std(ACC, ddof=1):.3f}" in text
    assert ("not all chosen alike" in text) == bool(says)
    assert says in text
    (mean,) = means_printed(text)
    assert ("pool" in mean) == ("pool" not in first)  # each fold's own place is none of all
    for row in rows:
        write_row(tmp_path, row)
    assert main(["table", "--results", str(tmp_path)]) == 0
    assert means(capsys.readouterr().out) == ["mean of 5"]


@pytest.mark.parametrize(
    ("first", "later"),
    [
        ({"strengths": [1.0]}, {"strengths": [2.0]}),
        ({"layer": 1}, {"layer": 2}),
        ({"chosen_by": "val acc"}, {"chosen_by": "val auc"}),
        ({"few_shot": {"shots": 5}}, {"few_shot": {"shots": 10}}),
        ({"k_among": [20, 5]}, {"k_among": [20, 10]}),
    ],
)
def test_what_was_asked_divides_them_and_a_mean_says_of_how_many(first, later):
    assert means(format_rows(make_folds([first, later]))) == ["mean of 2 of 5", "mean of 3 of 5"]


def test_the_same_folds_chosen_in_two_ways_are_two_questions():
    by_val = make_folds([{"chosen_by": "val log-loss"}] * 2)
    by_folds = make_folds([CV] * 2)
    assert by_val[0].question == by_folds[0].question
    mixed = [row for pair in zip(by_val, by_folds, strict=True) for row in pair]
    text = format_rows(mixed)
    assert means(text) == ["mean of 5"] * 2
    assert "chosen alike" not in text
    # What is left of one of them joins no other.
    assert means(format_rows([*by_folds, *by_val[:3]])) == ["mean of 5", "mean of 3 of 5"]


def test_folds_and_seeds_that_are_missing_are_told():
    rows = [
        row
        for seed in range(2)
        for row in make_folds([{}, {}], training_seed=seed, kind="adamw")
    ]  # fmt: skip
    assert means(format_rows(rows)) == ["mean of 10"]
    assert means(format_rows(rows[1:])) == ["mean of 9 of 10"]


@pytest.mark.parametrize(
    ("of", "others", "says"),
    [
        (3, 0, "mean of 2 of 3"),
        (2, 0, "mean of 2"),
        (None, 0, "mean of 2"),
        (None, 3, "mean of 2 of 3"),
    ],
)
def test_sites_that_are_missing_are_told(of, others, says):
    rows = make_folds([{}, {}], n=2, named="site {}", of=of)
    rows += make_folds([{}, {}], n=others, named="site {}", kind="knn")
    assert means(format_rows(rows))[0] == says
