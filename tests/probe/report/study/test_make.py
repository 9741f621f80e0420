"""What stands on a study's page."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
from contending import answer, labels_of, scores_of
from drawing import kinds, layered, tuned
from studying import study_of, usual_rows

from cache.errors import RequestError
from probe.report.formats.cells import Page
from probe.report.rows.ledger import read_ledger, read_question, record_question
from probe.report.study.made import made
from probe.report.study.parts import Commands, Figure
from probe.results import Part


def section(study, name):
    return next((part for part in study.sections if part.name == name), None)


def names(study):
    return [part.name for part in study.sections]


def figures(study, name):
    return [block.name for block in section(study, name).blocks if isinstance(block, Figure)]


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return study_of(usual_rows(), tmp_path_factory.mktemp("results"))


def test_sections_stand_in_the_order_of_a_paper(study):
    assert names(study) == [
        *("data", "first", "compared", "curves", "answers", "wrong", "decides"),
        *("ledger", "rows", "lacking", "made"),
    ]
    assert figures(study, "curves") == ["layers", "shots"]
    assert figures(study, "answers")[:3] == ["confusion", "recall", "reliability"]
    assert figures(study, "decides") == ["deciding"]


def test_the_headline_says_how_many_were_looked_at(study):
    (lead,) = study.lead
    assert "exploratory: " in lead
    assert "looked at on this test set" in lead


def test_what_cannot_be_drawn_is_named_with_its_command(study):
    (page,) = section(study, "lacking").blocks
    assert any(note.startswith("sizes: nothing to draw") for note in page.notes)


def test_a_question_that_is_named_comes_first(tmp_path):
    rows = [*kinds(), *layered()]
    question = read_question("vit and kind=ridge > lite and kind=ridge by auc")
    study = study_of(rows, tmp_path, question=question)
    assert study.lead[0] == f"Question, named now: {question}"
    assert "ridge" in study.lead[1]
    assert "named now, after " in study.lead[1]
    (page,) = section(study, "first").blocks
    assert ("kind", "ridge") in page.tables[0].above
    compared, _ = section(study, "compared").blocks
    assert compared.title.startswith("A: vit · B: lite")


def test_a_question_that_the_ledger_knows_has_its_date_above_the_page(tmp_path):
    text = "vit and kind=ridge > lite and kind=ridge by auc"
    record_question(tmp_path, text)
    (named,) = read_ledger(tmp_path, []).questions
    study = study_of(kinds(), tmp_path, question=read_question(text))
    assert study.lead[0] == f"Question, named on {named.time[:10]}: {text}"
    assert f"named on {named.time[:10]}, " in study.lead[1]


def test_a_table_of_all_rows_says_what_it_leaves_out(tmp_path, monkeypatch):
    monkeypatch.setattr("probe.report.study.make.MOST_ROWS", 2)
    *_, page = section(study_of(kinds(), tmp_path), "rows").blocks
    assert sum(len(table.rows) for table in page.tables) == 2
    assert page.notes[-1] == "the first 2 of 9 rows; `report table` shows all"


def test_marks_that_shake_a_number_stand_first(tmp_path):
    marked = [
        dataclasses.replace(of, row=dataclasses.replace(of.row, marks=("k is 3% of train", "random weights")))
        for of in kinds()
    ]  # fmt: skip
    page, _ = section(study_of(marked, tmp_path), "rows").blocks
    assert page.tables[0].rows[0][0].text == "random weights"
    assert page.tables[0].rows[0][1].value == 9


def test_lines_are_rebuilt_of_settings_and_say_so(tmp_path):
    study = study_of(kinds(("knn",)), tmp_path, typed="report page -o x.html")
    features, rows, page = (b for b in section(study, "made").blocks if isinstance(b, Commands))
    assert "3 feature files of these rows weren't found" in features.note
    assert rows.lines[0].startswith("probe --kind knn")
    assert rows.lines[0].endswith("--data toys  # 3 rows")
    assert "Rows hold settings, not the line that was typed" in rows.note
    assert page.lines == ("report page -o x.html",)


def test_one_answer_alone_is_a_page(tmp_path):
    labels = labels_of(40)
    study = study_of([answer("vit", scores_of(labels, 1, 0), labels)], tmp_path)
    assert section(study, "compared") is None
    assert isinstance(section(study, "first").blocks[0], Page)


def test_a_metric_that_no_row_has_is_refused(tmp_path):
    with pytest.raises(RequestError, match="no row has mae on test"):
        study_of(kinds(), tmp_path, metric="mae")


def fused():
    """Fusion of two trainings beside averaged scores and linear probes; and linear ones alone."""
    labels = labels_of()
    at = {"pool": "joined", "places": [{"layer": n, "pool": "cls"} for n in (2, 3)]}
    asked = [
        {},
        {"layer": 1, "place_chosen": {"by": "loss", "among": [[1, "cls"], [3, "cls"]]}},
        at,
        *({"kind": "stack", "weights": weights, **at} for weights in ("equal", "stacked")),
        *({"kind": "fusion", "training_seed": seed, **at} for seed in (0, 1)),
        {"dataset": "others"},
    ]
    return [answer("vit", scores_of(labels, 1, i), labels, **a) for i, a in enumerate(asked)]


def test_fusion_stands_beside_its_baselines_in_one_table(tmp_path):
    study = study_of(fused(), tmp_path)
    (page,) = section(study, "together").blocks
    (table,) = page.tables
    heads = [column.name for column in table.columns]
    kinds_of = [row[heads.index("kind")].text for row in table.rows[: -table.feet]]
    assert sorted(kinds_of) == ["fusion", *["linear"] * 3, "stack", "stack"]
    assert "averaging" in heads
    assert ("trainings", "2, where a number has ±") in table.above
    first = section(study, "first").blocks[0]
    assert all("stack" not in str(table.above) for table in first.tables)
    assert "together" not in names(study_of(fused()[:3], tmp_path))


def test_joins_and_random_weights_are_no_more_encoders(tmp_path):
    labels = labels_of()
    rows = [answer(name, scores_of(labels, 1, i), labels) for i, name in enumerate("abc")]
    parts = tuple(Part(m, m, f"{m}.full", 32, f"{m:0<64}", {}) for m in "ab")
    of = answer("a+b", scores_of(labels, 1, 7), labels, pool="joined", places=[])
    encoded = dataclasses.replace(of.row.encoded, joined=parts)
    both = dataclasses.replace(of, row=dataclasses.replace(of.row, encoded=encoded))
    row = dataclasses.replace(rows[2].row, marks=("random weights",))
    study = study_of([*rows[:2], dataclasses.replace(rows[2], row=row), both], tmp_path)
    assert study.title == "3 encoders on toys"
    (page, *_) = section(study, "data").blocks
    assert page.notes[-1] == "seen in the encoders' pretraining: unknown (a, b)"


def test_folds_are_no_gaps(tmp_path):
    labels = labels_of(40)
    rows = []
    for fold in range(2):
        split = {"rule": "kfold:2", "seed": 0, "name": f"fold {fold + 1}/2", "of": 2}
        for model in ("vit", "lite"):
            ids = np.array([f"{fold}/{i}" for i in range(40)])
            scores = scores_of(labels, 1, fold + len(model))
            rows.append(answer(model, scores, labels, split=split, ids=ids))
    assert "first" in names(study_of(rows, tmp_path))


def test_how_it_was_made_knows_licences_by_weights_and_counts_files_that_were_asked():
    weights = {"weights": "sha256:" + "ab" * 32}
    rows = [
        dataclasses.replace(of, row=with_key(of.row, weights))
        for of in [*kinds(), *tuned("freeze_until", [0, 3])]
    ]
    file = SimpleNamespace(
        digest="another",
        key=weights,
        header=SimpleNamespace(attributes={}),
        notes={"weights_licence": "apache-2.0"},
    )
    blocks = made(rows, SimpleNamespace(files=[file]), "report page")
    features, asked = blocks[0], blocks[1]
    n_files = len({of.row.encoded.digest for of in kinds()})
    assert f"; {n_files} feature files of these rows weren't found" in features.note
    assert any("--each freeze-until=0,3" in line for line in asked.lines)
    (table,) = next(b for b in blocks if isinstance(b, Page) and b.title == "Encoders").tables
    assert {row[4].text for row in table.rows} == {"apache-2.0"}


def with_key(row, key):
    return dataclasses.replace(row, encoded=dataclasses.replace(row.encoded, key=key))
