"""External validation: fit on one data set, choose on its val, test on another."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.catalogue import Wish, find_features
from cache.errors import RequestError
from cache.features import Features, open_features
from cache.format.key import key_differences
from cache.splits.make import LEFT_OUT, TEST, split_digest
from cache.splits.rules import Drawn
from probe.questions.question import Question

OF_DATA = ("dataset", "images", "source_size", "slices")  # parts of a key that aren't the encoder's


def choose_training(
    train_data: str, test: Features, folder: Path, where: Mapping[str, str]
) -> Features:
    """The features to fit on: of the training data, and of the encoder that made the test features.

    Args:
        train_data: the data set's name, or a feature file.
        test: the features to test on.
        folder: where features are looked for.
        where: parts of the key that are asked for.

    Raises:
        CacheError: there are none.
        RequestError: several fit, or they were made another way.
    """
    if train_data.endswith(".h5"):
        train = open_features(train_data)
    else:
        wish = Wish((test.label,), (test.size,), (train_data,), where, test.is_tokens)
        (train, *_), _ = find_features(folder, wish)
    if train.dataset == test.dataset or train.key.get("images", 0) == test.key.get("images", 1):
        raise RequestError(
            f"{train_data} and {test.dataset} are the same images; leave out --train-data, "
            "and --split divides them anew"
        )
    keys = [of_encoder(a.key, b.key) for a, b in ((train, test), (test, train))]
    if differences := key_differences(*keys):
        raise RequestError(
            f"{train.path.name} of {train.dataset} and {test.path.name} of {test.dataset} were made "
            f"in different ways ({'; '.join(differences)}); extract one of them as the other"
        )
    return train


def of_encoder(key: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """The parts of a key that the other must share."""
    parts = {part: value for part, value in key.items() if part not in OF_DATA}
    if reading := parts.pop("reading", None):
        # Arrays aren't decoded, and how many files couldn't be is the data's own.
        parts["reading"] = {
            name: value
            for name, value in reading.items()
            if "reading" in other and name != "skipped"
        }
    return parts


def only_test(question: Question, train: Question, which: str | None) -> Question:
    """The samples to test on, as the classes of the training data.

    Args:
        question: the test data.
        train: the training data.
        which: "test": its test split; "all": every sample; None: test, but all where its split was
            drawn because its owner has none, and so sets nothing apart.

    Raises:
        RequestError: another task, other classes, or no test samples.
    """
    labels = _as_classes_of(train, question)
    split, drawn = question.split, Drawn.read(question.features.notes)
    if which is None:
        which = "all" if drawn else "test"
    if which == "all":
        split = np.where(split == LEFT_OUT, LEFT_OUT, TEST)
    split = np.where(split == TEST, TEST, LEFT_OUT).astype(np.uint8)
    if not (split == TEST).any():
        raise RequestError(
            f"{question.dataset} has no test split; --test-split all takes every sample of it"
        )
    n, n_known = int((split == TEST).sum()), int((question.split != LEFT_OUT).sum())
    of = question.dataset if drawn is None else f"{question.dataset}, whose split was only drawn"
    if which == "test":
        tested = f"tested on the test split of {of}: {n:_} of {n_known:_} samples"
    else:
        tested = f"tested on all {n:_} samples of {of}"
    digest = f"sha256:{split_digest(question.features.ids, split)}"
    return dataclasses.replace(
        question,
        labels=labels,
        task=train.task,
        split=split,
        samples={**question.samples, "split": digest},
        division={"rule": f"external:{which}", "name": "", "digest": digest},
        trained_on=train,
        marks=(
            *dict.fromkeys((*question.marks, f"trained on {train.title}", tested, *train.marks)),
        ),
    )


def _as_classes_of(train: Question, test: Question) -> NDArray[np.number]:
    """The test labels in the training data's order of classes, matched by name."""
    ours, theirs = train.task, test.task
    if (ours.word, sorted(ours.class_names)) != (theirs.word, sorted(theirs.class_names)):
        raise RequestError(
            f"{train.dataset} is {ours.word} ({', '.join(ours.class_names)}) and {test.dataset} "
            f"{theirs.word} ({', '.join(theirs.class_names)}); classes must have the same names: "
            "--labels FILE names them anew, --target chooses one that both have"
        )
    places = [theirs.class_names.index(name) for name in ours.class_names]
    if test.labels.ndim == 2:
        return test.labels[:, places]
    if test.labels.dtype.kind == "f":
        return test.labels
    number = np.argsort(places)  # of each test class among the training classes
    return np.where(test.labels >= 0, number[test.labels], test.labels)
