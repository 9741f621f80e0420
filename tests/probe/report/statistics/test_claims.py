"""Claims from printed accuracies: the paper's values, the first figures, and what needs scores."""

from dataclasses import replace

import numpy as np
import pytest

from cache.errors import RequestError
from probe.report.published.numbers import published
from probe.report.statistics.claims import (
    CONTRADICTED,
    HOLDS,
    NEEDS_SCORES,
    UNTOLD,
    Asked,
    best_against_second,
    ends_of_agreement,
    expected_false,
    false_chance,
    half_beta,
    of_accuracies,
    of_answers,
    of_numbers,
    read_claim,
    summarise,
)

REVERSE = "the numbers say the reverse and no answers could make it hold, but only answers contradict a claim"


@pytest.mark.parametrize(
    ("a", "b", "chance"),
    [
        # scipy 1.17.1, special.betainc(a, b, 0.5)
        (1, 1, 0.5),
        (11, 9, 0.32380294799804743),
        (3, 1, 0.125),
        (1, 3, 0.875),
        (61, 41, 0.023022033464671392),
        (24001.5, 23700.25, 0.08389800592397105),
    ],
)
def test_incomplete_beta(a, b, chance):
    assert half_beta(a, b) == pytest.approx(chance, rel=1e-9)
    assert half_beta(b, a) == pytest.approx(1 - chance, rel=1e-9)


@pytest.mark.parametrize(
    ("p_a", "p_b", "n", "both", "chance"),
    # arXiv 2505.04720's formula, worked with the regularised beta function.
    [
        (0.90, 0.89, 200, 0.85, 0.3238),
        (0.90, 0.89, 200, 0.88, 0.2266),
        (0.90, 0.89, 1000, 0.85, 0.1472),
        (0.92, 0.89, 200, 0.86, 0.0835),
        (0.90, 0.88, 2000, 0.84, 0.0023),
    ],
)
def test_chance_that_a_claim_is_false(p_a, p_b, n, both, chance):
    found = false_chance(n * (p_a - both), n * (p_b - both))
    assert found == pytest.approx(chance, abs=5e-5)
    best, worst = ends_of_agreement(p_a, p_b, n)
    assert best <= found <= worst


def test_a_lead_of_three_images_never_holds():
    best, worst = ends_of_agreement(0.93, 0.90, 100)
    assert best == pytest.approx(2**-4)
    assert worst == pytest.approx(half_beta(11, 8))
    claim = of_accuracies("a", "b", "scans", 0.93, 0.90, 100)
    assert claim.verdict == UNTOLD
    assert claim.is_beyond_answers
    four = of_accuracies("a", "b", "scans", 0.94, 0.90, 100)
    assert (four.verdict, four.is_beyond_answers) == (UNTOLD, False)


def test_rounding_is_counted_against_a_claim():
    exact = of_accuracies("a", "b", "scans", 0.931, 0.9, 1000)
    rounded = of_accuracies("a", "b", "scans", 0.931, 0.9, 1000, 0.005)
    assert rounded.worst > exact.worst > exact.best > rounded.best
    assert (exact.verdict, rounded.verdict) == (HOLDS, UNTOLD)


def test_only_answers_contradict():
    reverse = of_accuracies("a", "b", "scans", 0.8, 0.9, 1000)
    assert (reverse.verdict, reverse.why) == (UNTOLD, REVERSE)
    right, other = np.arange(100) < 80, np.arange(100) < 90
    assert of_answers("a", "b", "scans", right, other).verdict == CONTRADICTED
    assert of_answers("b", "a", "scans", other, right).verdict == HOLDS
    assert of_answers("a", "b", "scans", right, right).verdict == UNTOLD
    assert of_answers("a", "b", "scans", right, right).describe() == (
        "a > b on scans: can't be told (P(false) 0.5, accuracy +0.0000 on 100 images)"
    )


# Best against second in accuracy, means of seeds taken for one run: columns, how many hold, can't be
# told, and not even at best agreement. Without half a digit 7 of wu2025's are beyond answers.
FIRST_FIGURES = [("doerrich2024", {}, 132, 65, 67, 20), ("wu2025", {"size": 224}, 22, 4, 18, 6)]


@pytest.mark.parametrize(("paper", "which", "n", "hold", "untold", "beyond"), FIRST_FIGURES)
def test_first_figures(paper, which, n, hold, untold, beyond):
    numbers = published(paper, metric="ACC", **which)
    claims = best_against_second(numbers, seeds_as_one=True)
    told = [c for c in claims if c.verdict != NEEDS_SCORES]
    seeds = sum("means over seeds" in c.why for c in told)
    assert f"{seeds} are of means over seeds, taken for one run's" in summarise(claims)
    assert all(c.dataset == "chestmnist" for c in claims if c not in told)
    assert len(told) == n
    assert [sum(c.verdict == v for c in told) for v in (HOLDS, UNTOLD)] == [hold, untold]
    assert sum(c.is_beyond_answers for c in told) == beyond
    longer = [replace(n, printed=f"{n.printed}00000") for n in numbers]
    exact = best_against_second(longer, seeds_as_one=True)
    assert sum(c.verdict == HOLDS for c in exact) == hold
    assert sum(c.is_beyond_answers for c in exact) == beyond + (paper == "wu2025")


def test_what_needs_the_scores():
    def two(paper, **which):
        return published(paper, dataset="dermamnist", size=224, **which)[:2]

    knn = of_numbers(*two("doerrich2024", mode="knn", metric="ACC"))
    assert knn.describe() == (
        "VGG16 > AlexNet on dermamnist [doerrich2024, knn, 224, native]: can't be told (P(false) 0.97 "
        f"to 1, accuracy -0.0299 on 2005 images; {REVERSE})"
    )
    seeds = of_numbers(*two("doerrich2024", mode="linear", metric="ACC"))
    assert (seeds.verdict, seeds.why) == (NEEDS_SCORES, "a mean over seeds")
    auc = of_numbers(*two("doerrich2024", mode="linear", metric="AUC"))
    assert (auc.verdict, auc.why) == (NEEDS_SCORES, "AUC is no share of images")
    chest = published("doerrich2024", dataset="chestmnist", mode="knn")[:2]
    assert of_numbers(*chest).verdict == NEEDS_SCORES


def test_false_claims_to_expect():
    claims = best_against_second(published("doerrich2024", metric="ACC", mode="knn"))
    holding = [c.worst for c in claims if c.verdict == HOLDS]
    assert expected_false(claims) == pytest.approx(sum(holding))
    assert summarise(claims).startswith(f"48 claims: {len(holding)} hold (of these at most 0.07")
    assert "can't be told (7 not even at best agreement), 4 need the scores" in summarise(claims)


@pytest.mark.parametrize(
    ("text", "asked"),
    [
        (
            "dinov2 > vit on breastmnist, dermamnist",
            ("dinov2", "vit", ("breastmnist", "dermamnist")),
        ),
        ("SAM ViT-B/16>VGG16", ("SAM ViT-B/16", "VGG16", ())),
        (" a > on-b on x ", ("a", "on-b", ("x",))),
        (
            "vit and kind=linear > lite and kind=linear by auc",
            ("vit and kind=linear", "lite and kind=linear", (), "auc"),
        ),
        ("a and k>5 > b and k>=20 on x", ("a and k>5", "b and k>=20", ("x",))),
        ("a and k<5 > b and k<=2", ("a and k<5", "b and k<=2", ())),
    ],
)
def test_reads_a_claim(text, asked):
    assert read_claim(text) == Asked(*asked)


@pytest.mark.parametrize(
    "text",
    ["", "a", "a > ", "> b", "a < b", "a > b > c", "a > b on x,", "a and k>=5", "a and k<5 >b"],
)
def test_refuses_what_is_no_claim(text):
    with pytest.raises(RequestError, match="a claim reads"):
        read_claim(text)
