"""Golden rows: every number, word and flag of the commands, as they were recorded.

``python tests/making/record_golden.py`` records anew. That is never the cure of a red test: it is allowed
where CHANGELOG.md names the change that users will see, and then its diff shows that and no more.
"""

import numpy as np
import pytest
from golden import (
    Recording,
    clear,
    make_toys,
    run_in,
    stored_rows,
    told,
)

from probe.cli import main as probe

# ---------------------------------------------------------------------------- probe

TASKS = {
    "two": "binary",
    "many": "classes",
    "grades": "ordinal",
    "labels": "labels",
    "ages": "ages",
}
ADAMW = "adamw --iterations 60 --batch-size 32 --lr 0.01 --seeds 0,1"
HEADS = "heads --lr 0.05,0.5 --epochs 2 --iterations 10 --batch-size 32"
LOGISTIC = "sklearn.linear_model.LogisticRegression --set C=0.01,1"
RIDGE = "sklearn.linear_model.Ridge --set alpha=1,10"
OWN = "own.py:Nearest --set power=0.5,2"
KINDS = ["knn --k 3,11", "linear", "ridge", ADAMW, HEADS, "zeroshot", LOGISTIC, RIDGE, OWN]
HOWS = {"val": "--choose val", "folds": "--choose cv", "shots": "--shots 1,4 --episodes 6"}
OF_SHOTS = {
    "adamw": "--shots 4 --episodes 2",
    "heads": "--shots 4 --episodes 2",
    **dict.fromkeys([LOGISTIC.split()[0], "own.py:Nearest"], "--shots 1,4 --episodes 4"),
    RIDGE.split()[0]: "--shots 8 --episodes 4",
}
NO_CHOICE = ("adamw", "heads", "zeroshot")  # by folds
ONLY = {"own.py:Nearest": ("two", "many", "grades", "ages"), RIDGE.split()[0]: ("ages",)}

OWN_PROBE = """
from dataclasses import dataclass

import numpy as np


@dataclass
class Nearest:
    power: float = 1.0

    def fit(self, features, labels):
        x = np.asarray(features, np.float64)
        self.means = np.stack([x[labels == c].mean(axis=0) for c in np.unique(labels)])

    def predict_scores(self, features):
        far = ((np.asarray(features, np.float64)[:, None] - self.means) ** 2).sum(axis=2)
        scores = np.exp(-(far**self.power) / 10)
        return scores / scores.sum(axis=1, keepdims=True)
"""


def every_answer():
    """Each kind, of each task, by val, by folds and by episodes; some refusals among them."""
    for kind in KINDS:
        name = kind.split()[0]
        for data, task in TASKS.items():
            for how, flags in HOWS.items():
                if data not in ONLY.get(name, TASKS) and (data, how) != ("many", "val"):
                    continue
                if name in NO_CHOICE and data != "two":
                    flags = {"val": "", "folds": None, "shots": flags}[how]
                if how == "shots" and flags:
                    flags = OF_SHOTS.get(name, flags)
                if flags is not None:
                    words = kind.replace("3,11", "1,4") if how == "shots" else kind
                    command = f"--kind {words} --data {data} --model toy {flags}"
                    yield f"{name} of {task} by {how}", [command]
                if name in NO_CHOICE and (data, how) == ("two", "val"):
                    yield f"{name} of {task}", [f"--kind {kind} --data {data}"]


def cases():
    """Name -> command lines, one after the other in one folder of results."""
    yield from every_answer()
    of = {
        "auto by size": "--kind linear --data two,many --model toy",
        "auto, val is large": "--kind linear --data large",
        "k auto": "--kind knn --k auto --data two,many,grades,labels,ages --model toy",
        "k auto of a list, by val": "--kind knn --k auto:1,9,31 --choose val --data many --vote majority",
        "k auto in episodes": "--kind knn --k auto --shots 5 --episodes 5 --data two,many,labels,ages --model toy",
        "euclidean": "--kind knn --k 1,7 --metric euclidean --data two,ages",
        "temperature": "--kind knn --k 20 --temperature 0.2 --data many --model toy",
        "mlknn": "--kind knn --k 5,15 --vote mlknn --data labels",
        "mlknn by k auto": "--kind knn --k auto:5,15 --vote mlknn --data labels --choose val",
        "mlknn in episodes": "--kind knn --k 1 --vote mlknn --data labels --shots 3 --episodes 4",
        "mlknn of classes": "--kind knn --k 5 --vote mlknn --data many --model toy",
        "k beyond train": "--kind knn --k 500 --data two",
        "one against the rest": "--kind linear --form ovr --data many --model toy",
        "strengths": "--kind linear --strengths 0.01,0.1,1 --data two --choose val",
        "dinov2's strengths": "--kind linear --strengths dinov2 --data two --choose cv",
        "one strength": "--kind linear --strengths 0.1 --data two",
        "penalties": "--kind ridge --penalties 0.01,1 --data ages,labels",
        "adamw by loss": f"--kind {ADAMW} --choose-by loss --weight-decay 0.1 --data two",
        "adamw by epochs": "--kind adamw --epochs 3 --batch-size 16 --seeds 3 --data many --model toy",
        "heads by auc": f"--kind {HEADS} --choose-by auc --data many --model toy",
        "heads refitted": f"--kind {HEADS} --refit train+val --data two",
        "heads of a pool": f"--kind {HEADS} --pool mean --seeds 4 --data two",
        "refit after val": "--kind linear --choose val --refit train+val --data two,labels",
        "no refit after folds": "--kind ridge --choose cv --refit train --data two,ages",
        "layer all": "--kind linear --layer all --data two",
        "layer all, test too": "--kind ridge --layer all --all-test --data two --pool cls,mean",
        "layer auto": "--kind linear --layer auto --data two,many --model toy",
        "layer auto by val": "--kind knn --k 5,20 --layer auto --pool cls,mean --choose val --data two",
        "layer auto, k auto": "--kind knn --k auto --layer auto --data two",
        "layer auto of adamw": f"--kind {ADAMW} --layer auto --data two",
        "layer auto of an estimator": f"--kind {LOGISTIC} --layer auto --data two",
        "last two": "--kind linear --layer last2 --data two",
        "first layer": "--kind linear --layer 0 --pool mean --data two",
        "pools": "--kind linear --pool cls,mean,concat,head --data two",
        "pools, test too": "--kind knn --k 5 --pool cls,proj --all-test --data two",
        "concat": "--kind ridge --pool concat --data two",
        "slices": "--kind linear --data slices",
        "slices by max": "--kind knn --k 5 --aggregate max --data slices",
        "patients": "--kind linear --aggregate patient --data two",
        "patients' shots": "--kind ridge --aggregate patient --shots 2 --episodes 4 --data two",
        "patients unknown": "--kind linear --aggregate patient --data many --model toy",
        "controls": "--kind knn --k 5 --controls --data two,bare,ages --where weights=sha256:1",
        "controls without pictures": "--kind linear --controls --data grades",
        "controls of numbers": "--kind ridge --controls --data ages",
        "strict": "--kind knn --k 5 --strict --data two,bare",
        "copies and twins": "--kind linear --data bare --where weights=sha256:1",
        "strict of nobody's looks": "--kind knn --k 5 --strict --data many --model toy",
        "uncertain": "--kind linear --data doubt",
        "uncertain zeros": "--kind linear --data doubt --uncertain zeros",
        "uncertain ignored": "--kind knn --k 7 --data doubt --uncertain ignore --vote mlknn",
        "uncertain ones of a target": "--kind ridge --data doubt --uncertain ones --target edema",
        "several targets": "--kind linear --data labels --target edema,fracture",
        "a stored column": "--kind ridge --data two --target meta:age --task regression",
        "a stored column of classes": "--kind linear --data two --target meta:site",
        "labels of a table": "--kind linear --data many --model toy --labels labels.csv --target kind",
        "labels, positive": "--kind linear --data many --model toy --labels labels.csv --target sex --positive f",
        "labels, ordinal": "--kind knn --k 9 --data many --model toy --labels labels.csv --target grade --task ordinal",
        "labels, several in a cell": "--kind linear --data many --model toy --labels labels.csv --target found --label-sep | --missing ?",
        "labels, numbers": "--kind ridge --data many --model toy --labels labels.csv --target size --task regression --shots 6 --episodes 4",
        "split by shares": "--kind linear --data two --split 60/20/20 --split-seed 3",
        "folds as a split": "--kind knn --k 5 --data many --model toy --split kfold:3",
        "one fold": "--kind linear --data grades --split kfold:4:2",
        "sites": "--kind linear --data two --split site-out:site",
        "one site": "--kind ridge --data two --split site-out:site=west",
        "systematic": "--kind ridge --data ages --split systematic:5,4",
        "all is test": "--kind zeroshot --data two --split test",
        "no test": "--kind linear --data two --split 80/20",
        "external": "--kind linear --train-data many --test-data other --model toy",
        "external, all": "--kind knn --k 5 --train-data many --test-data other --model toy --test-split all",
        "external, few": "--kind ridge --train-data many --test-data other --model toy --shots 3 --episodes 4",
        "external, layers": "--kind linear --train-data many --test-data other --model toy --layer auto",
        "two encoders": "--kind linear --data many",
        "a size that isn't there": "--kind linear --data many --size 64",
        "data that isn't there": "--kind linear --data nothing",
        "natural draw": "--kind linear --shots 5 --episodes 4 --draw natural --data many --model toy",
        "first of the file": "--kind linear --shots 5 --draw first --data many --model toy",
        "patients by name": "--kind ridge --shots 5 --draw patients --data two",
        "bigvision's draw": "--kind ridge --shots 2 --draw bigvision --data many --model toy",
        "another episode seed": "--kind linear --shots 2 --episodes 4 --episode-seed 5 --data two --seed 7 --resamples 50",
        "too many shots": "--kind linear --shots 200 --data many --model toy",
        "more strengths than an episode can choose": "--kind linear --shots 2 --strengths 0.1,1 --data two",
        "by kind": "--kind knn --shots 2 --metric euclidean --vote majority --k 1,3 --episodes 4 --data grades",
        "names": "--kind ridge --data two --name first --resamples 20",
        "a file by path": "--kind ridge features/many/wide_32_p00000000010.h5 features/many/nothing.h5",
        "text by path": "--kind zeroshot --text features/two/toy_text_000000000020.h5 --data two",
        "text to linear": "--kind linear features/two/toy_text_000000000020.h5",
        "no texts": "--kind zeroshot --data ages,bare",
    }  # fmt: skip
    for name, words in of.items():
        yield name, [words]
    for how in ("train", "episode", "none"):
        for kind in ("linear", "ridge", HEADS, ADAMW, LOGISTIC):
            words = f"--kind {kind.replace('=0.01,1', '=0.01')} --shots 4 --episodes 2"
            yield (
                f"standardise {how} {kind.split()[0]}",
                [f"{words} --standardise {how} --data many --model toy"],
            )
    for prior in ("train", "uniform", "em", "none"):
        words = "--shots 3 --episodes 4 --data two,many --model toy"
        yield (
            f"prior {prior}",
            [f"--kind {kind} {words} --prior {prior}" for kind in ("linear", "knn --k 3", "ridge")],
        )
    for name, words in PROTOCOLS.items():
        yield f"protocol {name}", [f"--protocol {words}"]
    for i, words in enumerate(REFUSED):
        yield f"refused {i:02d}", [words]
    yield (
        "split file",
        [
            "--kind ridge --data two --split 70/10/20 --split-file made/split.csv",
            "--kind ridge --data two --split-file made/split.csv",
        ],
    )
    yield (
        "episodes file",
        [
            "--kind ridge --data two --shots 2 --episodes 3 --episodes-file made/e.csv",
            "--kind knn --data two --shots 2 --episodes 3 --episodes-file made/e.csv",
        ],
    )
    yield (
        "one table",
        [
            "--kind knn --k 5 --data two,many --name mine",
            "--kind linear --data two,many --name mine --model toy",
            "--kind linear --data two --layer all",
            "--kind linear --data two --split kfold:3",
            "--kind ridge --data two,ages --name other",
            "--kind ridge --data two --shots 2 --episodes 3",
            "--kind zeroshot --data two",
            "--kind linear --data many --model toy --labels labels.csv --target kind",
            "--kind linear --train-data many --test-data other --model toy",
            "--protocol bigvision --shots 1 --data two",
            "table --data two",
            "table --kind linear,zeroshot --model toy",
            "table --name other",
            "table --name nobody",
            "table results/nothing.json",
        ],
    )


SHORT = "--iterations 40 --batch-size 16 --seeds 0,1"
SHORT_EPOCHS = "--epochs 2 --batch-size 16"
PROTOCOLS = {
    "wu2025": f"wu2025 {SHORT} --data two",
    "wu2025 but a rate": f"wu2025 {SHORT} --lr 0.01 --data many --model toy",
    "wu2025, few": f"wu2025 {SHORT} --shots 4 --data many --model toy",
    "wu2025 as published": f"wu2025 {SHORT} --as-published --data two",
    "doerrich2024 knn": "doerrich2024 --data two,many --model toy",
    "doerrich2024 but k": "doerrich2024 --k 5 --data grades",
    "doerrich2024": f"doerrich2024 --kind adamw {SHORT_EPOCHS} --seeds 0 --data two",
    "doerrich2024 as published": f"doerrich2024 --kind adamw --as-published {SHORT_EPOCHS} --seeds 0 --data two",
    "dinov2": f"dinov2 {SHORT_EPOCHS} --iterations 5 --lr 0.05 --data two",
    "dinov2 knn": "dinov2 --kind knn --k 10,20 --data two",
    "dinov2 knn as published": "dinov2 --kind knn --k 10,20 --as-published --data two,many --model toy",
    "dinov2 knn, few, as published": "dinov2 --kind knn --k 2,4 --as-published --shots 3 --episodes 3 --data two",
    "dinov2 linear": "dinov2 --kind linear --data two",
    "baharoon2023": f"baharoon2023 {SHORT_EPOCHS} --lr 0.05,0.01 --data labels",
    "baharoon2023 as published": f"baharoon2023 --as-published {SHORT_EPOCHS} --lr 0.05,0.01 --data labels,many --model toy",
    "baharoon2023, no refit": f"baharoon2023 {SHORT_EPOCHS} --lr 0.05 --refit train --data two",
    "baharoon2023, few": f"baharoon2023 {SHORT_EPOCHS} --lr 0.05 --shots 4 --data two",
    "baharoon2023 knn": "baharoon2023 --kind knn --k 5,15 --data labels",
    "baharoon2023 knn as published": "baharoon2023 --kind knn --k 5,15 --as-published --data labels",
    "huix2024": "huix2024 --data large",
    "huix2024 but k": "huix2024 --k 20 --temperature 0.07 --data many --model toy --layer 1",
    "huix2024 linear": "huix2024 --kind linear --data two",
    "bigvision": "bigvision --shots 1,5 --data two,many --model toy",
    "bigvision but": "bigvision --shots 2 --penalties 0.1,1 --standardise train --draw balanced --episodes 4 --data many --model toy",
    "bigvision of all": "bigvision --data two --episodes 1 --shots 3 --seed 2",
}  # fmt: skip
REFUSED = [
    "--data two",
    "--kind nonsense",
    "--kind lineer",
    "--kind linear --k 5",
    "--kind knn --strengths 1 --data two",
    "--kind knn --set C=1",
    "--kind zeroshot --refit train",
    "--kind ridge --lr 0.1",
    "--kind linear --seeds 1",
    "--kind linear --device cuda",
    "--kind adamw --lr 0.1,0.2",
    "--kind heads --seeds 0,1",
    "--kind adamw --iterations 5 --epochs 2",
    "--kind adamw --iterations 0",
    "--kind heads --choose-by loss",
    "--kind adamw --choose-by auc",
    "--kind heads --layer all",
    "--kind heads --pool cls,mean",
    "--kind knn --k 0",
    "--kind knn --k x",
    "--kind knn --k 3,3",
    "--kind knn --k auto:",
    "--kind knn --temperature 0",
    "--kind knn --vote majority --temperature 1",
    "--kind linear --strengths -1",
    "--kind linear --strengths=0",
    "--kind ridge --penalties 0",
    "--kind linear --layer many",
    "--kind linear --layer last0",
    "--kind linear --layer 9 --data two",
    "--kind linear --pool neck",
    "--kind linear --pool cls,cls",
    "--kind linear --all-test",
    "--kind linear --aggregate sum",
    "--kind linear --resamples 0",
    "--kind linear --seed -1",
    "--kind linear --shots 0",
    "--kind linear --episodes 5",
    "--kind linear --shots 2 --episodes 0",
    "--kind linear --shots 2 --choose cv",
    "--kind linear --shots 2 --layer auto",
    "--kind linear --shots 2 --controls",
    "--kind linear --shots 2 --draw first --episodes 9",
    "--kind ridge --shots 2 --prior em",
    "--kind zeroshot --shots 2",
    "--kind zeroshot --layer 1",
    "--kind zeroshot --pool cls",
    "--kind zeroshot --controls",
    "--kind zeroshot --train-data two --test-data many",
    "--kind linear --text x.h5",
    "--kind linear --train-data two",
    "--kind linear --test-data two",
    "--kind linear --data two --train-data two --test-data many",
    "--kind linear --train-data two --test-data many --model toy",
    "--kind linear --train-data two --test-data many --split kfold:3",
    "--kind linear --test-split all",
    "--kind linear --split nonsense",
    "--kind linear --split-seed -1 --split 80/10/10",
    "--kind linear --split kfold:3 --split-file x.csv",
    "--kind linear --labels labels.csv --target meta:age",
    "--kind linear --task ordinal",
    "--kind linear --label-sep |",
    "--kind linear --target nothing --data labels",
    "--kind linear --labels labels.csv --target nothing --data many --model toy",
    "--kind linear --where nonsense",
    "--kind linear features/a.h5 --data two",
    "--kind linear --unknown",
    "--protocol wu2025 --kind knn",
    "--protocol huix2024 --kind heads",
    "--protocol huix2024 --as-published",
    "--protocol dinov2 --kind linear --shots 2",
    "--kind linear --as-published",
    "--kind sklearn.linear_model.Nothing",
    "--kind sklearn.cluster.KMeans",
    "--kind sklearn.svm.LinearSVC --set nothing=1 --data two",
    "--kind sklearn.svm.LinearSVC --set C",
    "--kind own.py:Nothing",
    "--kind nothing.py:Nearest",
    "--kind own.py:Nearest --set power=2 --shots 2 --standardise train --data two",
    "tabel",
    "table --kind linear --results",
]  # fmt: skip
CASES = dict(cases())


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("golden")
    make_toys(folder / "features")
    (folder / "own.py").write_text(OWN_PROBE)
    rng = np.random.default_rng(30)
    lines = ["id,kind,sex,grade,found,size"]
    for i in range(240):  # the last four of 244 have none
        words = ["x", "y", "z"]
        found = "|".join(word for word in words if rng.random() < 0.4) if i % 17 else "?"
        kind, sex = words[int(rng.integers(3))], "mf"[int(rng.random() < 0.4)]
        size = f"{rng.normal(5, 2):.3f}" if i % 31 else ""
        lines.append(f"many/{i:04d},{kind},{sex},{int(rng.integers(3))},{found},{size}")
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture
def places(root, monkeypatch):
    """Run beside the features: no path that is told or stored is of this machine."""
    clear(root / "results", root / "made")
    (root / "made").mkdir()
    run_in(root, monkeypatch)
    return root


@pytest.fixture(scope="module")
def of_probe():
    recording = Recording("probe")
    yield recording
    recording.finish()


@pytest.mark.parametrize("case", CASES)
def test_probe(case, places, capsys, of_probe):
    found = {}
    for i, words in enumerate(CASES[case]):
        found[f"said {i}"] = told(capsys, probe, words.split())
    found |= stored_rows(places / "results")
    if len(found) > len(CASES[case]):
        found["table"] = told(capsys, probe, ["table"])
    of_probe.check(case, found)


def test_what_was_recorded_is_still_asked(of_probe):
    assert {case for case, _ in of_probe.known} <= set(CASES)
