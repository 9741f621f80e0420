"""The most confident wrong answers of one contender, and what its training images say of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cache.errors import BrokenCache, RequestError
from cache.task import MISSING, MULTI_LABEL, REGRESSION, SEGMENTATION
from probe.arrays import Array, Doubles, Indices, Ints, Texts
from probe.metrics.classification import MARGIN, THRESHOLD, predict
from probe.report.findings.attended import Attended, Attention
from probe.report.findings.division import places_of
from probe.report.findings.looks import middle_rows
from probe.report.findings.nearest import (
    Learnt,
    Neighbour,
    find_learnt,
    find_nearest,
)
from probe.report.rows.contenders import Contender
from probe.report.rows.people import People, Unfound
from probe.report.rows.stored import StoredRow

if TYPE_CHECKING:
    from cache.features import Features  # h5py takes a while

TEST, VAL, TRAIN = SPLITS = ("test", "val", "train")
MOST, NEAREST = 24, 3
OUT_OF_FOLD = ", out of fold"
MIDDLE = "Of samples with several rows, such as slices, the middle one is shown"
ATTENDED = (
    "of test samples with several rows the one with the largest attention is shown, of others the "
    "middle one; attention sums to 1 over a sample's rows"
)


@dataclass(frozen=True)
class Answered:
    """What rows of one fold answered to n samples, the mean of trainings or episodes."""

    of: StoredRow
    arrays: dict[str, Array]
    ids: Texts  # (n,)
    labels: Ints  # (n,), of several labels (n, C)
    scores: Doubles  # (n, C)
    split: str  # in words
    attention: Attention | None = None  # to the rows of test's samples

    @property
    def class_names(self) -> tuple[str, ...]:
        return tuple(map(str, self.arrays.get("class_names", range(self.scores.shape[-1]))))


@dataclass(frozen=True)
class Sample:
    """A sample as a gallery shows it."""

    id: str
    split: (
        str  # TRAIN, VAL or TEST; of a split that was laid over the file, and folds of it, in words
    )
    patient: str  # "": nobody knows
    row: int | None  # of ``features``, whose thumbnail stands for it; None: there is none
    features: Features | None
    neighbours: tuple[Neighbour, ...]  # training images, the nearest first
    learnt: Learnt | None  # whose images the neighbours are
    attended: Attended | None = None  # why this row, where attention says which one decided


@dataclass(frozen=True)
class Wrong:
    """A wrong answer."""

    sample: Sample
    truth: str  # the class; of several labels "no edema"
    answer: str
    confidence: float  # the score of the answer
    fold: str = ""


@dataclass(frozen=True)
class WrongAnswers:
    """The most confident wrong answers, the first first."""

    contender: Contender
    split: str  # in words
    n: int  # answers: samples, of several labels the known ones
    n_wrong: int
    shown: tuple[Wrong, ...]
    is_margin: bool  # confidence is a margin, no probability
    k: int  # neighbours
    learnt: str  # where they were looked for
    notes: tuple[str, ...]


def find_wrong(
    contender: Contender,
    people: People,
    *,
    split: str = TEST,
    most: int = MOST,
    k: int = NEAREST,
) -> WrongAnswers:
    """The wrong answers of one contender.

    Of several trainings or episodes the mean of their scores answers, of folds each its own test.

    Args:
        contender: one row, or those of its folds or trainings.
        people: that knows the feature files.
        split: TEST, VAL, or TRAIN where it was scored out of fold.
        most: that are shown.
        k: nearest training images of each.

    Raises:
        RequestError: rows of numbers, of patients, or without these scores.
    """
    parts = list(answers_of(contender, split))
    task, score_type = parts[0].of.row.encoded.task, parts[0].of.row.answered.score_type
    found: list[tuple[float, int, int, int]] = []  # confidence, part, sample, label or 0
    n = 0
    for number, part in enumerate(parts):
        answer = predict(part.scores, task, score_type)
        if task == MULTI_LABEL:
            confidence = 2 * THRESHOLD[score_type] - part.scores
            confidence = np.where(answer == 1, part.scores, confidence)
            is_wrong = (answer != part.labels) & (part.labels != MISSING)
            n += int((part.labels != MISSING).sum())
        else:
            confidence = np.take_along_axis(part.scores, answer[:, None], axis=1)
            is_wrong = (answer != part.labels)[:, None]
            n += len(answer)
        found += [
            (float(confidence[i, c]), number, i, c) for i, c in np.argwhere(is_wrong).tolist()
        ]
    found.sort(key=lambda of: (-of[0], of[1:]))
    shown = found[:most]
    looks = Looks(people, k)
    samples = looks.of(parts, [(number, i) for _, number, i, _ in shown])
    wrong = []
    for (confidence, number, i, c), sample in zip(shown, samples, strict=True):
        part = parts[number]
        truth, answer = _words(part, i, c, task, score_type)
        wrong.append(Wrong(sample, truth, answer, confidence, part.of.row.posed.fold))
    return WrongAnswers(
        contender,
        parts[0].split,
        n,
        len(found),
        tuple(wrong),
        score_type == MARGIN,
        k,
        looks.learnt,
        (*looks.notes, *said_of(contender)),
    )


def _words(part: Answered, i: int, c: int, task: str, score_type: str) -> tuple[str, str]:
    """The true class and the answered one."""
    names = part.class_names
    if task == MULTI_LABEL:
        has, lacks = names[c], f"no {names[c]}"
        return (has, lacks) if part.labels[i, c] else (lacks, has)
    answer = int(predict(part.scores[i : i + 1], task, score_type)[0])
    return names[int(part.labels[i])], names[answer]


def said_of(contender: Contender) -> list[str]:
    """What answers where there are several rows or episodes, and what a reader of its rows must know."""
    first, said = contender.first.row.answered, []
    if first.shots:
        said.append("the mean of all episodes' scores answers; each learnt from some of train only")
    if len({of.row.answered.training_seed for of in contender.rows}) > 1:
        said.append("the mean of all trainings' scores answers")
    return [*said, *contender.marks]


def answers_of(contender: Contender, split: str) -> Iterator[Answered]:
    """What a contender answered, a part for each of its folds.

    Raises:
        RequestError: rows of numbers, of patients, or without these scores.
    """
    if why := why_not(contender):
        raise RequestError(f"{contender.first.path or contender.first.row.encoded.label} {why}")
    folds = dict.fromkeys(of.row.posed.fold for of in contender.rows)
    for fold in folds:
        yield _joined([of for of in contender.rows if of.row.posed.fold == fold], split)


def why_not(contender: Contender) -> str:
    """Why no answers of a contender can be shown, in words; "": they can."""
    row = contender.first.row
    if row.encoded.task == REGRESSION:
        return (
            "predicts numbers, which are never right or wrong; `report table --metric mae` says how "
            "far off they are"
        )
    if row.encoded.task == SEGMENTATION:
        return "predicts masks: `report maps FILE --images wrong` shows those with the lowest Dice"
    if row.answered.settings.get("scores_of") == "patients":
        return (
            "measures patients, who have several images; name a row that was asked without "
            "--aggregate patient"
        )
    return ""


def _joined(rows: Sequence[StoredRow], split: str) -> Answered:
    first, scores, each = rows[0], [], []
    for of in rows:
        arrays = dict(of.scores())
        each.append(arrays)
        if not len(arrays.get(f"{split}_ids", ())):
            raise RequestError(_why_none(of, arrays, split))
        if not np.array_equal(arrays[f"{split}_ids"], first.scores()[f"{split}_ids"]):
            raise RequestError(
                f"{of.path}: its {split} samples are other than those of {first.path}"
            )
        found = np.asarray(arrays[f"{split}_scores"], np.float64)
        scores.append(found.mean(axis=0) if found.ndim == 3 else found)
    said = split
    if split == VAL and "folds" in first.row.answered.settings:
        said = f"train and val{OUT_OF_FOLD}"
    elif split == TRAIN:
        said = f"train{OUT_OF_FOLD}"
    mean = scores[0] if len(scores) == 1 else np.mean(scores, axis=0)
    attention = Attention.of(each) if split == TEST else None
    ids, labels = arrays[f"{split}_ids"], arrays[f"{split}_labels"]
    return Answered(first, arrays, ids, labels, mean, said, attention)


def _why_none(of: StoredRow, arrays: dict[str, Array], split: str) -> str:
    name, settings = of.path or of.row.encoded.label, of.row.answered.settings
    there = [s for s in SPLITS if len(arrays.get(f"{s}_ids", ()))]
    if split == TRAIN and "folds" in settings and VAL in there:
        return f"{name} has train in its val scores, out of fold: --split {VAL}"
    cure = f"it has --split {there[0]}" if there else "ask again with --all-test"
    if split == TRAIN:
        cure += "; `probe --choose cv` scores train out of fold, too"
    return f"{name} has no scores of {split}; {cure}"


class Looks:
    """Pictures, patients and neighbours of samples; what lacks is said once."""

    def __init__(self, people: People, k: int) -> None:
        self.people, self.k = people, k
        self.learnt = ""
        self._notes: dict[str, None] = {}

    @property
    def notes(self) -> list[str]:
        return [note for note in self._notes if note != MIDDLE or ATTENDED not in self._notes]

    def of(self, parts: Sequence[Answered], chosen: Sequence[tuple[int, int]]) -> list[Sample]:
        """Some samples: each the number of its part, and its place there."""
        found: dict[tuple[int, int], Sample] = {}
        for number, part in enumerate(parts):
            places = list(dict.fromkeys(i for of, i in chosen if of == number))
            if places:
                samples = self._samples(part, np.array(places))
                found |= {(number, i): s for i, s in zip(places, samples, strict=True)}
        return [found[which] for which in chosen]

    def _samples(self, part: Answered, places: Indices) -> list[Sample]:
        ids = part.ids[places]
        features = self._file(part)
        learnt, neighbours = self._neighbours(part, features, ids)
        rows: list[int | None] = [None] * len(ids)
        attended: Sequence[Attended | None] = [None] * len(ids)
        patients, splits = [""] * len(ids), [part.split.removesuffix(OUT_OF_FOLD)] * len(ids)
        if features is not None:
            own = places_of(features, ids)
            found = part.attention and part.attention.largest(features, own)
            attended = found or attended
            if features.thumbnails is not None:
                rows = [at.row for at in found] if found else [*middle_rows(features, own)]
            if not features.rows_are_samples:
                self._notes[ATTENDED if found else MIDDLE] = None
            if features.groups is not None:
                patients = [str(name) for name in features.groups[own]]
            if not part.of.row.posed.split:
                splits = [str(name) for name in features.split[own]]
        return [
            Sample(str(i), split, patient, row, features, near, learnt, at)
            for i, split, patient, row, near, at in zip(
                ids, splits, patients, rows, neighbours, attended, strict=True
            )
        ]

    def _file(self, part: Answered) -> Features | None:
        """Where the samples' thumbnails are: of the row's own encoder, if it is there."""
        trained, row = part.of.row.posed.trained_on, part.of.row
        try:
            if trained and part.split != TEST:
                features = find_learnt(part.of, part.arrays, self.people).features
            else:
                features = self.people.file_of(row)
            places_of(features, part.ids)
            features.check_thumbnails()
        except Unfound as error:
            self._notes[f"no pictures and patients: {error}"] = None
            return None
        except (RequestError, BrokenCache) as error:
            self._notes[f"no pictures: {error}"] = None
            return None
        if features.thumbnails is None:
            self._notes[
                f"no pictures: {features.path.name} has no thumbnails; make it anew with "
                f"`{features.header.cure}`"
            ] = None
        return features

    def _neighbours(
        self, part: Answered, features: Features | None, ids: Texts
    ) -> tuple[Learnt | None, list[tuple[Neighbour, ...]]]:
        if features is None or not self.k:
            return None, [()] * len(ids)
        try:
            learnt = find_learnt(part.of, part.arrays, self.people)
            row = part.of.row
            if not row.posed.trained_on:
                features = learnt.features  # pictures may be of another encoder's file
            elif part.split == TEST and features.digest != row.encoded.digest:
                raise RequestError(f"the features of {row.encoded.dataset} that it read are gone")
            found = find_nearest(learnt, features, ids, self.k)
            learnt.features.check_thumbnails()
        except (RequestError, BrokenCache) as error:
            self._notes[f"no neighbours: {error}"] = None
            return None, [()] * len(ids)
        self.learnt = self.learnt or learnt.describe()
        return learnt, found
