"""Result rows: one JSON file a run, written atomically, named by the digest of the question.

The same question asked twice is one row. Per-sample scores stand beside the row in an ``.npz``
without pickles, so that later questions (paired tests, subgroups, calibration) need no rerun.
"""

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.errors import RequestError
from cache.files import write_whole
from cache.key import file_stem, key_digest
from probe.intervals import Interval

ROW_VERSION = 1
ADDED_LATER: dict[str, Any] = {  # what rows without these fields mean by that
    "seen": "unknown",
    "protocol": "",
    "target": {},
    "split": {},
    "trained_on": {},
    "leaks": None,
    "without_twins": {},
    "intervals": {},  # all by the bootstrap of samples
    "per_class": {},
    "temperature": None,
    "score_type": "probability",
    "episodes": {},
    "probe_protocol": {},
}


@dataclass(frozen=True)
class Row:
    """One answer: one feature file, kind, layer, pool, k and seed."""

    # model, encoder, size, dataset, task, digest, key, samples, tables (see comparable.tables_of)
    features: Mapping[str, Any]
    probe: Mapping[str, Any]  # every setting that changes the numbers
    seed: int
    metrics: Mapping[str, Interval]  # on test; empty where test wasn't read
    val_metrics: Mapping[str, float]  # where folds decided: out of fold, over train and val
    n: Mapping[str, int]  # samples of each split
    seconds: float
    versions: Mapping[str, str]
    marks: tuple[str, ...] = ()  # what a reader of the numbers must know
    seen: str = "unknown"  # whether the encoder saw these images before: "yes: ...", "no"
    # Labels that are laid over the stored ones: file, target, uncertain, task, labels' digest.
    target: Mapping[str, Any] = field(default_factory=dict)
    # A split that is: rule, seed, file, name (e.g. "fold 2/5"), digest.
    split: Mapping[str, Any] = field(default_factory=dict)
    # External validation, what was fitted and chosen on: dataset, digest, samples, target, split.
    trained_on: Mapping[str, Any] = field(default_factory=dict)
    # What the splits share, as cache.leaks.Leaks.summary() counts it; None: nobody knows.
    leaks: Mapping[str, int | None] | None = None
    # n and every metric of the test samples that have no twin; empty where all have none.
    without_twins: Mapping[str, float] = field(default_factory=dict)
    # How each metric's interval was made: name -> "wilson", "delong"..., see probe/intervals.py.
    intervals: Mapping[str, str] = field(default_factory=dict)
    # Lists over classes, on test: class, n, recall, auc...; see probe/per_class.py.
    per_class: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    temperature: float | None = None  # fitted on val, of ece_tempered
    # Few-shot: name -> each episode's metric; metrics holds their means. See episode_metrics.py.
    episodes: Mapping[str, Sequence[float]] = field(default_factory=dict)
    score_type: str = "probability"  # or see probe.metrics; of regression "prediction"
    protocol: str = ""  # whose preprocessing this is, e.g. "wu2025"; empty: the encoder's own
    # Whose probe this is: name, as_published, changed by flags, differs. Settings are in probe.
    probe_protocol: Mapping[str, Any] = field(default_factory=dict)
    chosen: Mapping[str, Any] = field(default_factory=dict)  # what val, or folds, decided
    scores: Mapping[str, NDArray[Any]] = field(default_factory=dict)  # for the .npz

    @property
    def digest(self) -> str:
        """SHA-256 of the question: feature key, task, labels and splits, probe, seed.

        Labels and splits are not in the feature key, so that a corrected label costs no forward
        pass; but it makes another question of the same features.
        """
        return key_digest(self._asked(dict(self.features["samples"])))

    @property
    def question(self) -> str:
        """As ``digest``, but the same for all folds, or sites, of one rule, and all seeds of a
        training.
        """
        samples = dict(self.features["samples"])
        if self.split.get("name"):
            samples["split"] = {name: self.split[name] for name in ("rule", "seed")}
        asked = self._asked(samples)
        asked["probe"].pop("training_seed", None)
        if self.split.get("name") and "few_shot" in asked["probe"]:
            # Each fold has a train, and so episodes, of its own.
            drawn = {"digest", "images"}
            few = asked["probe"]["few_shot"].items()
            asked["probe"]["few_shot"] = {name: v for name, v in few if name not in drawn}
        return key_digest(asked)

    def _asked(self, samples: Mapping[str, Any]) -> dict[str, Any]:
        asked = {"features": self.features["digest"], "task": self.features["task"]}
        if self.trained_on:
            asked["trained_on"] = [self.trained_on[name] for name in ("digest", "samples")]
        return {**asked, "samples": samples, "probe": dict(self.probe), "seed": self.seed}

    def path(self, root: Path) -> Path:
        """``root/{dataset}/{model}_{size}_{kind}_{digest}.json``."""
        f, kind = self.features, file_stem(self.probe["kind"])
        name = f"{file_stem(f['model'])}_{f['size']}_{kind}_{self.digest[:16]}.json"
        return root / file_stem(f["dataset"]) / name


def check_folder(root: Path) -> None:
    """Make the folder of results; whether it can be written is known before the work is done.

    Raises:
        RequestError: it can't.
    """
    try:
        root.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=root).close()
    except OSError as error:
        raise RequestError(
            f"can't write results to {root} ({error.strerror}); choose another place with "
            "--results DIR"
        ) from error


def write_row(root: Path, row: Row, name: str = "") -> Path:
    """Store a row and its scores; an earlier row of the same question is replaced.

    Args:
        root: the folder of results.
        row: the answer.
        name: a tag to add; tags of an earlier row stay.

    Raises:
        OSError: the folder can't be written.
    """
    path = row.path(root)
    path.parent.mkdir(parents=True, exist_ok=True)
    names = sorted({*_earlier_names(path), *([name] if name else [])})
    content = asdict(row)
    scores = content.pop("scores")
    content["metrics"] = {
        metric: {end: _json_number(v) for end, v in zip(Interval._fields, interval, strict=True)}
        for metric, interval in row.metrics.items()
    }
    content["val_metrics"] = {m: _json_number(v) for m, v in row.val_metrics.items()}
    content["without_twins"] = {
        m: v if isinstance(v, int) else _json_number(v) for m, v in row.without_twins.items()
    }
    content["per_class"] = {
        name: [_json_number(v) if isinstance(v, float) else v for v in values]
        for name, values in row.per_class.items()
    }
    content["episodes"] = {
        metric: [_json_number(v) for v in values] for metric, values in row.episodes.items()
    }
    content |= {"row_version": ROW_VERSION, "id": row.digest, "names": names}
    # Scores first: whoever sees a row finds its scores beside it.
    _write(path.with_suffix(".npz"), lambda file: np.savez(file, **scores))
    text = json.dumps(content, indent=1, allow_nan=False) + "\n"
    _write(path, lambda file: file.write(text.encode()))
    return path


def read_row(path: Path) -> dict[str, Any]:
    """A stored row as plain JSON values; fields that earlier versions didn't know are added."""
    return {**ADDED_LATER, **json.loads(path.read_text())}


def _earlier_names(path: Path) -> list[str]:
    try:
        names = read_row(path)["names"]
    except (OSError, ValueError, KeyError, TypeError):
        return []  # no row yet, or no longer one: it is replaced
    return [str(name) for name in names] if isinstance(names, list) else []


def _json_number(value: float) -> float | None:
    """JSON has no NaN: a metric that is undefined is null."""
    return float(value) if np.isfinite(value) else None


def _write(path: Path, write: Any) -> None:
    """Write it whole, with what to do where that fails."""
    try:
        with write_whole(path) as file:
            write(file)
    except OSError as error:
        raise OSError(
            f"can't write {path}: {error.strerror}; free some space, or choose another folder "
            "with --results DIR"
        ) from error
