"""Control rows: what the same labels give without a trained encoder.

A number is worth what it is above these. Three are asked for with ``--controls``:

- larger class: every test image gets the classes' shares in train, of a regression their mean. Its
  accuracy is that of always naming the larger class; its AUC is 0.5.
- pixels: mean, standard deviation and a histogram of each small grey picture, with the linear probe
  (ridge, of a regression). What it reaches is brightness and contrast: a scanner's, or a finding's.
- random weights: the same question to an encoder that nobody trained, from a feature file of the
  same images. Architecture and pooling alone are worth something, too.
"""

import math
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.errors import CacheError, RequestError
from cache.features import Features, open_features
from cache.format.key import file_stem, key_digest, untagged
from cache.places import features_root
from probe.answer import Answer
from probe.arrays import Singles
from probe.choosing.plan import ChoosingConfig
from probe.episodes.prior import class_shares
from probe.kinds.kind import Problem
from probe.kinds.linear import Linear
from probe.kinds.ridge import Ridge
from probe.metrics.classification import known_shares
from probe.questions.question import Question, Split, divide
from probe.results import Encoded
from probe.row import samples_of, tables_of
from probe.solvers.standardise import chunks

KIND = "control"
LARGER_CLASS, PIXELS = "larger class", "pixels"  # in the place of a model's name
N_BINS = (
    16  # of grey values 0..255, each 16 wide: fewer blur a window's edge, more are rarely filled
)
CHUNK_ROWS = 4096  # pictures that are in work at one time


def pixel_statistics(pictures: NDArray[np.uint8]) -> Singles:
    """Mean, standard deviation and histogram of each picture.

    Args:
        pictures: (N, P) grey values; may be a memmap.

    Returns:
        (N, 2 + N_BINS): mean and standard deviation in grey values, then shares that sum to 1.
    """
    found = np.empty((len(pictures), 2 + N_BINS), np.float32)
    for rows in chunks(len(pictures), CHUNK_ROWS):
        block = np.asarray(pictures[rows])
        found[rows, 0], found[rows, 1] = block.mean(axis=1), block.std(axis=1)
        bins = block // (256 // N_BINS) + N_BINS * np.arange(len(block))[:, None]
        counts = np.bincount(bins.ravel(), minlength=N_BINS * len(block))
        found[rows, 2:] = counts.reshape(-1, N_BINS) / block.shape[1]
    return found


def answer_controls(
    question: Question, choosing: ChoosingConfig, aggregate: str
) -> Iterator[tuple[str, dict[str, Split], Answer]]:
    """The two controls that need no encoder.

    Args:
        question: labels and splits, of which train and test have images.
        choosing: how candidates are compared.
        aggregate: what a volume's slices become.

    Yields:
        LARGER_CLASS or PIXELS, the splits, and the answer.

    Raises:
        RequestError: a file has no small pictures; after the first control.
    """
    splits = divide(question, lambda one: np.empty((len(one.labels), 0), np.float32))
    yield LARGER_CLASS, splits, _larger_class(question, splits)
    splits = divide(question, lambda one: _read_pixels(one.features, aggregate))
    # Its own defaults, whatever is asked of the encoder.
    kind = Ridge() if question.task.is_continuous else Linear()
    for answer in kind.answer(Problem(question, (), splits, choosing)):
        yield PIXELS, splits, replace(answer, settings={"bins": N_BINS, **answer.settings})


def encoded_control(question: Question, control: str) -> Encoded:
    """What a control's row says in the place of an encoder: the same for every encoder's file."""
    features = question.features
    key = {name: features.key.get(name) for name in ("dataset", "images", "source_size")}
    side = 0
    if control == PIXELS and features.thumbnails is not None:
        side = math.isqrt(features.thumbnails.shape[1])
    key |= {"control": control, "side": side}
    return Encoded(
        control,
        "none",
        side,
        features.dataset,
        question.task.word,
        key_digest(key),
        key,
        samples_of(question),
        tables_of(features),
        seen="no",
    )


def _larger_class(question: Question, splits: dict[str, Split]) -> Answer:
    labels, task = splits["train"].y, question.task
    if task.is_continuous:
        shares = np.array([labels.mean()])
    else:
        shares = known_shares(labels) if task.has_several_labels else class_shares(labels, task)
    scores = {name: np.tile(shares, (len(splits[name]), 1)) for name in ("val", "test")}
    return Answer({}, {}, scores, [])


def _read_pixels(features: Features, aggregate: str) -> Singles:
    """(S, 2 + N_BINS) statistics of every sample; of several pictures their mean, or maximum.

    Raises:
        RequestError: the file has no pictures.
    """
    pictures = features.thumbnails
    if pictures is None:
        raise RequestError(
            f"{features.path.name} holds no small pictures, so there is no control by pixels; make "
            f"it anew with\n  {features.header.cure} --overwrite"
        )
    return features.by_sample(pixel_statistics(pictures), aggregate)


def find_random(features: Features, root: Path) -> Features | None:
    """The finished file of the same images and architecture with random weights, if there is one.

    It is looked for beside the other, and where ``advise_random`` has it made. Of several seeds the
    lowest.

    Args:
        features: of the encoder with its own weights.
        root: the folder of features.
    """
    folders = dict.fromkeys([features.path.parent, root / file_stem(features.dataset)])
    found: list[Features] = []
    for path in (path for folder in folders for path in sorted(folder.glob("*.h5"))):
        try:
            other = open_features(path)
        except (CacheError, OSError):
            continue  # `cache verify` tells of it
        is_random = not other.is_text and other.notes.get("random_weights")
        if is_random and _but_for_weights(other.key) == _but_for_weights(features.key):
            found.append(other)
    return min(found, key=lambda other: str(other.key["weights"]), default=None)


def _but_for_weights(key: Mapping[str, Any]) -> dict[str, Any]:
    """What a key says of all but the weights, whose tag stands behind the encoder's name."""
    return {**key, "encoder": untagged(str(key.get("encoder", ""))), "weights": None}


def advise_random(features: Features, root: Path) -> str:
    """What a user can do where ``find_random`` finds nothing: the command that makes the file."""
    missing = f"no features of {features.model} with random weights on {features.dataset}; "
    if str(features.key.get("weights", "")).startswith("made by code"):
        return (
            missing + "its own code makes its weights: offer random ones there, as another --model"
        )
    words = features.header.command
    for flag in ("--weights", "--features"):
        if flag in words:
            place = words.index(flag)
            del words[place : place + 2]
    words += ["--weights", "random"]
    words += [] if root == features_root() else ["--features", str(root)]
    return f"{missing}make them with\n  {shlex.join(words)}"
