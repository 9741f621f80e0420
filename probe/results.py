"""Result rows: one JSON file a run, written atomically, named by the digest of the question.

The same question asked twice is one row. Per-sample scores stand beside the row in an ``.npz``
without pickles, so that later questions (paired tests, subgroups, calibration) need no rerun.

A row holds the SHA-256 of all that it says, and of its scores, whose file is named by that: so a
row and its scores belong together whoever else writes the same row, and whenever one is killed.

Long because what a row says, its JSON and its two files are one format, which changes as a whole.
"""

import contextlib
import json
import math
import re
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from functools import cache, cached_property
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from cache.commands.terminal import complain
from cache.errors import RequestError
from cache.files import NewFile, locked, open_regular, stream_sha256, write_whole
from cache.format.key import file_stem, key_digest
from cache.places import results_root
from probe.arrays import Array
from probe.cost import UNKNOWN, Cost
from probe.folds import asked_of_all
from probe.ledger import Reading, add_line, ledger_path, utc
from probe.metrics.classification import PROBABILITY
from probe.metrics.intervals import Interval
from probe.metrics.measure import Measured
from probe.row_schema import check_row
from probe.solvers.head import Head, head_of

# 1: without checksums, scores in {stem}.npz. 2: without weights. Both are read as they are; see ROW.md.
ROW_VERSION = 3
CHECKSUM = "sha256"  # of the row's canonical JSON, but for this entry
SCORES = "scores_sha256"  # of the file of scores, whose name holds the first digits of it
N_DIGITS = 16
LONGEST = 120  # letters of the model in a row's name: a file system takes 255 in all
PATIENTS, IDS, ROWS = "patients", "ids", "images of a sample"  # of Encoded.tables
SHOTS_ARE_PATIENTS = "shots are patients, with all their images"  # a mark
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
    "per_size": {},
    "temperature": None,
    "score_type": "probability",
    "episodes": {},
    "probe_protocol": {},
    "cost": {},  # nobody knows
}


NO_ROW = "no row of probe or finetune"


def rows_of(number: int) -> str:
    """What says in ``samples`` which rows make a sample of a feature file, as ``Place.file`` counts."""
    return f"rows {number + 1}" if number else "rows"


class BrokenRow(ValueError):
    """A file that holds no row, or another than was written; the message has no path."""


class NewerRow(BrokenRow):
    """A whole row that a later medprobe wrote."""


@dataclass(frozen=True)
class Part:
    """One of the encoders that a row saw side by side."""

    model: str
    label: str
    encoder: str
    size: int
    digest: str  # of the key
    key: Mapping[str, Any]  # of its feature file


@dataclass(frozen=True)
class Encoded:
    """Which encoder's features of which samples a row is of; of controls what stands in its place."""

    model: str
    encoder: str  # its full name
    size: int  # of its input, in pixels
    dataset: str
    task: str
    digest: str  # of the key
    key: Mapping[str, Any]  # of the feature file
    samples: Mapping[str, int | str]  # checksums or digests: "labels", "split", at times "rows"
    tables: Mapping[str, int | None] = field(default_factory=dict)  # see probe.row.tables_of
    own_label: str = ""  # the name beside others of its architecture, where a row holds one
    seen: str = "unknown"  # whether the encoder saw these images before: "yes: ...", "no"
    protocol: str = ""  # whose preprocessing this is, e.g. "wu2025"; empty: the encoder's own
    marks: tuple[str, ...] = ()  # what a reader must know of it; a stored row has all in one list
    joined: tuple[Part, ...] = ()  # several encoders side by side, in the order of ``Place.file``

    @property
    def label(self) -> str:
        """The encoder's name beside others of its architecture; see ``cache.commands.names``."""
        return self.own_label or self.model

    @property
    def parts(self) -> "tuple[Encoded | Part, ...]":
        """The encoders side by side; of one itself."""
        return self.joined or (self,)


@dataclass(frozen=True)
class TrainedOn:
    """External validation: what was fitted and chosen on."""

    dataset: str
    digest: str  # of the feature key
    samples: Mapping[str, int | str]
    tables: Mapping[str, int | None]
    target: Mapping[str, Any]
    split: Mapping[str, Any]


@dataclass(frozen=True)
class Posed:
    """Which labels and split a row is of, and what its splits share."""

    # Labels that are laid over the stored ones: file, target, uncertain, task, labels' digest.
    target: Mapping[str, Any] = field(default_factory=dict)
    # A split that is: rule, seed, file, name (e.g. "fold 2/5"), of (how many), digest.
    split: Mapping[str, Any] = field(default_factory=dict)
    trained_on: TrainedOn | None = None
    # What the splits share, as cache.leaks.Leaks.summary() counts it; None: nobody knows.
    leaks: Mapping[str, int | None] | None = None

    @property
    def fold(self) -> str:
        """The fold's or site's name, where a rule makes several splits."""
        return str(self.split.get("name", ""))

    @property
    def target_words(self) -> str:
        """Which labels were laid over the stored ones; "" where none were."""
        words = [self.target.get(name) for name in ("file", "target", "uncertain")]
        return ", ".join(str(word) for word in words if word)

    @property
    def split_words(self) -> str:
        """Which split was laid over the stored one; "" where none was."""
        return str(self.split.get("file") or self.split.get("rule") or "")


@dataclass(frozen=True)
class Answered:
    """What was asked of the features, and what val, folds or a training made of it."""

    settings: Mapping[str, Any]  # every setting that changes the numbers
    chosen: Mapping[str, Any] = field(default_factory=dict)  # what val, or folds, decided
    # Whose probe this is: name, as_published, changed by flags, differs.
    protocol: Mapping[str, Any] = field(default_factory=dict)
    score_type: str = PROBABILITY  # see probe.metrics.classification; of regression "prediction", of masks "overlap"

    @property
    def kind(self) -> str:
        return str(self.settings["kind"])

    @property
    def shots(self) -> int | None:
        """Of few-shot episodes; None: all of train was learnt from."""
        return self.settings["few_shot"]["shots"] if "few_shot" in self.settings else None

    @property
    def training_seed(self) -> int | None:
        return self.settings.get("training_seed")


class Source(NamedTuple):
    """A feature file that a row's probe read."""

    encoder: str
    key: Mapping[str, Any]
    digest: str  # of the key: by it the file is found, wherever it lies
    places: tuple[Mapping[str, Any], ...]  # layer, pool, and how many blocks side by side


@dataclass(frozen=True)
class Row:
    """One answer: one feature file, kind, layer, pool, k and seed."""

    encoded: Encoded
    posed: Posed
    answered: Answered
    measured: Measured
    seed: int  # of the bootstrap
    n: Mapping[str, int]  # samples of each split
    seconds: float
    versions: Mapping[str, str]
    marks: tuple[str, ...] = ()  # what a reader of the numbers must know
    scores: Mapping[str, Array] = field(default_factory=dict)  # for the .npz
    cost: Cost = UNKNOWN

    @property
    def sources(self) -> tuple[Source, ...]:
        """The feature files that were read: one, or one of each encoder side by side."""
        names = ("layer", "pool", "n_last")
        place = {n: self.answered.settings[n] for n in names if n in self.answered.settings}
        places = self.answered.settings.get("places", [place])
        parts = self.encoded.parts
        return tuple(
            Source(p.encoder, p.key, p.digest, tuple(at for at in places if at.get("file", 0) == i))
            for i, p in enumerate(parts)
        )

    @property
    def digest(self) -> str:
        """SHA-256 of the question: feature key, task, labels and splits, probe, seed.

        Labels and splits are not in the feature key, so that a corrected label costs no forward
        pass; but it makes another question of the same features.
        """
        return key_digest(self._asked(dict(self.encoded.samples)))

    @cached_property
    def question(self) -> str:
        """As ``digest``, but the same for all folds, or sites, of one rule, and all seeds of a
        training.
        """
        asked = self._asked(self._samples_of_all)
        if self.posed.fold:
            asked["probe"] = asked_of_all(asked["probe"])
        asked["probe"].pop("training_seed", None)
        return key_digest(asked)

    @property
    def test_set(self) -> str:
        """SHA-256 of what was tested on: the data set, its samples, their labels and the split.

        The same for all folds, or sites, of one rule: together they are one test set.
        """
        samples, e = self._samples_of_all, self.encoded
        divided = {name: samples.get(name) for name in ("labels", "split")}
        return key_digest({"dataset": e.dataset, **divided, "ids": e.tables.get("ids")})

    @property
    def _samples_of_all(self) -> dict[str, Any]:
        """What makes labels and split another question, for all folds of one rule."""
        samples: dict[str, Any] = dict(self.encoded.samples)
        if self.posed.fold:
            samples["split"] = {name: self.posed.split[name] for name in ("rule", "seed")}
        return samples

    def _asked(self, samples: Mapping[str, Any]) -> dict[str, Any]:
        asked: dict[str, Any] = {"features": self.encoded.digest, "task": self.encoded.task}
        if train := self.posed.trained_on:
            asked["trained_on"] = [train.digest, train.samples]
        settings = dict(self.answered.settings)
        return {**asked, "samples": samples, "probe": settings, "seed": self.seed}

    def path(self, root: Path) -> Path:
        """``root/{dataset}/{model}_{size}_{kind}_{digest}.json``."""
        e, kind = self.encoded, file_stem(self.answered.kind)
        name = f"{file_stem(e.model)[:LONGEST]}_{e.size}_{kind}_{self.digest[:16]}.json"
        return root / file_stem(e.dataset) / name


def as_json(row: Row) -> dict[str, Any]:
    """What a row says, as plain JSON values; scores are a file of their own."""
    e, posed, answered, m = row.encoded, row.posed, row.answered, row.measured
    content = {
        "features": {
            "model": e.model,
            **({"label": e.own_label} if e.own_label else {}),
            "encoder": e.encoder,
            "size": e.size,
            "dataset": e.dataset,
            "task": e.task,
            "digest": e.digest,
            "key": e.key,
            "samples": e.samples,
            "tables": e.tables,
            **({"joined": [asdict(part) for part in e.joined]} if e.joined else {}),
        },
        "probe": answered.settings,
        "seed": row.seed,
        "metrics": {name: interval._asdict() for name, interval in m.test.items()},
        "val_metrics": m.val,
        "n": row.n,
        "seconds": row.seconds,
        "versions": row.versions,
        "marks": row.marks,
        "seen": e.seen,
        "target": posed.target,
        "split": posed.split,
        "trained_on": asdict(posed.trained_on) if posed.trained_on else {},
        "leaks": posed.leaks,
        "without_twins": m.without_twins,
        "intervals": m.intervals,
        "per_class": m.per_class,
        **({"per_size": m.per_size} if m.per_size else {}),
        "temperature": m.temperature,
        "episodes": m.episodes,
        "score_type": answered.score_type,
        "protocol": e.protocol,
        "probe_protocol": answered.protocol,
        "chosen": answered.chosen,
        "cost": asdict(row.cost),
    }
    measured = ("metrics", "val_metrics", "without_twins", "per_class", "per_size", "episodes")
    for name in content.keys() & measured:
        content[name] = _without_nan(content[name])
    content |= {"row_version": ROW_VERSION, "id": row.digest}
    return json.loads(json.dumps(content, allow_nan=False))


def from_json(content: Mapping[str, Any]) -> Row:
    """What ``read_row`` gives, as the row that was written; scores stay on disk."""
    features, train = content["features"], content["trained_on"]
    return Row(
        Encoded(
            encoder=features.get("encoder", ""),
            **{name: features[name] for name in ("model", "size", "dataset", "task", "digest")},
            key=features.get("key", {}),
            samples=features["samples"],
            tables=features.get("tables", {}),
            own_label=features.get("label", ""),
            seen=content["seen"],
            protocol=content["protocol"],
            joined=tuple(Part(**part) for part in features.get("joined", ())),
        ),
        Posed(
            content["target"],
            content["split"],
            TrainedOn(**{"tables": {}, "target": {}, "split": {}, **train}) if train else None,
            content["leaks"],
        ),
        Answered(
            content["probe"], content["chosen"], content["probe_protocol"], content["score_type"]
        ),
        Measured(
            _numbers(content["val_metrics"]),
            {
                name: Interval(*(_number(of[end]) for end in Interval._fields))
                for name, of in content["metrics"].items()
            },
            intervals=content["intervals"],
            per_class=content["per_class"],
            temperature=content["temperature"],
            episodes={
                name: [_number(value) for value in each]
                for name, each in content["episodes"].items()
            },
            without_twins=_numbers(content["without_twins"]),
            per_size=content.get("per_size", {}),
        ),
        content["seed"],
        content["n"],
        content["seconds"],
        content["versions"],
        tuple(content["marks"]),
        cost=Cost(**{f.name: content["cost"].get(f.name) for f in fields(Cost)}),
    )


def _without_nan(value: Any) -> Any:
    """JSON has no NaN: a number that is undefined is null."""
    if isinstance(value, Mapping):
        return {name: _without_nan(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(each) for each in value]
    if isinstance(value, float):
        return float(value) if np.isfinite(value) else None
    return value


def _numbers(values: Mapping[str, Any]) -> dict[str, float]:
    return {name: _number(value) for name, value in values.items()}


def _number(value: Any) -> float:
    """JSON's null is a metric that is undefined; a count stays whole."""
    return math.nan if value is None else value


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
    content = as_json(row)
    path = row.path(root)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # One writer at a time: else a tag is lost, or the scores that another row still needs.
        with locked(path.parent):
            _note_reading(root, row)
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


def reading_of(row: Row, time: str) -> Reading:
    """The line of the ledger for a row that read test."""
    e, posed = row.encoded, row.posed
    return Reading(
        *(time, row.test_set, row.question, row.digest),
        *(e.dataset, e.label, row.answered.kind, posed.target_words, posed.split_words),
    )


def _note_reading(root: Path, row: Row) -> None:
    """Write into the ledger that test was read, even if the row can't be written thereafter."""
    if row.measured.test:
        # A row is worth more than its line, and is counted without it for as long as it is there.
        try:
            add_line(root, reading_of(row, utc()))
        except OSError as error:
            _complain_of_ledger(root, error.strerror or str(error))


@cache
def _complain_of_ledger(root: Path, why: str) -> None:
    """Once for all rows of a run."""
    complain("results", f"{ledger_path(root)} can't be written ({why}); rows are kept without it")


def read_row(path: Path) -> dict[str, Any]:
    """A stored row as plain JSON values; fields that earlier versions didn't know are added.

    Raises:
        OSError: there is no such file, or it can't be read.
        BrokenRow: it holds no row, or another one than was written.
        NewerRow: a later medprobe wrote it.
    """
    with open_regular(path) as file:
        text = file.read()
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BrokenRow(f"{NO_ROW} ({type(error).__name__})") from error
    if not isinstance(content, dict) or not isinstance(content.get("probe"), dict):
        raise BrokenRow(NO_ROW)
    version = content.get("row_version")
    if (version != 1 or CHECKSUM in content) and content.get(CHECKSUM) != _checksum(content):
        raise BrokenRow("changed since it was written: its checksum is of other content")
    if version not in range(1, ROW_VERSION + 1):
        is_newer = isinstance(version, int) and version > ROW_VERSION
        raise (NewerRow if is_newer else BrokenRow)(
            f"a row of version {version}, where this medprobe reads {ROW_VERSION}"
        )
    row = {**ADDED_LATER, **content}
    try:
        check_row(row)
    except (ValueError, RecursionError) as error:
        raise BrokenRow(f"{NO_ROW} ({error})") from error
    return row


def read_scores(path: Path, row: Mapping[str, Any]) -> dict[str, Array]:
    """The per-sample scores that belong to a row.

    Args:
        path: of the row.
        row: as ``read_row`` gave it.

    Raises:
        OSError: there is no such file, or it can't be read.
        BrokenRow: they aren't those that were written with the row.
    """
    place = scores_path(path, row)
    with _open_scores(path, row) as file:
        try:
            with np.load(file, allow_pickle=False) as arrays:
                return {name: arrays[name] for name in arrays.files}
        except OSError:
            raise
        # Broad: readers of damaged files raise anything, TokenError to MemoryError.
        except Exception as error:
            raise BrokenRow(f"{place} is damaged ({type(error).__name__})") from error


def load_head(row: str | Path | Row, root: Path | None = None) -> Head:
    """The classifier of a row, for new features.

        head = load_head("results/breastmnist/dinov2_224_linear_538d92308c594f0d.json")
        scores = head.scores(open_features("new.h5").array(11, "cls"))  # at head.places

    Args:
        row: its JSON file, or the row itself.
        root: the folder of results that holds the row itself; None: the usual one.

    Raises:
        OSError: there is no such file, or it can't be read.
        BrokenRow: it, or its scores, are damaged.
        RequestError: it keeps no weights.
    """
    path = row.path(root or results_root()) if isinstance(row, Row) else Path(row)
    content = read_row(path)
    head = find_head(path, content)
    if head is None:
        raise RequestError(
            f"{path} keeps no weights; rows of one linear, ridge, adamw or heads model do, since "
            "row_version 3, where they read test; of folds and episodes with --keep-heads"
        )
    return head


def find_head(path: Path, row: Mapping[str, Any]) -> Head | None:
    """The classifier of a row, as ``read_row`` gave it; None where it keeps no weights.

    Raises:
        OSError, BrokenRow: as ``read_scores``.
    """
    arrays = read_scores(path, row)
    try:
        return head_of(arrays)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        why = type(error).__name__ if not isinstance(error, ValueError) else str(error)
        raise BrokenRow(f"what {path} keeps is no head ({why})") from error


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
    wanted, place = row.get(SCORES), scores_path(path, row)
    with open_regular(place) as file:
        if wanted is not None and stream_sha256(file) != wanted:
            raise BrokenRow(f"{place} holds other scores than the row was written with")
        file.seek(0)
        yield file


def scores_path(path: Path, row: Mapping[str, Any]) -> Path:
    """The file of a row's scores, whether it is there or not.

    Args:
        path: of the row.
        row: as ``read_row`` gave it.

    Raises:
        BrokenRow: its checksum is none.
    """
    wanted = row.get(SCORES)
    return path.with_suffix(".npz") if wanted is None else _path_of(path, str(wanted))


def _checksum(content: Mapping[str, Any]) -> str:
    try:
        return key_digest({name: value for name, value in content.items() if name != CHECKSUM})
    except ValueError:  # a NaN
        return ""


def _path_of(path: Path, sha256: str) -> Path:
    if not re.fullmatch("[0-9a-f]{64}", sha256):
        raise BrokenRow(f"{SCORES} should be 64 hex digits, found {sha256[:N_DIGITS]!r}")
    return path.with_name(f"{path.stem}.{sha256[:N_DIGITS]}.npz")


def _write_scores(path: Path, scores: Mapping[str, Array]) -> str:
    """Write the scores of the row at ``path``; returns the SHA-256 of their file."""
    new = NewFile(path.with_suffix(".npz"))
    try:
        np.savez(new.file, **scores)  # type: ignore[arg-type]
        new.file.seek(0)
        sha256 = stream_sha256(new.file)
        new.finish(_path_of(path, sha256))
    finally:
        new.discard()
    return sha256


def delete_row(path: Path, row: Mapping[str, Any]) -> bool:
    """Delete a row and its scores.

    Args:
        path: its file.
        row: as ``read_row`` gave it. One that was asked again since then stays.

    Returns:
        Whether it was deleted; a file that is gone already was.

    Raises:
        OSError: the folder can't be written.
        BrokenRow: its checksum of scores is none.
    """
    with locked(path.parent):
        try:
            if read_row(path).get(CHECKSUM) != row.get(CHECKSUM):
                return False
        except FileNotFoundError:
            pass
        except BrokenRow:
            return False
        path.unlink(missing_ok=True)  # first: whoever sees a row finds its scores
        scores_path(path, row).unlink(missing_ok=True)
    return True


def _remove_other_scores(path: Path, sha256: str) -> None:
    """Delete the scores of rows that this one has replaced, or that a kill kept from being."""
    ours = re.compile(re.escape(path.stem) + rf"(\.[0-9a-f]{{{N_DIGITS}}})?\.npz")
    for other in path.parent.iterdir():
        if ours.fullmatch(other.name) and other != _path_of(path, sha256):
            with contextlib.suppress(OSError):
                other.unlink()


def _earlier_names(path: Path) -> list[str]:
    try:
        return read_row(path).get("names", [])
    except (OSError, BrokenRow):
        return []  # no row yet, or no longer one: it is replaced
