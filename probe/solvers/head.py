"""The classifier of a row: one linear head, on features as they are."""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from cache.aggregate import AGGREGATES
from cache.errors import RequestError
from cache.task import BINARY, TASKS, Task
from probe.arrays import Array, Doubles, Floats
from probe.metrics.classification import MARGIN
from probe.places import Place, place_of
from probe.solvers.episodes import Heads
from probe.solvers.logistic import normalised, sigmoid, softmax
from probe.solvers.standardise import Standard, Standardising, chunks, of_one_length

# From logits to scores: over all outputs, each by itself, each by itself and then divided by their
# sum (one class against the rest), or as they are: ridge's of classes, and predicted numbers.
SOFTMAX, SIGMOID, OVR, IDENTITY = "softmax", "sigmoid", "ovr", "identity"
LINKS = (SOFTMAX, SIGMOID, OVR, MARGIN, IDENTITY)
WEIGHTS, INTERCEPT, ABOUT = "head_weights", "head_intercept", "head"  # in a row's .npz
MAX_BYTES = 2**24  # of the weights that a row keeps: 16 MiB


@dataclass(frozen=True)
class Head:
    """Weights and what their outputs mean. D features, O outputs, C classes.

    Of few-shot episodes it is E heads at once: every array, and every score, has E in front.

    Two classes that share one output have scores of -z and z. Classes or labels without weights,
    of which train has no image or nothing else, have the same score in every image.
    """

    weights: Floats  # (D, O); of a row's file float32
    intercept: Floats  # (O,); of a row's file float64
    link: str  # one of LINKS
    task: Task
    columns: tuple[int, ...] = ()  # (O,) the class of each output; (): 0 to C - 1
    constant: tuple[float, ...] = ()  # (C,) scores of classes without weights; (): there are none
    places: tuple[Place, ...] = ()  # whose features it sees side by side, the first on the left
    aggregate: str = "mean"  # what a sample's several rows become before it
    centre: Doubles | None = None  # (D,) about which features lie, where they are standardised

    def scores(self, features: Floats) -> Doubles:
        """Score images, as the row's are scored.

        Args:
            features: (Q, D) at ``places``, not standardised; may be a memmap.

        Returns:
            (Q, C) scores, see a row's ``score_type``; of numbers (Q, 1).

        Raises:
            RequestError: features of another width than the training features.
        """
        of_episodes, width = self.weights.shape[:-2], self.weights.shape[-2]
        if features.ndim != 2 or features.shape[1] != width:
            raise RequestError(
                f"the head was trained on {width} features, found shape "
                f"{features.shape}: training and new features must come from one encoder, layer "
                "and pool"
            )
        n, weights = self.task.n_outputs, self.weights.astype(np.float64)
        found = np.tile(np.array(self.constant or [0.0] * n), (*of_episodes, len(features), 1))
        columns = list(self.columns or range(n))
        for rows in chunks(len(features)):
            logits = np.asarray(features[rows], np.float64) @ weights
            logits += self.intercept[..., None, :]
            found[..., rows, :][..., columns] = self._linked(logits)
        return found

    def _linked(self, logits: Doubles) -> Doubles:
        if self.task.word == BINARY and logits.shape[-1] == 1:
            logits = np.concatenate([-logits, logits], axis=-1)
        if self.link == SOFTMAX:
            return softmax(logits, axis=-1)
        if self.link == OVR:
            return normalised(sigmoid(logits))
        return sigmoid(logits) if self.link == SIGMOID else logits

    @property
    def n_bytes(self) -> int:
        """Of the weights as a row keeps them."""
        return 4 * self.weights.size + 8 * self.intercept.size

    @property
    def is_finite(self) -> bool:
        """Whether float32 holds the weights: of features of a tiny scale it doesn't."""
        with np.errstate(over="ignore"):
            numbers = self.weights.astype(np.float32), self.intercept
        return all(np.isfinite(each).all() for each in numbers)

    @property
    def stored(self) -> "Head":
        """As a row gives it back."""
        arrays = self.arrays
        return replace(self, weights=arrays[WEIGHTS], intercept=arrays[INTERCEPT], centre=None)

    @property
    def arrays(self) -> dict[str, Array]:
        """As they stand in a row's .npz."""
        about = {
            "link": self.link,
            "task": self.task.word,
            "class_names": self.task.class_names,
            "columns": self.columns or range(self.task.n_outputs),
            "constant": self.constant,
            "places": [place.settings for place in self.places],
            "aggregate": self.aggregate,
        }
        weights, intercept = self.weights.astype(np.float32), self.intercept.astype(np.float64)
        if self.centre is not None:
            # Where means are large beside scales, weights and intercept cancel: what rounding takes
            # from the one has to be put into the other.
            intercept = intercept + self.centre @ (self.weights - weights)
        return {
            WEIGHTS: weights,
            INTERCEPT: intercept,
            ABOUT: np.array(json.dumps(about, default=list)),
        }


def head_of(arrays: Mapping[str, Array]) -> Head | None:
    """The head in a row's .npz; None where it holds none.

    Raises:
        ValueError, KeyError, TypeError, RecursionError: what stands there is none.
    """
    if WEIGHTS not in arrays:
        return None
    about = json.loads(str(arrays[ABOUT]))
    head = Head(
        arrays[WEIGHTS],
        arrays[INTERCEPT],
        about["link"],
        Task(about["task"], _listed(about["class_names"])),
        _listed(about["columns"]),
        _listed(about["constant"]),
        tuple(place_of(place) for place in about["places"]),
        about["aggregate"],
    )
    if wrong := next((what for what, fits in _facts(head) if not fits), ""):
        raise ValueError(f"a head of other {wrong} than heads have")
    return head


def _listed(values: Any) -> tuple[Any, ...]:
    if not isinstance(values, list):
        raise ValueError(f"a list, and not {values!r}, is in heads")
    return tuple(values)


def _facts(head: Head) -> Iterator[tuple[str, bool]]:
    """What must hold of a head that a file says; later ones may rely on earlier ones."""
    numbers = head.weights, head.intercept
    yield "types", all(array.dtype in (np.float32, np.float64) for array in numbers)
    yield "numbers", head.is_finite
    *of_episodes, _, n_outputs = head.weights.shape if head.weights.ndim in (2, 3) else (-1, -1)
    yield "shapes", head.intercept.shape == (*of_episodes, n_outputs)
    yield "links", head.link in LINKS
    yield "tasks", head.task.word in TASKS
    yield "class names", all(isinstance(name, str) for name in head.task.class_names)
    n, columns = head.task.n_outputs, head.columns
    yield "columns", all(type(column) is int and 0 <= column < n for column in columns)
    n_columns = 2 if head.task.word == BINARY and n_outputs == 1 else n_outputs
    yield "columns", n_columns == len(columns) == len(set(columns))
    yield "constants", all(isinstance(s, int | float) and math.isfinite(s) for s in head.constant)
    yield "constants", len(head.constant) == n or (not head.constant and n_columns == n)
    yield "places", len(head.places) > 0
    yield "aggregates", head.aggregate in AGGREGATES


def of_episodes(kept: Heads | None, how: Standardising, link: str, task: Task) -> Head | None:
    """Heads of episodes as one, on features as they are.

    None where none are kept, or each sample is divided by its length, which no weights can say.
    """
    if not kept or how.prepare is of_one_length:
        return None
    weights, intercept = map(np.concatenate, zip(*kept, strict=True))
    if not isinstance(how.prepare, Standard):
        return Head(weights, intercept, link, task)
    folded = how.prepare.folded(weights, intercept)
    return Head(*folded, link, task, centre=how.prepare.mean)
