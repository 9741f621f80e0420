"""A user's own kind, the class that KINDS.md shows, asked as ours are."""

import pickle
import re
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from features import make_features
from here import REPOSITORY
from numpy.testing import assert_allclose
from probing import rows

from cache import open_features
from probe.cli import main, read_config
from probe.run import Job, answer


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    page = (REPOSITORY / "probe" / "KINDS.md").read_text(encoding="utf-8")
    _, shown = page.split("# my_kind.py\n")
    (tmp_path / "my_kind.py").write_text(shown.split("```")[0])
    return tmp_path


@pytest.mark.parametrize(
    ("words", "chosen_by"),
    [
        ("--choose val", "val 1 - AUC"),
        ("--choose cv", "pooled out-of-fold 1 - AUC"),
        ("--shots 5 --episodes 4", "in-episode 1 - AUC"),
        ("--layer all --choose val --all-test", "val 1 - AUC"),
    ],
)
def test_it_is_chosen_and_asked_as_every_kind(folder, words, chosen_by):
    make_features(folder / "features")
    assert main(["--kind", "my_kind.py:Shrunken", *words.split()]) == 0
    for row in rows():
        assert row["probe"]["kind"] == "my_kind.py:Shrunken"
        assert row["probe"]["chosen_by"] == chosen_by
        assert row["score_type"] == "margin"
        assert row["chosen"]["shrink"] in (0.0, 0.5, 0.9)
        assert "code" in "".join(row["probe"])  # another file of that name is another question
    assert rows()[-1]["metrics"]["auc"]["value"] > 0.8


def test_its_numbers_are_those_of_a_plain_loop(folder):
    features = open_features(make_features(folder / "features"))
    assert main(["--kind", "my_kind.py:Shrunken", "--set", "shrink=0", "--choose", "val"]) == 0
    (path,) = folder.glob("results/*/*.npz")
    x, train = features.array(-1, "cls").astype(np.float64), features.split == "train"
    means = [x[train & (features.labels == c)].mean(axis=0) for c in range(3)]
    test = x[features.split == "test"]
    expected = -np.stack([np.square(test - mean).sum(axis=1) for mean in means], axis=1)
    with np.load(path) as found:
        assert_allclose(found["test_scores"], expected, rtol=1e-3)


def test_what_it_does_wrong_is_one_line(folder, capsys):
    make_features(folder / "features")
    text = (folder / "my_kind.py").read_text()
    (folder / "my_kind.py").write_text(text.replace("of_classes", "1 / 0\n        of_classes", 1))
    assert main(["--kind", "my_kind.py:Shrunken"]) == 1
    said = capsys.readouterr().err
    assert "my_kind.py:Shrunken fails in answer: ZeroDivisionError" in said
    assert said.count("\n") == 1
    with pytest.raises(SystemExit):
        main(["--kind", "my_kind.py:Shrunken", "--set", "shrnk=1"])
    assert "has no setting 'shrnk'; near names: shrink" in capsys.readouterr().err


BAD = {  # what stands in a user's class -> what is said of it
    "": "fails in answer: NotImplementedError",
    "def check_places(self, layer, pools): 1 / 0": "fails in answer: ZeroDivisionError",
    "def describe_memory(self, questions): 1 / 0": "fails in answer: ZeroDivisionError",
    "def answer_together(self, problems): 1 / 0": "fails in answer: ZeroDivisionError",
    "name: str = 'knn'": "name says what it is and is no setting; leave its type out",
    "def answer(self, p): yield Answer({'a': np.int64(1)}, {}, {}, [])": "its settings something else",
    "def answer(self, p): yield Answer({}, {'a': np.nan}, {}, [])": "its choice something else",
    "def answer(self, p): yield Answer({}, {}, {}, [3])": r"marks are texts, found \[3\]",
    "def answer(self, p): yield Answer({}, {}, {}, [])": "its answer has no scores of test",
    "def answer(self, p): yield Answer({'score_type': 'odds'}, {}, {}, [])": "score_type is one of",
    "def answer(self, p): yield Answer({}, {}, {'test': [[1]]}, [])": r"shape \(60, 3\) on test, fou",
    "def answer(self, p): yield Answer({}, {}, {'test': np.full((60, 3), np.inf)}, [])": "finite",
    "def answer(self, p): yield Answer({}, {}, {'test': np.ones((60, 3))}, [], "
    "extras={'test_ids': np.ones(3)})": "can't hold the further array 'test_ids'",
    "def answer(self, p): yield Answer({}, {}, {'test': np.ones((60, 3))}, [], "
    "extras={'mask': np.array([None])})": "can't hold the further array 'mask'",
}


@pytest.mark.parametrize("body", BAD)
def test_whatever_it_does_wrong_is_one_line(folder, capsys, body):
    make_features(folder / "features")
    write_kind(folder, body)
    try:
        status = main(["--kind", "mine.py:Mine"])
    except SystemExit as end:
        status = end.code
    said = capsys.readouterr().err
    assert status in (1, 2)
    assert re.search(BAD[body], said)
    assert "Traceback" not in said


def write_kind(folder, body, decorator="@dataclass(frozen=True)"):
    imports = (
        "from dataclasses import dataclass\nimport numpy as np\nfrom probe.answer import Answer\n"
        "from probe.kinds.kind import Kind\n"
    )
    (folder / "mine.py").write_text(
        f"{imports}{decorator}\nclass Mine(Kind):\n    width: int = 1\n    {body or 'pass'}\n"
    )


def test_a_subclass_of_ours_needs_no_settings_of_its_own(folder):
    make_features(folder / "features")
    (folder / "mine.py").write_text(
        "from probe.kinds.ridge import Ridge\nclass Mine(Ridge):\n    pass\n"
    )
    assert main(["--kind", "mine.py:Mine", "--set", "penalties=0.1"]) == 0
    assert rows()[0]["probe"]["kind"] == "mine.py:Mine"


@pytest.mark.parametrize("name", ["Mine", "Kind"])
def test_it_is_a_dataclass(folder, capsys, name):
    write_kind(folder, "", decorator="")
    with pytest.raises(SystemExit):
        main(["--kind", f"mine.py:{name}"])
    assert "a kind is a dataclass of its settings" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("--set width=1,2", "takes one width: of a setting whose default is a tuple"),
        ("--shots 3 --episodes 2 --standardise episode", "--standardise belongs to --kind"),
        ("--refit train", "--refit belongs to --kind"),
        ("--layer 1", "--layer belongs to --kind"),
    ],
)
def test_a_flag_that_it_has_no_use_for_is_refused(folder, capsys, words, says):
    write_kind(folder, "refits = has_layers = False")
    with pytest.raises(SystemExit):
        main(["--kind", "mine.py:Mine", *words.split()])
    assert says in capsys.readouterr().err


@pytest.mark.parametrize("word", ["my_kind.py:Shrunken", "my_probe.py:Fixed"])
def test_a_job_of_it_goes_to_another_process(folder, word):
    (folder / "my_probe.py").write_text(
        "import numpy as np\nclass Fixed:\n    def fit(self, x, y): pass\n"
        "    def predict_scores(self, x): return np.eye(3)[np.arange(len(x)) % 3]\n"
    )
    path = make_features(folder / "features")
    job = Job(read_config(["--kind", word]), (path,))
    if word.startswith("my_kind"):
        job = replace(job, config=replace(job.config, kind=replace(job.config.kind, shrink=(0.2,))))
    (folder / "job").write_bytes(pickle.dumps(job))
    code = (
        "import pickle, sys; from probe.run import answer\n"
        "for row in answer(pickle.load(open('job', 'rb'))): print(row.digest)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split() == [row.digest for row in answer(job)]
