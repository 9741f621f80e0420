"""A linear probe's weights as the first weights of a head: probe first, then fine-tune.

That is Kumar et al. 2022 (https://arxiv.org/abs/2202.10054), and how Baharoon et al. 2023 choose
their heads. A row keeps its probe's weights. One from before that is fitted again, where it is of
kind linear, on the features that it names.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file

from cache.errors import RequestError
from cache.features import Features
from cache.format.key import key_differences
from cache.task import BINARY
from finetune.start.samples import refuse_other_samples
from probe.questions.question import Question
from probe.refit import features_of, find_by_digest, fit_again, refuse_many
from probe.results import find_head
from probe.row_names import find_row
from probe.solvers.head import Head

FLAG = "--init-head-from"
KINDS = ("linear", "adamw", "heads")  # whose outputs are logits
MULTINOMIAL = "multinomial"  # the form of several classes that a softmax has
WEIGHT, BIAS = "weight", "bias"  # of a head's file: (O, D) and (O,)
REFITTED = (True, "train+val")  # of a row's probe.refit, of kind heads and of the others
LEARNT_VAL = "its first head has learnt from val, too, so val numbers are too good"
# Of a key: a head's input is the same by meaning.
NOT_SEEN = ("precision", "store", "layers.stored")


@dataclass(frozen=True)
class FirstHead:
    """Weights to begin with, on features as they are. O logits, D features."""

    weights: NDArray[np.float32]  # (O, D)
    intercept: NDArray[np.float32]  # (O,)
    source: Mapping[str, Any]  # for the row: where they are from
    marks: tuple[str, ...] = ()  # what a reader of the row must know of them

    @property
    def digest(self) -> str:
        """SHA-256 of the numbers."""
        digest = hashlib.sha256()
        for array in (self.weights, self.intercept):
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()


def first_head(
    result: str,
    question: Question,
    key: Mapping[str, Any],
    pool: str,
    n_logits: int,
    *,
    results_dir: Path,
    features_dir: Path,
    layer: int | None = None,
) -> FirstHead:
    """The head of an earlier result.

    Args:
        result: a probe's row (its JSON file, the stem of that name, or the start of its id), or the
            ``.safetensors`` file of a head.
        question: the question, as it is asked of the images.
        key: the feature key of the encoder that the head will sit on.
        pool: what the head sees of the last layer, one of ``finetune.config.POOLS``.
        n_logits: O. Two classes may have one or two; each is made of the other exactly.
        results_dir: the folder of results.
        features_dir: the folder of features.
        layer: the last block that is kept; None: the encoder's last.

    Raises:
        RequestError: no such result; one of another encoder, data set, labels, split, layer or
            pool; a kind without such weights; or of a row without any, what ``fit_again`` refuses.
        CacheError: the features are damaged.
    """
    marks: tuple[str, ...] = ()
    if result.endswith(".safetensors"):
        weights, intercept = _read_head(Path(result))
        source: dict[str, Any] = {"file": Path(result).name}
    else:
        path, row = find_row(result, results_dir, FLAG)
        weights, intercept = _of_row(path, row, question, key, pool, features_dir, layer)
        source = {"row": row["id"], "kind": row["probe"]["kind"]}
        marks = (LEARNT_VAL,) if row["probe"].get("refit") in REFITTED else ()
    weights, intercept = as_logits(weights, intercept, n_logits, question.task.word)
    return FirstHead(weights.astype(np.float32), intercept.astype(np.float32), source, marks)


def as_logits(
    weights: NDArray[np.floating], intercept: NDArray[np.floating], n_logits: int, task: str
) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    """The same head with another number of logits: of two classes one and two say the same.

    A sigmoid of z is a softmax of (-z/2, z/2), and a softmax of (a, b) a sigmoid of b - a.

    Args:
        weights: (O, D).
        intercept: (O,).
        n_logits: wanted.
        task: one of ``cache.task.CLASSIFICATION``.

    Raises:
        RequestError: they can't be made of each other.
    """
    found = len(weights)
    if found == n_logits:
        return weights, intercept
    if task == BINARY and (found, n_logits) == (2, 1):
        return weights[1:] - weights[:1], intercept[1:] - intercept[:1]
    if task == BINARY and (found, n_logits) == (1, 2):
        halves = np.array([-0.5, 0.5])
        return halves[:, None] * weights, halves * intercept
    raise RequestError(
        f"{FLAG}: its head has {found} outputs, and {n_logits} are needed; name one of the same "
        "classes"
    )


def _read_head(path: Path) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise RequestError(f"{FLAG}: {path} can't be read ({error})") from error
    shapes = {name: tensor.shape for name, tensor in tensors.items()}
    fits = shapes.keys() == {WEIGHT, BIAS} and shapes[BIAS] == shapes[WEIGHT][:1]
    listed = [f"{name} {shape}" for name, shape in shapes.items()]
    listed = [*listed[:3], *([f"and {len(listed) - 3} more"] if len(listed) > 3 else [])]
    if not fits or len(shapes[WEIGHT]) != 2:
        raise RequestError(
            f"{FLAG}: {path} should hold the {WEIGHT} (O, D) and the {BIAS} (O,) of a linear head, "
            f"found {', '.join(listed) or 'nothing'}"
        )
    return tensors[WEIGHT], tensors[BIAS]


# ---------------------------------------------------------------------------- of a row


def _of_row(
    path: Path,
    row: Mapping[str, Any],
    question: Question,
    key: Mapping[str, Any],
    pool: str,
    features_dir: Path,
    layer: int | None,
) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    """(O, D) weights and (O,) intercept of the probe that a row is of."""
    name, probe = path.stem, row["probe"]
    if probe.get("kind") not in KINDS:
        raise RequestError(
            f"{FLAG}: {name} is of kind {probe.get('kind')}, which has no weights of logits; name "
            f"a row of kind {', '.join(KINDS)}"
        )
    if probe.get("test_every") is not None:
        raise RequestError(f"{FLAG}: {name} chose its checkpoint on test, as published")
    if probe.get("form", MULTINOMIAL) != MULTINOMIAL:
        raise RequestError(
            f"{FLAG}: {name} has a sigmoid for each class ({probe['form']}), and a head one "
            f"softmax; name a row of --form {MULTINOMIAL}"
        )
    refuse_other_samples(row, question, name)
    _refuse_other_encoder(row["features"].get("key", {}), key, name)
    digest = row["features"].get("digest", "")

    def ask() -> Question:
        features = features_of(name, digest, features_dir)
        if not np.array_equal(features.ids, question.features.ids):
            raise RequestError(f"{features.path} has other ids than the images have now")
        return dataclasses.replace(question, features=features)

    try:
        refuse_many(row, name)
        head = find_head(path, row) or fit_again(path, row, ask)
    except RequestError as error:
        raise RequestError(f"{FLAG}: {error}") from error
    except (OSError, ValueError) as error:
        raise RequestError(
            f"{FLAG}: the scores of {name} can't be read ({error}); ask the probe anew"
        ) from error
    assert isinstance(head, Head)
    head = head.stored  # what is fitted again isn't rounded yet
    last = row["features"]["key"]["layers"]["of"] - 1 if layer is None else layer
    _refuse_other_input(head, last, pool, partial(find_by_digest, digest, features_dir), name)
    if len(head.columns or question.task.class_names) < len(question.task.class_names):
        raise RequestError(
            f"{FLAG}: {name} has no weights of a class that all or none of its samples have"
        )
    return head.weights.T, head.intercept


def _refuse_other_encoder(found: Mapping[str, Any], key: Mapping[str, Any], name: str) -> None:
    differences = [
        line
        for line in key_differences(found, key)
        if not line.startswith(tuple(f"{part}:" for part in NOT_SEEN))
    ]
    if differences:
        raise RequestError(
            f"{FLAG}: {name} is of other features than the head will see "
            f"({'; '.join(differences[:3])})"
        )


def _refuse_other_input(
    head: Head, last: int, pool: str, find: Callable[[], Features | None], name: str
) -> None:
    """Refuse a probe that saw something else than the head will see."""
    (seen, *more), aggregate = head.places, head.aggregate
    if more or seen.n_last > 1 or seen.pool == "concat":
        raise RequestError(f"{FLAG}: {name} saw several layers or pools side by side, a head one")
    if seen.layer != last:
        raise RequestError(
            f"{FLAG}: {name} saw layer {seen.layer}, and the head sees layer {last}; name a row of "
            f"--layer {last}"
        )
    if aggregate != "mean":
        raise RequestError(
            f"{FLAG}: {name} took the {aggregate} of a sample's rows, and a head's input is their "
            "mean"
        )
    if seen.pool == pool:
        return
    if not ((features := find()) and _is_same(features, last, seen.pool, pool)):
        raise RequestError(
            f"{FLAG}: {name} saw the pool {seen.pool}, and the head sees {pool}; name a row of "
            f"--pool {pool}, or give finetune --pool {seen.pool}"
        )


def _is_same(features: Features, layer: int, a: str, b: str) -> bool:
    """Whether two pools of a layer hold the same numbers: head is often the class token."""
    if layer != features.last_layer or not {a, b} <= {*features.pools}:
        return False
    return np.array_equal(features.array(layer, a), features.array(layer, b))
