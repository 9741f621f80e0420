"""Which images of token files are shown, and the rows whose answers lie over them."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cache.commands.names import counted, near_names
from cache.errors import RequestError
from cache.task import REGRESSION, SEGMENTATION
from probe.arrays import Array, Doubles
from probe.metrics.overlap import IMAGES, IMAGES_PIXELS, sample_dice
from probe.report.findings.headline import chosen_one
from probe.report.findings.looks import middle_rows
from probe.report.findings.wrong import find_wrong, why_not
from probe.report.maps.asked import WRONG, AskedOfMaps
from probe.report.maps.given import Given
from probe.report.rows.contenders import contenders_of
from probe.report.rows.fields import usual_metric
from probe.report.rows.stored import StoredRow

if TYPE_CHECKING:
    from cache.features import Features

TOLD = 6  # ids of a command


@dataclass(frozen=True)
class Image:
    """A row of token files that is shown."""

    id: str
    lines: tuple[str, ...] = ()  # what is said of it


@dataclass(frozen=True)
class Chosen:
    """The images, and how they were chosen."""

    images: tuple[Image, ...]
    how: str  # "6 of 78 test images, drawn with seed 0"
    notes: tuple[str, ...] = ()


def row_ids(features: Features) -> Array:
    """(N,) the rows' own ids."""
    from cache.format.read import read_table  # h5py takes a while

    return read_table(features.header, "rows/ids")


def choose_images(asked: AskedOfMaps, given: Given) -> Chosen:
    """The images that are asked for.

    Args:
        asked: which.
        given: files of one data set, in each of which an image must be; and rows whose wrong answers
            may be shown.

    Raises:
        RequestError: they aren't there; the message has the command that makes them.
    """
    files = given.files
    own = [row_ids(features) for features in files]
    common = [str(name) for name in own[0] if all(name in set(ids) for ids in map(set, own[1:]))]
    if not common:
        names = " and ".join(features.path.name for features in files)
        raise RequestError(f"no image is in all of {names}; extract the same images of each")
    if asked.chosen_by == WRONG:
        return _wrong(asked, given, set(common))
    if asked.ids:
        return _named(asked, files, set(common))
    return _random(asked, files[0], set(common))


def _named(asked: AskedOfMaps, files: Sequence[Features], common: set[str]) -> Chosen:
    of_samples = _shown_rows(files[0])
    found = {name: name if name in common else of_samples.get(name, "") for name in asked.ids}
    lacking = [name for name, row in found.items() if row not in common]
    if lacking:
        lacks = next((f for f in files if not {*lacking} <= {*row_ids(f).tolist()}), files[0])
        near = near_names(lacking[0], sorted(common), "")
        raise RequestError(
            f"{lacks.path.name} has no image {', '.join(lacking[:TOLD])}{f'; {near}' if near else ''}; "
            f"this makes a small file of them, to name by path:\n  {command(lacks, lacking)}"
        )
    return Chosen(tuple(Image(row) for row in found.values()), counted(len(found), "named image"))


def _random(asked: AskedOfMaps, features: Features, common: set[str]) -> Chosen:
    """One row each of samples that are drawn."""
    of_samples = _shown_rows(features)
    split = dict(zip(features.ids.tolist(), features.split.tolist(), strict=True))
    pool = [name for name, row in of_samples.items() if row in common]
    of_split = [name for name in pool if split[name] == asked.split]
    notes = ()
    if not of_split:
        notes = (f"{features.path.name} has no {asked.split} images; these are of any split",)
        of_split, what = pool, "image"
    else:
        what = f"{asked.split} image"
    rng = np.random.default_rng(asked.seed)
    n = min(asked.n, len(of_split))
    places = np.sort(rng.permutation(len(of_split))[:n])
    how = f"{n} of {counted(len(of_split), what)}"
    how = f"{how}, drawn with seed {asked.seed}" if n < len(of_split) else counted(n, what)
    return Chosen(tuple(Image(of_samples[of_split[i]]) for i in places), how, notes)


def _shown_rows(features: Features) -> dict[str, str]:
    """The id of each sample -> that of the row that stands for it: of a volume the middle one."""
    names = row_ids(features)
    rows = middle_rows(features, np.arange(len(features.ids)))
    return {str(s): str(names[row]) for s, row in zip(features.ids, rows, strict=True)}


# ---------------------------------------------------------------------------- wrong answers


def _wrong(asked: AskedOfMaps, given: Given, common: set[str]) -> Chosen:
    features, rows = given.files[0], given.rows
    of_masks = masked(rows) if given.is_named else segmentations(rows, features)
    if of_masks := [of for of in of_masks if of.row.measured.test]:
        return _worst(asked, features, common, best_of(of_masks))
    can = [
        c
        for c in contenders_of([of for of in rows if is_of(of, features)])
        if c.first.row.measured.test
        and c.first.row.encoded.task not in (REGRESSION, SEGMENTATION)
        and not why_not(c)
    ]
    if not can:
        raise RequestError(
            f"no stored row of {features.label} on {features.dataset} has wrong answers on test: make "
            f"one with `probe --kind linear --data {features.dataset}`, or name it by --row FILE"
        )
    one = (can[0], "") if len(can) == 1 else chosen_one(can, usual_metric([c.first for c in can]))
    if one is None:
        raise RequestError(
            f"{len(can)} rows of {features.label} on {features.dataset} have wrong answers, and none was "
            f"chosen without test; name one, as in --row {can[0].first.path}"
        )
    found = find_wrong(one[0], given.people, most=len(features.ids) + 10**6, k=0)
    of_samples, answers = _shown_rows(features), {}
    for wrong in found.shown:
        words = (f"labelled {wrong.truth}", f"answered {wrong.answer}")
        answers.setdefault(wrong.sample.id, (*words, f"{wrong.confidence:.2f}"))
    there = [name for name in answers if of_samples.get(name) in common]
    if answers and not there:
        raise RequestError(
            f"{features.path.name} has none of the {len(answers)} images that were answered wrongly; this "
            f"makes a small file of the surest, to name by path:\n  {command(features, [*answers][: asked.n])}"
        )
    if not answers:
        raise RequestError(f"no answer of {one[0].first.path} is wrong")
    images = tuple(Image(of_samples[name], answers[name]) for name in there[: asked.n])
    how = f"the surest {len(images)} of {found.n_wrong} wrong answers of {said_of(one[0].first)}"
    lost = len(answers) - len(there)
    notes = (f"{lost} more wrong answers are of images that aren't in the file",) if lost else ()
    return Chosen(images, how, notes)


def _worst(asked: AskedOfMaps, features: Features, common: set[str], of: StoredRow) -> Chosen:
    arrays = of.scores()
    if IMAGES in arrays and len(arrays[IMAGES]) == len(arrays.get("masks_ids", ())):
        ids, scores, labels = arrays["masks_ids"], arrays[IMAGES], arrays[IMAGES_PIXELS]
    else:
        ids, labels = arrays["test_ids"], arrays["test_labels"]
        scores = arrays["test_scores"]
        of_samples = _shown_rows(features)
        ids = np.array([of_samples.get(str(name), str(name)) for name in ids])
    scores = scores.mean(axis=0) if scores.ndim == 3 else scores
    dice: Doubles = sample_dice(scores, labels)
    has = (dice >= 0).any(axis=1)
    mean = np.full(len(dice), np.nan)
    mean[has] = np.nanmean(dice[has], axis=1)
    order = [i for i in np.argsort(mean, kind="stable").tolist() if not np.isnan(mean[i])]
    there = [i for i in order if str(ids[i]) in common]
    if not there:
        names = [str(ids[i]) for i in order[: asked.n]]
        raise RequestError(
            f"{features.path.name} has none of the {len(order)} test images of {of.path}; this makes a "
            f"small file of the worst:\n  {command(features, names)}"
        )
    images = tuple(Image(str(ids[i]), (f"Dice {mean[i]:.2f}",)) for i in there[: asked.n])
    how = f"the {len(images)} of {len(order)} test images with the smallest Dice by {said_of(of)}"
    return Chosen(images, how)


# ---------------------------------------------------------------------------- rows


def is_of(of: StoredRow, features: Features) -> bool:
    """Whether a row is of a token file's encoder, size and data set."""
    e = of.row.encoded
    here = (features.model, features.size)
    return e.dataset == features.dataset and any((p.model, p.size) == here for p in e.parts)


def segmentations(rows: Sequence[StoredRow], features: Features) -> list[StoredRow]:
    """Rows of masks of a token file's encoder, of this very file where there are some."""
    found = [of for of in masked(rows) if is_of(of, features)]
    return [of for of in found if of.row.encoded.digest == features.digest] or found


def masked(rows: Sequence[StoredRow]) -> list[StoredRow]:
    """Rows of masks."""
    return [of for of in rows if of.row.encoded.task == SEGMENTATION]


def best_of(rows: Sequence[StoredRow]) -> StoredRow:
    """The best by Dice on val of those that keep masks of test; of several the first."""

    def merit(of: StoredRow) -> tuple[bool, float]:
        keeps = bool(of.row.measured.test) and of.row.answered.shots is None
        return keeps, of.row.measured.val.get("dice", -1.0)

    return max(rows, key=merit)


def said_of(of: StoredRow) -> str:
    """A row in a few words."""
    settings = of.row.answered.settings
    layer = (
        f", layer\N{NO-BREAK SPACE}{settings['layer']}"
        if isinstance(settings.get("layer"), int)
        else ""
    )
    head = f", {settings['head']}" if isinstance(settings.get("head"), str) else ""
    return f"{of.row.answered.kind}{head}{layer}"


def command(features: Features, ids: Sequence[str] = (), layers: Sequence[int] = ()) -> str:
    """The command that makes a token file of these images, or layers: the file's own, but for them."""
    typed = features.header.command
    if typed[0] != "extract":  # of an exported file
        about = (
            "--model",
            features.model,
            "--data",
            features.dataset,
            "--size",
            str(features.size),
        )
        typed = ["extract", *about]
    words, kept = iter(typed), []
    for word in words:
        flag, equals, _ = word.partition("=")
        if flag in ("--tokens", "--ids"):
            if not equals:
                next(words, None)
        elif flag != "--no-pictures":
            kept.append(word)
    wish = ",".join(map(str, layers or features.layers))
    named = ["--ids", ",".join(ids)] if ids else []
    return shlex.join([*kept, f"--tokens={wish}", *named])
