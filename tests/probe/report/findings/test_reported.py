"""What is reported of rows that `probe` left: which answer, who is in its splits, and how it does."""

import dataclasses

import numpy as np
import pytest
from golden import make_toy
from probing import answered

from cache import open_features
from cache.errors import RequestError
from probe.metrics.classification import predict
from probe.report.findings.cohort import characterise, count_splits
from probe.report.findings.headline import read_record
from probe.report.findings.operating import (
    CLASS,
    USUAL,
    calibration_of,
    confuse,
    failures,
    operate,
)
from probe.report.findings.reported import ALONE, EPISODES, SEVERAL, report_on
from probe.report.rows.contenders import contenders_of
from probe.report.rows.ledger import read_question
from probe.report.rows.people import People
from probe.report.rows.stored import read_stored, stored_files
from probe.report.statistics.calibration import calibrate
from probe.report.statistics.thresholds import YOUDEN, Threshold, fix_threshold

N = (80, 60, 120)
BINARY, MULTI_CLASS, MULTI_LABEL = "binary-class", "multi-class", "multi-label, binary-class"


@pytest.fixture
def asked(places, capsys):
    """A function that asks toy data sets, and gives what is reported of all rows."""

    def ask(*words, task=BINARY, encoders=("toy.full",), sets=("toys",), question=None, **options):
        for i, dataset in enumerate(sets):
            for encoder in encoders:
                facts = {"patients": True, "encoder": encoder, "n": N, **options}
                make_toy(places[0], dataset, task, seed=1 + i, **facts)
        for line in words:
            answered(capsys, line)
        rows, _ = read_stored(places[1], stored_files(places[1]))
        people, record = People(places[0]), read_record(places[1])
        asked = read_question(question) if question else None
        return report_on(contenders_of(rows), "auc", record, people, asked)

    return ask


LINEAR = "--kind linear --data toys"


def test_the_answer_that_a_question_names_first_is_told(asked):
    both = ("toy.full", "wide.full")
    (first,) = asked(LINEAR, encoders=both)
    (named,) = asked(encoders=both, question="wide > toy by auc on toys")
    (other,) = asked(encoders=both, question="toy > wide by auc on toys")
    assert [named.contender.model, other.contender.model] == ["wide", "toy"]
    assert "named now" in named.why
    assert len(first.rivals) == 2
    assert first.contender.model in ("toy", "wide")


def test_splits_are_counted_from_the_file(asked, places):
    (of,) = asked(LINEAR)
    assert of.why == ALONE
    train, val, test = count_splits(of)
    assert [(s.split, s.n, s.n_images, s.n_patients) for s in (train, val, test)] == [
        ("train", 80, 80, 40),
        ("val", 60, 60, 30),
        ("test", 120, 120, 60),
    ]
    features = open_features(next(places[0].glob("*/*.h5")))
    labels = features.labels[features.split == "test"]
    assert [n for _, n in test.by_class] == np.bincount(labels).tolist()


def test_characteristics_are_of_patients(asked, places):
    (of,) = asked(LINEAR)
    features = open_features(next(places[0].glob("*/*.h5")))
    found = {(c.column, c.value): dict(c.by_split) for c in characterise(of)}
    assert {value for column, value in found if column == "site"} == {"north", "south", "west"}
    assert sum(found["site", s]["test"].n for s in ("north", "south", "west")) == 60
    age = found["age", ""]["test"]
    first = features.meta["age"][features.split == "test"][::2]  # of each patient's two samples
    assert (age.n, age.of) == (60, 60)
    assert age.mean == pytest.approx(first.mean())
    assert age.sd == pytest.approx(first.std(ddof=1))
    assert (age.low, age.high) == (first.min(), first.max())


def test_counts_are_those_at_val_s_threshold(asked):
    (of,) = asked(LINEAR)
    (found,) = operate(of, 0.1).each
    scores, labels = of.test.answers[0].scores, of.test.samples.labels
    value, _ = fix_threshold(of.val.scores[:, 1], of.val.labels == 1, of.val.labels == 0)
    assert found.rates.threshold.value == value
    assert found.rates.threshold.rule == YOUDEN
    says = scores[:, 1] > value
    assert (found.tp, found.fn, found.fp, found.tn) == (
        int((says & (labels == 1)).sum()),
        int((~says & (labels == 1)).sum()),
        int((says & (labels == 0)).sum()),
        int((~says & (labels == 0)).sum()),
    )
    se, sp = found.rates.tpr.value, found.specificity.value
    assert found.ppv.value == pytest.approx(se * 0.1 / (se * 0.1 + (1 - sp) * 0.9))
    assert found.npv.value == pytest.approx(sp * 0.9 / (sp * 0.9 + (1 - se) * 0.1))
    assert found.ppv.low < found.ppv.value < found.ppv.high
    assert found.specificity.low < sp < found.specificity.high


def test_the_other_of_two_classes_may_be_the_yes(asked, places):
    (of,) = asked(LINEAR)
    rows, _ = read_stored(places[1], stored_files(places[1]))
    known = contenders_of(rows), "auc", read_record(places[1]), People(places[0])
    names = [str(name) for name in of.test.samples.class_names]
    (turned,) = report_on(*known, positive=names[0])
    (one,), (other,) = operate(of).each, operate(turned).each
    assert (one.name, other.name) == (names[1], names[0])
    assert one.tp + one.fn == other.fp + other.tn
    (c,), (d,) = calibration_of(of), calibration_of(turned)
    assert d.slope == pytest.approx(c.slope)
    assert d.intercept.value == pytest.approx(-c.intercept.value)
    with pytest.raises(RequestError, match="no test set has two classes, one of them 'none'"):
        report_on(*known, positive="none")


def test_several_classes_and_labels_are_told_one_by_one(asked):
    (of,) = asked(LINEAR, task=MULTI_CLASS)
    scores, labels = of.test.answers[0].scores, of.test.samples.labels
    each = operate(of).each
    said = predict(scores, MULTI_CLASS, "probability")
    for c, found in enumerate(each):
        assert found.tp == ((said == c) & (labels == c)).sum()
        assert found.tp + found.fn + found.fp + found.tn == 120
    matrix = confuse(of)
    assert matrix.counts.sum() == 120
    assert [found.tp for found in each] == matrix.counts.diagonal().tolist()
    assert calibration_of(of) == calibrate(
        scores, labels, MULTI_CLASS, groups=of.test.samples.groups
    )
    found = asked("--kind linear --data labels", task=MULTI_LABEL, sets=("labels",))
    (several,) = (of for of in found if of.dataset == "labels")
    assert len(operate(several).each) == several.test.samples.labels.shape[1]
    assert confuse(several) is None


def test_wrong_answers_are_counted_in_strata(asked):
    (of,) = asked(LINEAR)
    scores, labels = of.test.answers[0].scores, of.test.samples.labels
    n_wrong = int((scores.argmax(axis=1) != labels).sum())
    strata, notes = failures(of)
    assert notes == ()
    for column in (CLASS, "age", "site"):
        assert sum(s.wrong.hits for s in strata if s.column == column) == n_wrong
        assert sum(s.wrong.n for s in strata if s.column == column) == 120
    assert [s.value for s in strata if s.column == CLASS] == list(of.test.samples.class_names)


def test_episodes_folds_and_trainings_have_no_threshold(asked):
    found = asked(
        "--kind linear --data toys --shots 5 --episodes 3",
        "--kind linear --data toys --split kfold:3",
    )
    lacking = {of.name: of.lacking for of in found}
    assert lacking == {"toys": EPISODES, "toys, kfold:3": SEVERAL}
    folds = next(of for of in found if of.lacking == SEVERAL)
    (counts,) = count_splits(folds)
    assert (counts.split, counts.n) == ("test, 3 folds or sites", sum(N))


def test_what_learnt_from_all_of_train_is_told_before_few_shots(asked):
    shots = "--kind linear --data toys --shots 5 --episodes 3"
    (few,) = asked(shots)
    assert few.lacking == EPISODES
    (of,) = asked(LINEAR)
    assert (of.lacking, len(of.rivals)) == ("", 2)
    assert of.why == "exploratory: one of 2 looked at on this test set"


def test_external_data_are_told_of_the_same_model(asked):
    both = ("toy.full", "wide.full")
    words = [LINEAR, "--kind linear --train-data toys --test-data others --test-split test"]
    words.append("--kind knn --k 5 --train-data toys --test-data others --test-split test")
    found = asked(*words, encoders=both, sets=("toys", "others"))
    inside, outside = found
    assert (inside.is_external, outside.is_external) == (False, True)
    assert outside.contender.model == inside.contender.model
    assert outside.contender.field("kind") == "linear"
    assert outside.why == "the encoder and probe that are reported of toys"
    assert [s.split for s in count_splits(outside)] == ["train of toys", "val of toys", "test"]
    assert {s for c in characterise(outside) for s, _ in c.by_split} == {"test"}
    inside_at, outside_at = (operate(of).each[0].rates.threshold for of in found)
    assert inside_at == outside_at  # val is of toys for both


def test_without_val_the_usual_threshold_is_told(asked):
    (of,) = asked(LINEAR)
    found = operate(dataclasses.replace(of, val=None))
    assert found.each[0].rates.threshold == Threshold(1, 0.5, USUAL)
    assert "val has no positives" in found.notes[0]
