"""What holds of every kind in the table, and of one that is added: nothing here names a kind."""

import argparse
import dataclasses
import json
import pickle

import numpy as np
import pytest
from features import make_features
from here import REPOSITORY
from looking import some

from cache.commands.settings import flags_of
from cache.task import BINARY, MULTI_CLASS, REGRESSION
from probe.cli import ESTIMATOR, main, make_parser
from probe.kinds.kind import POOLED, Kind
from probe.kinds.table import KINDS, TABLE

# Of vectors; kinds that read patches have tests of their own.
LEARNING = [kind for kind in TABLE if kind.learns and kind.reads == POOLED]
# So that a step-by-step kind takes seconds, where it has the flag.
QUICK = {"--iterations": "20", "--seeds": "0", "--device": "cpu"}


def quick(kind: type[Kind]) -> list[str]:
    names = {flag.name for flag in flags_of(kind)}
    return [word for flag, value in QUICK.items() if flag in names for word in (flag, value)]


def ask(folder, kind, *words):
    """Status, and the rows as JSON in the order of their files."""
    status = main(["--kind", kind.name, *quick(kind), *words])
    paths = sorted(folder.glob("results/*/*.json"))
    return status, [json.loads(path.read_text()) for path in paths]


@pytest.mark.parametrize("kind", TABLE)
def test_it_is_a_frozen_dataclass_that_travels(kind):
    made = kind()
    assert pickle.loads(pickle.dumps(made)) == made
    with pytest.raises(dataclasses.FrozenInstanceError):
        made.name = "other"
    assert kind.__doc__
    assert not kind.__doc__.startswith(f"{kind.__name__}(")  # dataclass's own
    assert made.candidates is not None


@pytest.mark.parametrize("kind", TABLE)
def test_help_and_the_page_name_it_and_its_flags(kind):
    text = make_parser().format_help()
    page = (REPOSITORY / "probe" / "KINDS.md").read_text(encoding="utf-8")
    assert kind.heading() in " ".join(text.split())
    assert f"| `{kind.name}` |" in page
    assert f"### {kind.name}\n" in page
    for flag in flags_of(kind):
        assert f"{flag.name} " in text
        assert f"| `{flag.name}" in page


@pytest.mark.parametrize("kind", TABLE)
def test_its_flags_are_refused_by_kinds_that_have_none_of_the_name(kind, capsys):
    for flag in flags_of(kind):
        others = [o for o in TABLE if flag.name not in {f.name for f in flags_of(o)}]
        for other in some(others):
            with pytest.raises(SystemExit):
                main(["--kind", other.name, flag.name, "1"])
            said = capsys.readouterr().err
            assert f"{flag.name} belongs to --kind " in said or "invalid choice" in said


@pytest.mark.parametrize("kind", TABLE)
def test_its_defaults_are_what_no_flag_gives(kind):
    options = make_parser().parse_args(["--kind", kind.name])
    assert isinstance(options, argparse.Namespace)
    assert kind.read(options, {}) == kind()


@pytest.mark.parametrize("choose", ["val", "cv"])
@pytest.mark.parametrize("task", [BINARY, MULTI_CLASS, REGRESSION])
@pytest.mark.parametrize("kind", LEARNING)
def test_its_row_has_the_form_of_rows(kind, task, choose, folder, capsys):
    n_classes = 1 if task == REGRESSION else 2
    several = np.repeat(np.arange(220), 2) if kind.reads_rows else None
    fields = {"n_classes": n_classes, "n_layers": 4, "row_sample": several}
    make_features(folder / "features", task=task, **fields)
    words = ["--choose", choose] if kind.is_chosen else []
    status, rows = ask(folder, kind, *words)
    if task == REGRESSION and not kind.takes_numbers:
        assert (status, rows) == (1, [])
        assert f"--kind {kind.name} tells classes apart" in capsys.readouterr().err
        return
    assert rows
    for row in rows:
        assert row["probe"]["kind"] == kind.name
        assert list(row["probe"])[:3] == ["kind", "layer", "pool"]
        assert list(row["probe"])[-2:] == ["read", "n_resamples"]
        assert ("folds" in row["probe"]) == (kind.is_chosen and choose == "cv")
        (path,) = folder.glob(f"results/*/*{row['id'][:16]}*.npz")
        with np.load(path) as found:
            n_columns = 1 if task == REGRESSION else 2
            assert found["test_scores"].shape == (len(found["test_ids"]), n_columns)
            assert np.isfinite(found["test_scores"]).all()


SHOTS = [kind for kind in LEARNING if kind.takes_shots and not kind.reads_rows]


@pytest.mark.parametrize("kind", SHOTS)
def test_it_learns_from_few_shots(kind, folder):
    make_features(folder / "features", n_layers=4)
    status, rows = ask(folder, kind, "--shots", "3", "--episodes", "4")
    assert status == 0
    for row in some(rows):
        assert row["probe"]["few_shot"]["shots"] == 3
        assert len(row["episodes"]["acc"]) == 4


def test_names_are_unique_and_no_word_of_others():
    assert list(KINDS) == [kind.name for kind in TABLE]
    assert len(KINDS) == len(TABLE)
    assert ESTIMATOR not in KINDS
