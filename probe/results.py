"""Result rows: one JSON file a run, written atomically, named by the digest of the question.

The same question asked twice is one row. Per-sample scores stand beside the row in an ``.npz``
without pickles, so that later questions (paired tests, subgroups, calibration) need no rerun.

A row holds the SHA-256 of all that it says, and of its scores, whose file is named by that: so a
row and its scores belong together whoever else writes the same row, and whenever one is killed.
"""

import contextlib
import json
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from cache.errors import RequestError
from cache.files import NewFile, locked, open_regular, stream_sha256, write_whole
from cache.format.key import file_stem, key_digest
from probe.folds import asked_of_all
from probe.metrics.intervals import Interval

ROW_VERSION = 2  # 1: without checksums, scores in {stem}.npz; those are read as they are
CHECKSUM = "sha256"  # of the row's canonical JSON, but for this entry
SCORES = "scores_sha256"  # of the file of scores, whose name holds the first digits of it
N_DIGITS = 16
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


class BrokenRow(ValueError):
    """A file that holds no row, or another than was written; the message has no path."""


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
    # A split that is: rule, seed, file, name (e.g. "fold 2/5"), of (how many), digest.
    split: Mapping[str, Any] = field(default_factory=dict)
    # External validation, what was fitted and chosen on: dataset, digest, samples, target, split.
    trained_on: Mapping[str, Any] = field(default_factory=dict)
    # What the splits share, as cache.leaks.Leaks.summary() counts it; None: nobody knows.
    leaks: Mapping[str, int | None] | None = None
    # n and every metric of the test samples that have no twin; empty where all have none.
    without_twins: Mapping[str, float] = field(default_factory=dict)
    # How each metric's interval was made: name -> "wilson", "delong"..., see probe/metrics/intervals.py.
    intervals: Mapping[str, str] = field(default_factory=dict)
    # Lists over classes, on test: class, n, recall, auc...; see probe/metrics/per_class.py.
    per_class: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    temperature: float | None = None  # fitted on val, of ece_tempered
    # Few-shot: name -> each episode's metric; metrics holds their means. See episode_metrics.py.
    episodes: Mapping[str, Sequence[float]] = field(default_factory=dict)
    score_type: str = (
        "probability"  # or see probe.metrics.classification; of regression "prediction"
    )
    protocol: str = ""  # whose preprocessing this is, e.g. "wu2025"; empty: the encoder's own
    # Whose probe this is: name, as_published, changed by flags, differs. Settings are in probe.
    probe_protocol: Mapping[str, Any] = field(default_factory=dict)
    chosen: Mapping[str, Any] = field(default_factory=dict)  # what val, or folds, decided
    scores: Mapping[str, NDArray[Any]] = field(default_factory=dict)  # for the .npz

    @property
    def label(self) -> str:
        """The encoder's name beside others of its architecture; see ``cache.commands.names``."""
        return str(self.features.get("label") or self.features["model"])

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
        if self.split.get("name"):
            asked["probe"] = asked_of_all(asked["probe"])
        asked["probe"].pop("training_seed", None)
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
    content = _as_json(row)
    path = row.path(root)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # One writer at a time: else a tag is lost, or the scores that another row still needs.
        with locked(path.parent):
            content["names"] = sorted({*_earlier_names(path), *([name] if name else [])})
            # Scores first: whoever sees a row finds its scores beside it.
            scores = _write_scores(path, row.scores)
            content[SCORES] = scores
            content[CHECKSUM] = _checksum(content)
            with write_whole(path) as file:
                file.write(f"{json.dumps(content, indent=1, allow_nan=False)}\n".encode())
            _remove_other_scores(path, scores)
    except OSError as error:
        raise OSError(
            f"can't write {path}: {error.strerror}; free some space, or choose another folder "
            "with --results DIR"
        ) from error
    return path


def _as_json(row: Row) -> dict[str, Any]:
    """What a row says, as plain JSON values."""
    content = asdict(row)
    del content["scores"]
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
    content |= {"row_version": ROW_VERSION, "id": row.digest}
    return json.loads(json.dumps(content, allow_nan=False))


def read_row(path: Path) -> dict[str, Any]:
    """A stored row as plain JSON values; fields that earlier versions didn't know are added.

    Raises:
        OSError: there is no such file, or it can't be read.
        BrokenRow: it holds no row, or another one than was written.
    """
    with open_regular(path) as file:
        text = file.read()
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BrokenRow(f"no row of probe or finetune ({type(error).__name__})") from error
    if not isinstance(content, dict) or not isinstance(content.get("probe"), dict):
        raise BrokenRow("no row of probe or finetune")
    version = content.get("row_version")
    if (version != 1 or CHECKSUM in content) and content.get(CHECKSUM) != _checksum(content):
        raise BrokenRow("changed since it was written: its checksum is of other content")
    if version not in (1, ROW_VERSION):
        raise BrokenRow(f"a row of version {version}, where this medprobe reads {ROW_VERSION}")
    return {**ADDED_LATER, **content}


def read_scores(path: Path, row: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
    """The per-sample scores that belong to a row.

    Args:
        path: of the row.
        row: as ``read_row`` gave it.

    Raises:
        OSError: there is no such file, or it can't be read.
        BrokenRow: they aren't those that were written with the row.
    """
    place = _place_of_scores(path, row)
    with _open_scores(path, row) as file:
        try:
            with np.load(file, allow_pickle=False) as arrays:
                return {name: arrays[name] for name in arrays.files}
        except OSError:
            raise
        # Broad: readers of damaged files raise anything, TokenError to MemoryError.
        except Exception as error:
            raise BrokenRow(f"{place} is damaged ({type(error).__name__})") from error


def check_scores(path: Path, row: Mapping[str, Any]) -> None:
    """Whether the scores of a row are there and whole; they aren't read into memory.

    Args:
        path: of the row.
        row: as ``read_row`` gave it. Of version 1, without checksum, the scores are read.

    Raises:
        OSError, BrokenRow: as ``read_scores``.
    """
    if row.get(SCORES) is None:
        read_scores(path, row)
        return
    with _open_scores(path, row):
        pass


@contextlib.contextmanager
def _open_scores(path: Path, row: Mapping[str, Any]) -> Iterator[IO[bytes]]:
    """The file of a row's scores, its checksum compared where the row has one."""
    wanted, place = row.get(SCORES), _place_of_scores(path, row)
    with open_regular(place) as file:
        if wanted is not None and stream_sha256(file) != wanted:
            raise BrokenRow(f"{place} holds other scores than the row was written with")
        file.seek(0)
        yield file


def _place_of_scores(path: Path, row: Mapping[str, Any]) -> Path:
    wanted = row.get(SCORES)
    return path.with_suffix(".npz") if wanted is None else _scores_path(path, str(wanted))


def _checksum(content: Mapping[str, Any]) -> str:
    try:
        return key_digest({name: value for name, value in content.items() if name != CHECKSUM})
    except ValueError:  # a NaN
        return ""


def _scores_path(path: Path, sha256: str) -> Path:
    if not re.fullmatch("[0-9a-f]{64}", sha256):
        raise BrokenRow(f"{SCORES} should be 64 hex digits, found {sha256[:N_DIGITS]!r}")
    return path.with_name(f"{path.stem}.{sha256[:N_DIGITS]}.npz")


def _write_scores(path: Path, scores: Mapping[str, NDArray[Any]]) -> str:
    """Write the scores of the row at ``path``; returns the SHA-256 of their file."""
    new = NewFile(path.with_suffix(".npz"))
    try:
        np.savez(new.file, **scores)  # type: ignore[arg-type]
        new.file.seek(0)
        sha256 = stream_sha256(new.file)
        new.finish(_scores_path(path, sha256))
    finally:
        new.discard()
    return sha256


def _remove_other_scores(path: Path, sha256: str) -> None:
    """Delete the scores of rows that this one has replaced, or that a kill kept from being."""
    ours = re.compile(re.escape(path.stem) + rf"(\.[0-9a-f]{{{N_DIGITS}}})?\.npz")
    for other in path.parent.iterdir():
        if ours.fullmatch(other.name) and other != _scores_path(path, sha256):
            with contextlib.suppress(OSError):
                other.unlink()


def _earlier_names(path: Path) -> list[str]:
    try:
        names = read_row(path)["names"]
    except (OSError, BrokenRow, KeyError):
        return []  # no row yet, or no longer one: it is replaced
    return [str(name) for name in names] if isinstance(names, list) else []


def _json_number(value: float) -> float | None:
    """JSON has no NaN: a metric that is undefined is null."""
    return float(value) if np.isfinite(value) else None
