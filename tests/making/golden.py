"""What the golden tests share: toy feature files, runs of a command, recordings and their comparison.

A recording is a file of JSON lines in ``data/golden``: ["shared", digest, value], which others of
its lines mean by {"$": digest}, and then one line for each thing: [case, what, content].
"""

import hashlib
import json
import math
import os
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from features import write_rows
from numpy.typing import NDArray

from cache.format.spec import HASH, THUMBNAIL, FileSpec, Samples
from cache.task import MISSING, MULTI_LABEL, UNCERTAIN

TOLERANCE = 1e-6  # of floats, relative
# What CHANGELOG.md says that rows have since they were recorded: new names in JSON and in the .npz,
# and values that stand for new ones, as {"row_version": 2}. Recorded anew, all of it is empty.
ADDED = {
    "json": ("cost",),
    "npz": (
        *("head_weights", "head_intercept", "head"),
        *("train_scores", "train_labels", "train_ids"),
    ),
}
REPLACED: dict[str, object] = {"row_version": 2}
RECORDS = os.environ.get("RECORD_GOLDEN", "")  # "all", or only what was "printed"; "": nothing
TESTS = next(folder for folder in Path(__file__).resolve().parents if folder.name == "tests")
RECORDINGS = TESTS / "data" / "golden"

# ---------------------------------------------------------------------------- toy features

WIDTH, N_LAYERS = 12, 4
N = (120, 60, 64)  # samples of train, val and test
CLASSES = {
    "binary-class": ("normal", "tumour"),
    "multi-class": ("a", "b", "c", "é"),
    "ordinal-regression": ("0", "I", "II", "III"),
    MULTI_LABEL: ("edema", "effusion", "fracture"),
    "regression": ("age",),
}


def make_toy(
    root: Path,
    dataset: str,
    task: str,
    *,
    seed: int,
    n: Sequence[int] = N,
    looks: str = "",
    patients: bool = False,
    n_slices: int = 1,
    encoder: str = "toy.full",
    uncertain: bool = False,
    notes: Mapping[str, Any] | None = None,
    weights: str = "sha256:1",
    classes_seed: int = 0,
) -> Path:
    """A feature file whose later layers tell more of the labels; nothing in it is nearly tied.

    Args:
        root: the folder of features.
        dataset: its name.
        task: a key of ``CLASSES``.
        seed: of all that is drawn.
        n: samples of train, val and test.
        looks: whether it has hashes and small pictures: "alone", or "shared" by two splits.
        patients: two samples each, of one label, with their age and site.
        n_slices: rows of a sample.
        encoder: its full name.
        uncertain: some labels are, and some are missing.
        notes: of the file.
        weights: as the key names them.
        classes_seed: where features of the classes lie.
    """
    rng = np.random.default_rng(seed)
    total, names = sum(n), CLASSES[task]
    labels, signal = _labels(rng, task, total, len(names), classes_seed)
    rows = np.arange(total).repeat(n_slices)
    if patients:  # counts of N are even
        labels, signal = labels[::2].repeat(2, axis=0), signal[::2].repeat(2, axis=0)
    noise = rng.normal(size=(len(rows), WIDTH))
    pictures = rng.integers(0, 250, (len(rows), 64), dtype=np.uint8)
    if looks == "shared":  # a test sample is a copy of one of train, and one a brighter twin
        for test, train, brighter in ((sum(n[:2]) + 1, 0, 0), (sum(n[:2]) + 4, 7, 1)):
            labels[test], signal[test], noise[test] = labels[train], signal[train], noise[train]
            pictures[test] = pictures[train] + np.uint8(brighter)
    content = {}
    for layer in range(N_LAYERS):
        strength = 0.2 + 0.25 * layer
        for i, pool in enumerate(("cls", "mean")):
            own = rng.normal(size=noise.shape)
            content[f"layers/{layer:02d}/{pool}"] = strength * signal[rows] + noise + 0.3 * own * i
    content["head"] = 0.8 * signal[rows] + noise
    content["proj"] = signal[rows][:, :6] + 0.7 * noise[:, :6]
    if looks:
        hashes = [hashlib.sha256(picture.tobytes()).digest()[:16] for picture in pictures]
        content[HASH] = np.frombuffer(b"".join(hashes), np.uint8).reshape(-1, 16)
        content[THUMBNAIL] = pictures
    if uncertain:
        labels[rng.random(labels.shape) < 0.1] = UNCERTAIN
        labels[rng.random(labels.shape) < 0.05] = MISSING
    ids = np.array([f"{dataset}/{i:04d}" for i in range(total)])
    split = np.repeat(np.arange(3, dtype=np.uint8), n)
    meta, groups = {}, None
    if patients:
        groups = np.array([f"p{i // 2:03d}" for i in range(total)])
        meta = {
            "age": np.round(60 + 8 * signal[:, 0] + 3 * rng.normal(size=total), 1),
            "site": np.array(["north", "south", "west"])[(np.arange(total) // 2) % 3],
        }
    spec = FileSpec(
        model=encoder.partition(".")[0],
        encoder=encoder,
        size=32,
        dataset=dataset,
        task=task,
        class_names=names,
        key={
            "layers": {"of": N_LAYERS},
            "encoder": encoder,
            "dataset": dataset,
            "weights": weights,
        },
        arrays={name: x.shape[1] for name, x in content.items()},
        dtype="float16",
        row_ids=np.array([f"{ids[s]}:{i}" for i, s in enumerate(rows)]) if n_slices > 1 else ids,
        row_sample=rows,
        samples=Samples(ids, split, labels, groups, meta),
        command=f"extract --model {encoder.partition('.')[0]} --data {dataset}",
        positive_class=names[1] if task == "binary-class" else None,
        notes=dict(notes or {}),
    )
    name = f"{spec.model}_32_{'r' if 'random' in weights else 'p'}{seed:011d}.h5"
    return write_rows(root / dataset / name, spec, content)


def _labels(
    rng: np.random.Generator, task: str, total: int, n_classes: int, classes_seed: int
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Labels of unequal shares, and (total, WIDTH) what features show of them."""
    classes = 0.7 * np.random.default_rng(classes_seed).normal(size=(2 * n_classes, WIDTH))
    if task == "regression":
        value = rng.normal(size=total)
        return np.round(50 + 12 * value, 3), np.outer(value, classes[0])
    if task == MULTI_LABEL:
        labels = (rng.random((total, n_classes)) < (0.5, 0.4, 0.3)).astype(np.int64)
        signs = np.where(labels, np.arange(n_classes), n_classes + np.arange(n_classes))
        return labels, classes[signs].sum(axis=1) / 1.5
    shares = np.arange(n_classes, 0, -1) + 1.0
    labels = rng.choice(n_classes, size=total, p=shares / shares.sum())
    return labels, classes[labels]


def make_text(root: Path, dataset: str, task: str, *, seed: int, classes_seed: int = 0) -> Path:
    """Two prompts of each class, and of several labels of its absence, in the space of proj."""
    rng, names = np.random.default_rng(seed), list(CLASSES[task])
    classes = np.random.default_rng(classes_seed).normal(size=(2 * len(names), WIDTH))[:, :6]
    if task == MULTI_LABEL:
        names += [f"no {name}" for name in names]
    labels = np.arange(len(names)).repeat(2)
    ids = np.array([f"{label}/{i % 2}" for i, label in enumerate(labels)])
    spec = FileSpec(
        model="toy",
        encoder="toy.full",
        size=0,
        dataset=dataset,
        task="multi-class",
        class_names=tuple(names),
        key={
            "layers": {"of": 2},
            "encoder": "toy.full",
            "dataset": dataset,
            "weights": "sha256:1",
            "text": {"prompts": [f"{names[c]} {i % 2}" for i, c in enumerate(labels)]},
        },
        arrays={"proj": 6},
        dtype="float32",
        row_ids=ids,
        row_sample=np.arange(len(ids)),
        samples=Samples(ids, np.zeros(len(ids), np.uint8), labels),
        command=f"extract --text --model toy --data {dataset}",
        notes={"logit_scale": 10.0},
    )
    proj = 2 * classes[labels] + 0.5 * rng.normal(size=(len(labels), 6))
    return write_rows(root / dataset / f"toy_text_{seed:012d}.h5", spec, {"proj": proj})


def make_toys(root: Path) -> None:
    """All feature files that the probe's cases read, in ``root``."""
    two, many, ages = "binary-class", "multi-class", "regression"
    make_toy(root, "two", two, seed=1, looks="alone", patients=True)
    make_toy(root, "bare", two, seed=2, looks="shared")
    random = {"weights": "random:0", "notes": {"random_weights": True}, "classes_seed": 99}
    make_toy(root, "bare", two, seed=2, looks="shared", **random)
    make_toy(root, "many", many, seed=3)
    make_toy(root, "grades", "ordinal-regression", seed=4)
    make_toy(root, "labels", MULTI_LABEL, seed=5)
    make_toy(root, "doubt", MULTI_LABEL, seed=6, uncertain=True)
    make_toy(root, "ages", ages, seed=7, looks="alone")
    make_toy(root, "slices", two, seed=8, n=(60, 30, 40), n_slices=3)
    make_toy(root, "other", many, seed=9, n=(40, 20, 90))
    make_toy(root, "many", many, seed=10, encoder="wide.full")
    make_toy(root, "large", many, seed=11, n=(240, 500, 100))  # of which val may decide
    for i, (dataset, task) in enumerate(TEXTS.items()):
        make_text(root, dataset, task, seed=20 + i)


TEXTS = {
    "two": "binary-class",
    "many": "multi-class",
    "grades": "ordinal-regression",
    "labels": MULTI_LABEL,
}

# ---------------------------------------------------------------------------- what a run leaves


def told(capsys: Any, main: Callable[[list[str]], int], words: list[str]) -> list[Any]:
    """Run a command; its exit status, and the lines of both streams."""
    capsys.readouterr()
    try:
        status = main(words)
    except SystemExit as end:  # of argparse
        status = end.code
    said = capsys.readouterr()
    return [status, *(text.replace("\\", "/").splitlines() for text in said)]  # Windows' paths


PASSING = re.compile(  # times and rates; and digests of weights, which torch's version may change
    r"\d[\d.,_]* (images|slices|texts|prompts)/s|[\d.,:]+ (s|min|ms)\b|[\d.]+ [kMGT]?B\b|"
    r"(sha256:)?(?<![0-9a-f])[0-9a-f]{12,64}(?![0-9a-f])"
)


def masked(value: Any) -> Any:
    """The same without what no second run, or no other torch, can repeat."""
    if isinstance(value, str):
        return PASSING.sub("...", value)
    if isinstance(value, dict):
        return {name: masked(v) for name, v in value.items()}
    return [masked(v) for v in value] if isinstance(value, list) else value


# Of a row, what no second run can repeat: a word stands for it. Digests that hold them, too.
FLEETING = {
    "seconds": "seconds",
    "versions": "versions",
    "sha256": "of seconds",
    "scores_sha256": "of floats",
}


def stored_rows(results: Path) -> dict[str, Any]:
    """Name of each stored row -> its JSON and what its scores are, as a recording has them."""
    found = {}
    for path in sorted(results.glob("*/*.json")):
        row = json.loads(path.read_text())
        (scores,) = path.parent.glob(f"{path.stem}*.npz")
        assert re.fullmatch(rf"{re.escape(path.stem)}\.[0-9a-f]{{16}}", scores.stem)
        assert row["scores_sha256"].startswith(scores.stem.rpartition(".")[2])
        with np.load(scores, allow_pickle=False) as arrays:
            parts = {name: summary(arrays[name]) for name in arrays.files}
        row |= {name: word for name, word in FLEETING.items() if name in row}
        found[path.relative_to(results).as_posix()] = {"json": rounded(row), "npz": parts}
    return found


def summary(x: NDArray[Any]) -> list[Any]:
    """The type and shape of an array, and of what is in it a digest, or sums of floats.

    The last of the sums has a weight for each place, so that another order is noticed.
    """
    about = [x.dtype.kind + ("" if x.dtype.kind == "U" else str(x.dtype.itemsize)), list(x.shape)]
    if x.dtype.kind != "f":
        plain = json.dumps(x.tolist(), ensure_ascii=False)
        return [*about, hashlib.sha256(plain.encode()).hexdigest()[:12]]
    flat = x.ravel().astype(np.float64)
    known = np.where(np.isfinite(flat), flat, 0)
    weights = np.cos(1.7 * np.arange(len(flat)))
    ends = [float(v) if np.isfinite(v) else str(v) for v in (*flat[:1], *flat[-1:])]
    sums = [known.sum(), np.abs(known).sum(), (known * weights).sum()]
    return [*about, int(np.isfinite(flat).sum()), rounded([*map(float, sums), *ends])]


def rounded(value: Any) -> Any:
    """Plain JSON values with floats of ten digits."""
    if isinstance(value, float):
        return float(f"{value:.10g}")
    if isinstance(value, Mapping):
        return {name: rounded(v) for name, v in value.items()}
    return [rounded(v) for v in value] if isinstance(value, list) else value


# ---------------------------------------------------------------------------- comparing


def differences(known: Any, found: Any, tolerance: float, place: str = "") -> Iterator[str]:
    """What is another than was recorded; floats may differ by ``tolerance``, relative."""
    if type(known) is not type(found):
        yield f"{place}: {short(known)} was {type(known).__name__}, is {short(found)}"
    elif isinstance(known, dict):
        if list(known) != list(found):
            order = "order of " if sorted(known) == sorted(found) else ""
            yield f"{place}: {order}names were {list(known)}, are {list(found)}"
        for name in known:
            if name in found:
                yield from differences(known[name], found[name], tolerance, f"{place}.{name}")
    elif isinstance(known, list):
        if len(known) != len(found):
            yield f"{place}: {len(known)} things were {short(known)}, {len(found)} are {short(found)}"
        else:
            # Sums of many floats are as good as the largest of them.
            is_sums = ".npz." in place and all(isinstance(v, float) for v in known)
            scale = max(map(abs, known), default=0.0) if is_sums else 0.0
            for i, (a, b) in enumerate(zip(known, found, strict=True)):
                if is_sums and abs(a - b) <= tolerance * scale:
                    continue
                yield from differences(a, b, tolerance, f"{place}[{i}]")
    elif isinstance(known, float):
        if not math.isclose(known, found, rel_tol=tolerance, abs_tol=tolerance * 1e-3):
            yield f"{place}: was {known!r}, is {found!r}"
    elif known != found:
        yield f"{place}: was {short(known)}, is {short(found)}"


def short(value: Any) -> str:
    """A value in one line of a message."""
    text = repr(value)
    return text if len(text) <= 300 else f"{text[:300]}..."


# ---------------------------------------------------------------------------- recordings


def write_recording(path: Path, things: Mapping[tuple[str, str], Any]) -> None:
    """Write what was recorded: (case, what) -> content."""
    parts = Counter()

    def count(value: Any) -> None:
        parts[_text(value)] += 1
        for part in _parts(value):
            count(part)

    for content in things.values():
        count(content)
    shared = {text for text, times in parts.items() if times > 1 and len(text) > 80}
    lines: dict[str, Any] = {}

    def shrink(value: Any) -> Any:
        text = _text(value)
        name = hashlib.sha256(text.encode()).hexdigest()[:8]
        if text in shared and name in lines:
            return {"$": name}
        small = value
        if isinstance(value, dict):
            small = {key: shrink(part) for key, part in value.items()}
        elif isinstance(value, list):
            small = [shrink(part) for part in value]
        if text not in shared:
            return small
        lines[name] = small
        return {"$": name}

    bodies = [[*case, shrink(content)] for case, content in things.items()]
    heads = [["shared", name, small] for name, small in lines.items()]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{_text(line)}\n" for line in [*heads, *bodies]), encoding="utf-8")


def read_recording(path: Path) -> dict[tuple[str, str], Any]:
    """(case, what) -> content."""
    shared: dict[str, Any] = {}
    things: dict[tuple[str, str], Any] = {}

    def grow(value: Any) -> Any:
        if isinstance(value, list):
            return [grow(part) for part in value]
        if isinstance(value, dict):
            if list(value) == ["$"]:
                return shared[value["$"]]
            return {name: grow(part) for name, part in value.items()}
        return value

    for line in path.read_text(encoding="utf-8").splitlines():
        case, what, content = json.loads(line)
        if case == "shared":
            shared[what] = grow(content)
        else:
            things[case, what] = grow(content)
    return things


def _parts(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


class Recording:
    """What was recorded of one command; or what is recorded now, in its stead.

    Args:
        name: of the file in ``data/golden``.
        tolerance: of floats, relative.
    """

    def __init__(self, name: str, tolerance: float = TOLERANCE) -> None:
        self.tolerance = tolerance
        self.path = RECORDINGS / f"{name}.jsonl"
        self.known = {} if RECORDS == "all" else read_recording(self.path)
        self.found: dict[tuple[str, str], Any] = {}

    def check(self, case: str, found: dict[str, Any]) -> None:
        """Compare all that is found of a case: what -> content."""
        known = {what: content for (c, what), content in self.known.items() if c == case}
        if RECORDS and not known:
            self.found |= {(case, what): content for what, content in found.items()}
            return
        assert known, f"nothing was recorded of {case!r}"
        for content in (part for part in (found, *found.values()) if isinstance(part, dict)):
            if "npz" in content:
                content["json"] |= REPLACED
            for part in content.keys() & ADDED:
                new = ADDED[part]
                content[part] = {n: v for n, v in content[part].items() if n not in new}
        assert list(known) == list(found), "which rows and words there are"
        if RECORDS:  # rows and arrays are held to what was recorded
            known |= {what: content for what, content in found.items() if isinstance(content, list)}
            self.found |= {(case, what): content for what, content in known.items()}
        wrong = [
            line
            for what in known
            for line in differences(known[what], found[what], self.tolerance, what)
        ]
        assert not wrong, "\n".join(wrong)

    def finish(self) -> None:
        """Write what was recorded."""
        if self.found:
            write_recording(self.path, {**self.known, **self.found})


def run_in(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run commands in a folder, so that no path that is told or stored is of this machine."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("COLUMNS", "100")
    for name in ("FEATURES", "RESULTS", "RUNS", "DATA"):
        monkeypatch.setenv(f"MEDPROBE_{name}", name.lower())


def clear(*folders: Path) -> None:
    """Leave nothing of an earlier case."""
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)
