"""Claims of rows go by their scores, and of papers by printed numbers of one setting."""

import dataclasses

import numpy as np
import pytest
from contending import NOBODY, answer, contenders, labels_of, scores_of
from looking import some

from cache.errors import RequestError
from probe.report.findings import comparisons
from probe.report.findings.claiming import of_pair, printed_claims
from probe.report.published.numbers import published
from probe.report.rows.people import People
from probe.report.rows.sides import Pair
from probe.report.statistics.claims import (
    A_MEAN,
    CONTRADICTED,
    HOLDS,
    NEEDS_SCORES,
    UNTOLD,
    Asked,
    expected_false,
    false_chance,
    of_numbers,
    summarise,
)
from probe.report.statistics.paired import Answers, Samples, differences

LABELS = labels_of(200)
GOOD, BAD = scores_of(LABELS, 3, 0), scores_of(LABELS, 1, 1)


def judged(a, b, metric="", people=NOBODY, labels=LABELS, **about):
    rows = [answer(m, s, labels, **about) for m, s in (("a", a), ("b", b))]
    return of_pair(Pair(*contenders(*rows)), metric, people)


@pytest.mark.parametrize(
    ("a", "b", "verdict"), [(GOOD, BAD, HOLDS), (BAD, GOOD, CONTRADICTED), (BAD, BAD, UNTOLD)]
)
def test_accuracy_goes_by_who_is_right(a, b, verdict):
    found = judged(a, b)
    right = [s.argmax(axis=1) == LABELS for s in (a, b)]
    alone = int((right[0] & ~right[1]).sum()), int((right[1] & ~right[0]).sum())
    assert found.claim.verdict == verdict
    assert found.claim.best == found.claim.worst == false_chance(*alone)
    assert found.how == f"A alone is right on {alone[0]} images, B on {alone[1]}"


@pytest.mark.parametrize(("a", "b", "verdict"), [(GOOD, BAD, HOLDS), (BAD, GOOD, CONTRADICTED)])
@pytest.mark.parametrize("metric", ["auc", "brier"])
def test_other_metrics_go_by_one_side_of_the_paired_p(a, b, verdict, metric):
    found = judged(a, b, metric)
    samples = Samples(LABELS, "binary-class")
    d = differences(Answers(a), Answers(b), samples, (metric,))[metric]
    assert found.claim.verdict == verdict
    assert found.claim.p == pytest.approx(d.p / 2 if verdict == HOLDS else 1 - d.p / 2)
    assert np.isnan(found.claim.best)
    assert (found.claim.lead > 0) == (verdict == HOLDS)
    assert d.test in found.how


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("p", [0.049, 0.06])
def test_a_claim_by_p_agrees_with_compare(monkeypatch, turned, p):
    """A two-sided p of .06 is none of `compare`'s differences, and so no claim that holds."""
    from probe.report.findings import claiming

    def compare(*args):
        found = comparisons.compare(*args)
        (part,) = found.parts
        d = {name: dataclasses.replace(d, p=p) for name, d in part.differences.items()}
        return dataclasses.replace(found, parts=(dataclasses.replace(part, differences=d),))

    monkeypatch.setattr(claiming, "compare", compare)
    found = judged(*((BAD, GOOD) if turned else (GOOD, BAD)), "auc")
    is_shown = CONTRADICTED if turned else HOLDS
    assert found.claim.verdict == (is_shown if p < 0.05 else UNTOLD)
    assert expected_false([found.claim]) == 0
    assert "false, by expectation" not in summarise([found.claim])


class Known(People):
    """Everyone has four images."""

    def groups_of(self, row, ids):
        return np.array([f"p{i // 4}" for i in range(len(ids))])


def test_accuracy_of_patients_goes_by_swaps_and_says_so():
    found = judged(GOOD, BAD, people=Known(None))
    assert found.claim.verdict == HOLDS
    assert "swaps of patients, 50 patients" in found.how
    assert "of images alone" in found.how


def test_trainings_go_by_the_paired_test():
    rows = [answer(m, scores_of(LABELS, k, 10 * k + s), LABELS, training_seed=s) for m, k in (("a", 3), ("b", 1)) for s in (0, 1)]  # fmt: skip
    found = of_pair(Pair(*contenders(*rows)), "", NOBODY)
    assert "crossed bootstrap" in found.how


def test_metrics_that_rows_lack_are_refused():
    with pytest.raises(RequestError, match="toys: its rows have no kappa"):
        judged(GOOD, BAD, "kappa")


@pytest.mark.parametrize("name", ["DINOv2 ViT-B/14", "dinov2", "vit_base_patch14_dinov2.lvd142m"])
def test_printed_models_are_named_as_printed_or_as_ours(name):
    claims, notes = printed_claims(Asked(name, "CLIP", ("breastmnist",)), ["wu2025"], "linear")
    assert not notes
    (claim,) = claims
    numbers = published("wu2025", dataset="breastmnist", mode="linear", metric="ACC", size=224)
    by_model = {n.model: n for n in numbers if not n.quoting and n.resize == "native"}
    assert claim == of_numbers(by_model["DINOv2 ViT-B/14"], by_model["CLIP ViT-B/16"])
    assert (claim.verdict, claim.why) == (NEEDS_SCORES, A_MEAN)


def test_each_setting_is_a_claim_of_its_own():
    claims, _ = printed_claims(Asked("VGG16", "ViT-B/16", ("breastmnist",)), ["doerrich2024"])
    settings = {claim.setting for claim in some(claims)}
    assert len(settings) == len(claims) > 4
    as_one, _ = printed_claims(
        Asked("VGG16", "ViT-B/16", ("breastmnist",)), ["doerrich2024"], seeds_as_one=True
    )
    assert NEEDS_SCORES in {c.verdict for c in claims}
    assert NEEDS_SCORES not in {c.verdict for c in as_one}


def test_words_that_several_models_begin_with_and_those_of_none_are_said():
    asked = Asked("DINOv2 ViT", "nothing", (), "auc")
    claims, notes = printed_claims(asked, ["baharoon2023"])
    assert not claims
    assert any("'DINOv2 ViT' is one of DINOv2 ViT-" in note for note in notes)
    assert any("no numbers of 'nothing'" in note for note in notes)
    assert dataclasses.replace(asked, metric="acc") != asked
