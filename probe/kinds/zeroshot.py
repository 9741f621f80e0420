"""Zero-shot probe: no training image is used, each class is what a text encoder makes of prompts.

Radford et al. 2021 (https://arxiv.org/abs/2103.00020), section 3.1.4: a class vector is the mean
of its prompts' L2-normalised features, normalised again; an image's scores are the softmax over
classes of logit scale x cosine. The logit scale was learnt with the encoder; CLIP's ended at 100,
where its training clips it.

For several labels at once each label is a choice of two, the label or its negative ("no X").
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cache.commands.settings import setting
from cache.errors import RequestError
from cache.task import MULTI_CLASS, MULTI_LABEL
from probe.answer import Answer
from probe.arrays import Doubles, Floats, Ints
from probe.kinds.kind import Kind, Problem
from probe.metrics.classification import check_labels, check_task
from probe.places import Place
from probe.protocols import Reading
from probe.questions.question import Question
from probe.solvers.logistic import sigmoid, softmax
from probe.solvers.standardise import chunks

if TYPE_CHECKING:
    from cache.features import Features  # h5py: --help shouldn't wait for it

CHUNK_ROWS = 4096  # rows of features that are in work at one time


@dataclass(frozen=True)
class Zeroshot(Kind):
    """Each class is what a text encoder makes of prompts; no training image is used."""

    text: Path | None = setting(
        None,
        "text features of the same encoder and data set, where several fit",
        metavar="FILE",
        shown="the one beside the images",
    )

    name = "zeroshot"
    learns = False
    has_layers = False
    joins_encoders = False
    is_chosen = False
    refits = False
    pools = ("proj",)  # only that lies in one space with texts

    def check_places(self, layer: int | str, pools: tuple[str, ...]) -> None:
        if layer != -1:
            raise RequestError("--kind zeroshot has no choice of layers: proj belongs to the last")
        if pools not in ((), self.pools):
            raise RequestError(
                f"--kind zeroshot takes --pool proj, not {', '.join(pools)}: only proj lies in one "
                "space with texts"
            )

    def find_places(
        self, files: Sequence[Features], layer: int | str, pools: Sequence[str], reading: Reading
    ) -> list[tuple[Place, ...]]:
        (features,) = files
        if "proj" not in features.pools:
            raise RequestError(
                f"{features.path.name} has no proj, only {', '.join(features.pools)}: "
                f"{features.encoder} has no projection into a space that it shares with texts, as "
                "CLIP-like encoders have"
            )
        return super().find_places(files, layer, pools, reading)

    def answer(self, problem: Problem) -> Iterator[Answer]:
        """One answer, from the text file of these images; nothing is fitted, nothing chosen."""
        question, task = problem.question, problem.task
        text = self._find_text(question.features)
        prompts = read_prompts(text, question)
        vectors = class_vectors(prompts.x, prompts.y, prompts.n_classes)
        # The digest of the text's key: other prompts are another question.
        said = {"key": text.digest, "n_prompts": len(prompts.y)}
        yield Answer(
            {"text": {**said, "logit_scale": prompts.logit_scale}},
            {},
            {
                name: scores(problem.splits[name].x, vectors, prompts.logit_scale, task.word)
                for name in ("val", "test")
            },
            [],
        )

    def _find_text(self, features: Features) -> Features:
        """The text file that is named, or the one that belongs to these images.

        Raises:
            CacheError: there is none, or it can't be read.
            RequestError: several belong to them; or the named one doesn't.
        """
        from cache.catalogue import find_text, text_differences
        from cache.features import open_features

        if self.text is None:
            return find_text(features)
        text = open_features(self.text)
        if not text.is_text:
            raise RequestError(f"--text takes a text file, and {self.text} holds images")
        if differences := text_differences(features, text):
            raise RequestError(
                f"{self.text} doesn't belong to {features.path.name} ({'; '.join(differences)})"
            )
        return text


def n_text_classes(task: str, n_classes: int) -> int:
    """How many class vectors a task needs: with several labels at once, two for each."""
    return 2 * n_classes if task == MULTI_LABEL else n_classes


def class_vectors(prompts: Floats, labels: Ints, n_classes: int) -> Doubles:
    """Make one direction of all the prompts of a class.

    A prompt whose features are all zero has no direction and counts for nothing; a class that has
    no others keeps a vector of zeros.

    Args:
        prompts: (P, D) text features.
        labels: (P,) class of each prompt, in [0, n_classes).
        n_classes: C.

    Returns:
        (C, D) vectors of length 1, or 0.

    Raises:
        RequestError: labels out of range, a class without a prompt, or features that aren't
            finite.
    """
    check_labels(labels, MULTI_CLASS, n_classes)
    if prompts.ndim != 2 or len(prompts) != len(labels):
        raise RequestError(
            "prompts need (P, D) features and a class for each row, found features of shape "
            f"{prompts.shape} and {len(labels)} labels"
        )
    counts = np.bincount(labels, minlength=n_classes)
    if not counts.all():
        raise RequestError(f"class {int(np.argmin(counts))} of {n_classes} has no prompt")
    sums = np.zeros((n_classes, prompts.shape[1]))
    # add.at, not +=: a class that is named twice must count twice.
    np.add.at(sums, labels, _normalised(prompts, "prompt", 0))
    return _normalised(sums, "class", 0)  # the sum points where the mean does


def scores(features: Floats, vectors: Doubles, logit_scale: float, task: str) -> Doubles:
    """Score every image by its cosine with the class vectors, in float64.

    An image whose features are all zero resembles nothing: its cosines are 0, as in kNN, and its
    classes equally likely.

    Args:
        features: (Q, D) image features; may be a float16 memmap.
        vectors: (C, D) from ``class_vectors``; (2C, D) for the multi-label task: the labels, then
            their negatives.
        logit_scale: what the cosines are multiplied by; the exponential of the learnt parameter.
        task: one of ``cache.task.CLASSIFICATION``.

    Returns:
        (Q, C) probabilities. Rows sum to 1, except for the multi-label task, where each column is
        the probability of a label against its negative.

    Raises:
        RequestError: widths that differ, features that aren't finite, or a logit scale that isn't
            a positive number.
    """
    check_task(task)
    if features.ndim != 2 or features.shape[1] != vectors.shape[1]:
        raise RequestError(
            f"texts have {vectors.shape[1]} features, found images of shape {features.shape}: "
            "both must come from one encoder's projection"
        )
    if not (math.isfinite(logit_scale) and logit_scale > 0):
        raise RequestError(f"the logit scale is positive and finite, found {logit_scale}")
    n_classes = len(vectors) // 2 if task == MULTI_LABEL else len(vectors)
    results = np.empty((len(features), n_classes))
    for rows in chunks(len(features), CHUNK_ROWS):
        block = _normalised(features[rows], "image", rows.start)
        logits = logit_scale * (block @ vectors.T)  # (q, C) or (q, 2C)
        if task == MULTI_LABEL:  # a softmax over two is a sigmoid of their difference
            logits = logits[:, :n_classes] - logits[:, n_classes:]
            results[rows] = sigmoid(logits)
        else:
            results[rows] = softmax(logits, 1)
    return results


def _normalised(rows: Floats, name: str, first: int) -> Doubles:
    """Rows of length 1, in float64; a row of zeros stays one."""
    wide = np.asarray(rows, dtype=np.float64)
    finite = np.isfinite(wide).all(axis=1)
    if not finite.all():
        raise RequestError(
            f"features are finite, found inf or nan in {name} {first + int(np.argmin(finite))}"
        )
    lengths = np.linalg.norm(wide, axis=1, keepdims=True)
    return wide / np.where(lengths > 0, lengths, 1)


@dataclass(frozen=True)
class Prompts:
    """What a text encoder made of every class. P prompts."""

    x: Floats  # (P, D)
    y: NDArray[np.int64]  # (P,) class number
    n_classes: int  # 2C for the multi-label task: the labels, then their negatives
    logit_scale: float  # already exponentiated


def read_prompts(text: Features, images: Question) -> Prompts:
    """The prompts of a text file, for the classes of an image file.

    Raises:
        RequestError: the classes aren't the same, or there is no logit scale.
        BrokenCache: the stored rows don't match their checksums.
    """
    names = images.task.class_names
    n_classes = n_text_classes(images.task.word, len(names))
    if tuple(text.class_names[: len(names)]) != names or len(text.class_names) != n_classes:
        negatives = ", then their negatives" if n_classes > len(names) else ""
        raise RequestError(
            f"{text.path.name} should have prompts for {', '.join(names)}{negatives}; found "
            f"{', '.join(text.class_names)}: make it anew for {images.dataset}"
        )
    scale = text.notes.get("logit_scale")
    if not isinstance(scale, int | float):
        raise RequestError(
            f"{text.path.name} should have a number as its note logit_scale, found {scale!r}"
        )
    return Prompts(text.array(-1, "proj"), text.labels, n_classes, float(scale))
