"""compare, decide, claim and claims on rows that `probe` stored, against their files read by hand."""

import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from answering import scores_file
from overlaying import N, make_file
from probing import answered as ask
from reporting import answered, refused, run

from probe import cli as probe_cli
from probe.report.cli import main
from probe.report.formats.write import ENDINGS
from probe.report.rows.ledger import record_question
from probe.report.statistics.decide import assume_accuracy, assume_auc
from probe.report.statistics.paired import Answers, Samples, differences

PATIENTS = np.array([f"p{i // 4}" for i in range(N)])


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Encoders toy and lite, kNN, on two data sets, of which one names patients."""
    root = tmp_path_factory.mktemp("made")
    for dataset, groups in (("toys", PATIENTS), ("more", None)):
        make_file(root / "features", dataset, groups=groups)
        make_file(root / "features", dataset, model="lite", groups=groups, strength=0.5, seed=1)
    words = f"--kind knn --k 5 --features {root / 'features'} --results {root / 'results'}"
    assert probe_cli.main(words.split()) == 0
    return root


@pytest.fixture
def asked(made, places, capsys):
    """A copy, where the environment points the commands; returns its features' folder."""
    for name in ("features", "results"):
        shutil.copytree(made / name, places[0].parent / name, dirs_exist_ok=True)
    capsys.readouterr()
    return places[0]


def by_hand(dataset, metric, groups):
    """The kernel's difference, from the .npz files."""
    found = {}
    for path in Path(os.environ["MEDPROBE_RESULTS"]).glob(f"{dataset}/*.json"):
        with np.load(scores_file(path)) as file:
            arrays = {name: file[name] for name in file.files}
        found[json.loads(path.read_text())["features"]["model"]] = arrays
    a, b = found["toy"], found["lite"]
    order = {name: i for i, name in enumerate(b["test_ids"])}
    place = [order[name] for name in a["test_ids"]]
    samples = Samples(a["test_labels"], "multi-class", groups)
    args = Answers(a["test_scores"]), Answers(b["test_scores"][place]), samples
    return differences(*args, (metric,), margin=0.1)[metric]


@pytest.mark.parametrize("metric", ["auc", "acc", "f1_macro"])
@pytest.mark.parametrize(("dataset", "groups"), [("toys", PATIENTS[180:]), ("more", None)])
def test_each_number_is_the_kernel_s(asked, capsys, metric, dataset, groups):
    words = ["compare", "toy", "lite", "--data", dataset, "--metric", metric, "--margin", "0.1"]
    page = json.loads(answered(capsys, *words, "--format", "json"))
    expected = by_hand(dataset, metric, groups)
    text = json.dumps(page)
    for number in (expected.a, expected.b, expected.value, expected.low, expected.high, expected.p):
        assert repr(float(number)) in text
    assert f"p by {expected.test}" in text
    told = answered(capsys, *words)
    holds = "yes" if expected.equivalence.holds else "not shown"
    assert f"{holds} [{expected.equivalence.low:+.3f} " in told


def test_answers_in_no_pair_are_counted_by_reason(asked, capsys):
    ask(capsys, "--kind linear --layer all --model toy --data toys")
    ask(capsys, "--kind linear --layer 0 --model toy --data toys")
    told = answered(capsys, "compare", "toy", "lite", "--data", "toys")
    assert "in no pair: 3 answers (2 that haven't read test, 1 other in kind and " in told


def test_a_page_says_what_it_is_of(asked, capsys):
    told = answered(capsys, "compare", "toy", "lite")
    assert "A: toy · B: lite (toy | lite, 32 px, knn, k 5, layer 1 cls)" in told
    assert re.search(r"toys: chosen on val|toys: exploratory: \w+ of 2 looked at", told)
    assert "patients" in told
    assert "2 independent data sets can't decide" in told
    assert "1 more class: --classes" not in answered(capsys, "compare", "toy", "lite", "--classes")


@pytest.mark.parametrize("kind", ["markdown", "latex", "csv", "html", "json"])
def test_all_formats(asked, capsys, kind):
    assert "toys" in answered(capsys, "compare", "toy", "lite", "--format", kind)


@pytest.mark.parametrize(("ending", "kind"), ENDINGS.items())
def test_a_files_ending_says_its_format(asked, capsys, tmp_path, ending, kind):
    words = ["compare", "toy", "lite"]
    answered(capsys, *words, "-o", tmp_path / f"file{ending}")
    text = answered(capsys, *words, "--format", kind)
    assert (tmp_path / f"file{ending}").read_text() == f"{text.rstrip()}\n"


@pytest.mark.parametrize("words", [["compare", "toy", "lite"], ["checklist", "claim2024"]])
def test_what_is_called_html_is_html(asked, capsys, tmp_path, words):
    err = refused(capsys, *words, "--format", "markdown", "-o", tmp_path / "a.html")
    assert "a.html would hold markdown" in err
    assert not any(tmp_path.glob("*.html"))


def test_a_gap_is_named_and_what_fits_nothing_is_refused(asked, capsys):
    root = Path(os.environ["MEDPROBE_RESULTS"])
    for path in root.glob("more/lite*.json"):
        path.unlink()
    assert "more is left out: no row of lite" in answered(capsys, "compare", "toy", "lite")
    err = refused(capsys, "compare", "toy", "lite", "--data", "more")
    assert "'lite' is no encoder" in err
    assert "encoders are toy" in err


def test_rows_whose_patients_are_gone_are_named(asked, capsys):
    for path in asked.glob("toys/*.h5"):
        path.unlink()
    err = refused(capsys, "compare", "toy", "lite", "--data", "toys")
    assert "patients and meta columns of toys stand in its feature files" in err
    assert main(["compare", "toy", "lite"]) == 1
    found = capsys.readouterr()
    assert "more" in found.out
    assert "toys" in found.err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["compare", "toy", "lite", "--metric", "accu"], "no metric 'accu'"),
        (["compare", "toy", "lite", "--level", "2"], "level lies between 0 and 1"),
        (["compare", "toy", "lite", "--margin", "-1"], "a margin is above 0"),
        (["compare", "toy", "toy"], "these are the same rows"),
        (["compare", "toy", "lite", "--question", "toy"], "a claim reads"),
        (["compare", "toy", "lite", "--question", "toy > lite by aucc"], "no metric 'aucc'"),
        (["decide", "--question", "toy > lite by aucc"], "no metric 'aucc'"),
        (["table", "--metric", "auc", "--question", "toy > lite by aucc"], "no metric 'aucc'"),
        (["decide", "--margin", "2"], "between 0 and 1"),
        (["decide", "--power", "2"], "a power in 0.5..1"),
        (["decide", "--data", "nothing"], "no feature file of it"),
        (["claim", "toy"], "a claim reads"),
        (["claim", "x > y on toys"], "nothing says anything of x > y on toys"),
        (["claim", "toy > lite", "--paper", "wu"], "no numbers of 'wu'"),
        (["claims", "--like", "nothing"], "there are those of"),
    ],
)
def test_refuses(asked, capsys, words, says):
    assert says in refused(capsys, *words)


def test_decide_before_any_row_goes_by_labels_and_after_by_scores(places, capsys):
    make_file(places[0], groups=PATIENTS)
    told = answered(capsys, "decide")
    auc = assume_auc(np.array([5, 5, 5]), unit="patient").smallest
    assert re.search(rf"toys +auc +{auc:.3f} \[1\] +60 +15 ", told)
    acc = assume_accuracy(15, unit="patient")
    assert acc.why_not in told
    assert re.search(rf"toys +acc +- \[2\] +60 +15 +{acc.needed[0.01]} ", told)
    assert "test wasn't read; assumed: both AUCs 0.9" in told
    make_file(places[0], model="lite", groups=PATIENTS, strength=0.5, seed=1)
    ask(capsys, "--kind knn --k 5")
    assert "the only pair" in answered(capsys, "decide", "--data", "toys")


def test_a_question_that_decide_wrote_down_is_the_headline(places, capsys):
    question = "toy > lite by auc on toys"
    make_file(places[0])
    make_file(places[0], model="lite", strength=0.5, seed=1)
    told = answered(capsys, "decide", "--question", question)
    assert "before its test sets were read" in told
    ask(capsys, "--kind knn --k 5")
    told = answered(capsys, "compare", "toy", "lite", "--question", question)
    assert re.search(rf'toys: named on \S+, before its test set was read: "{question}"', told)
    later = answered(capsys, "compare", "toy", "lite", "--question", "lite > toy on toys")
    assert "named now, after 2 questions of its test set" in later
    status, _, err = run(capsys, "compare", "toy", "lite", "--question", "toy > other on toys")
    assert status == 0
    assert '"toy > other on toys" names none of these comparisons' in err


def test_a_question_that_was_recorded_with_an_unknown_metric_is_named(asked, capsys):
    record_question(Path(os.environ["MEDPROBE_RESULTS"]), "toy > lite by aucc")
    assert "no headline: no metric 'aucc'" in answered(capsys, "ledger")
    for words in (["table", "--metric", "auc"], ["compare", "toy", "lite"]):
        assert "aucc" not in answered(capsys, *words)


def test_a_question_with_conditions_names_one_pair_of_several(asked, capsys):
    ask(capsys, "--kind ridge")
    one = "toy and kind=knn > lite and kind=knn by auc on toys"
    both = ["compare", "toy", "lite", "--kind", "knn", "--data", "toys", "--question"]
    assert f'"{one}"; `report decide' in answered(capsys, *both, one)
    status, out, err = run(capsys, *both, "toy > lite by auc on toys")
    assert status == 0
    assert 'one of 2 pairs that the question "toy > lite by auc on toys" names' in out
    assert "names none of these comparisons alone" in err


def test_claims_of_rows_and_of_papers(asked, capsys):
    told = answered(capsys, "claim", "toy > lite on toys, more, nothing")
    assert "By the scores of stored rows (toy | lite, 32 px, knn, k 5, layer 1 cls)" in told
    assert "swaps of patients" in told
    assert "nothing: no stored rows" in told
    assert "P(false)  one-sided p" in told
    told = answered(capsys, "claim", "toy > lite by auc on toys, more")
    assert "P(false)" not in told
    assert "it holds at .025" in told
    told = answered(capsys, "claim", "dinov2 > clip on breastmnist", "--paper", "wu2025")
    assert "needs the scores" in told
    assert "--seeds-as-one takes means over seeds" in told


def test_claims_of_the_papers_tables(capsys):
    """The counts that the rules of comparing were first tried on."""
    told = answered(capsys, "claims", "--paper", "doerrich2024", "--seeds-as-one")
    assert re.search(r"doerrich2024 +ACC +144 +65 +67 +20 +0 +12 +0\.4037", told)
    told = answered(capsys, "claims", "--paper", "doerrich2024", "--like", "knn", "--list")
    assert "Each claim" in told
    assert "knn" in told
