"""Control rows: what the same labels give without a trained encoder.

A number is worth what it is above these. Three are asked for with ``--controls``:

- larger class: every test image gets the classes' shares in train, of a regression their mean. Its
  accuracy is that of always naming the larger class; its AUC is 0.5.
- pixels: mean, standard deviation and a histogram of each small grey picture, with the linear probe
  (ridge, of a regression). What it reaches is brightness and contrast: a scanner's, or a finding's.
- random weights: the same question to an encoder that nobody trained, from a feature file of the
  same images. Architecture and pooling alone are worth something, too.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.aggregate import aggregate_rows
from cache.errors import RequestError
from cache.features import Features
from cache.labels import REGRESSION
from probe.answers import Answer, ask_linear, ask_ridge
from probe.config import ProbeConfig
from probe.features import Split, divide_samples, rows_are_samples
from probe.linear import LinearConfig
from probe.metrics import MULTI_LABEL, known_shares
from probe.overlay import Asked
from probe.ridge import RidgeConfig

LARGER_CLASS, PIXELS = "control: larger class", "control: pixels"
N_BINS = 16  # of grey values 0..255, each 16 wide: fewer blur a window's edge, more are rarely filled
CHUNK_ROWS = 4096  # pictures that are in work at one time


def pixel_statistics(pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Mean, standard deviation and histogram of each picture.

    Args:
        pictures: (N, P) grey values; may be a memmap.

    Returns:
        (N, 2 + N_BINS): mean and standard deviation in grey values, then shares that sum to 1.
    """
    found = np.empty((len(pictures), 2 + N_BINS), np.float32)
    for start in range(0, len(pictures), CHUNK_ROWS):
        block = np.asarray(pictures[start : start + CHUNK_ROWS])
        rows = slice(start, start + len(block))
        found[rows, 0], found[rows, 1] = block.mean(axis=1), block.std(axis=1)
        bins = block // (256 // N_BINS) + N_BINS * np.arange(len(block))[:, None]
        counts = np.bincount(bins.ravel(), minlength=N_BINS * len(block))
        found[rows, 2:] = counts.reshape(-1, N_BINS) / block.shape[1]
    return found


def ask_controls(
    config: ProbeConfig, asked: Asked
) -> Iterator[tuple[dict[str, Split], str, Answer]]:
    """The two controls that need no encoder.

    Args:
        config: the question; how candidates are chosen is taken from it.
        asked: labels and splits.

    Yields:
        The splits, what the row names as its kind, and the answer.

    Raises:
        RequestError: a split has no images, or the file has no pictures; after the first control.
    """
    splits = _divide(config, asked, np.empty((len(asked.labels), 0), np.float32))
    yield splits, LARGER_CLASS, _larger_class(asked, splits)
    fitted_on = asked.trained_on or asked
    splits = _divide(config, asked, _pixels(config, asked.features))
    if asked.trained_on:
        own = divide_samples(_pixels(config, fitted_on.features), fitted_on)
        splits = {**own, "test": splits["test"]}
    # Its own defaults, whatever kind is asked beside it.
    plain = dataclasses.replace(
        config, kind="linear", linear=LinearConfig(), ridge=RidgeConfig(), estimator=None, layer=-1, pools=()
    )
    ask = ask_ridge if asked.task == REGRESSION else ask_linear
    for settings, chosen, scores, marks in ask(plain, asked, splits):
        settings = {"n_bins": N_BINS, **settings}
        yield splits, PIXELS, (settings, chosen, scores, marks)


def _larger_class(asked: Asked, splits: dict[str, Split]) -> Answer:
    labels, n_classes = splits["train"].y, len(asked.class_names)
    if asked.task == REGRESSION:
        shares = np.array([labels.mean()])
    elif asked.task == MULTI_LABEL:
        shares = known_shares(labels)
    else:
        shares = np.bincount(labels, minlength=n_classes) / len(labels)
    scores = {name: np.tile(shares, (len(splits[name]), 1)) for name in ("val", "test")}
    return {}, {}, scores, []
