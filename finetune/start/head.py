"""A linear probe's weights as the first weights of a head: probe first, then fine-tune.

That is Kumar et al. 2022 (https://arxiv.org/abs/2202.10054), and how Baharoon et al. 2023 choose
their heads. A row holds a probe's scores and settings, not its weights: it is fitted again on the
features that it names, and must give the scores that stand beside the row.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file

from cache.catalogue import list_files
from cache.errors import CacheError, RequestError
from cache.features import Features, open_features
from cache.format.key import PARTIAL, key_differences
from cache.format.read import read_header
from cache.task import BINARY
from finetune.start.row import find_row, refuse_other_samples
from probe.kinds import adamw, heads, linear
from probe.kinds.heads import GRID
from probe.metrics.patients import Scored, by_patient
from probe.places import read_samples
from probe.questions.question import Question, Split, divide_samples, join
from probe.results import read_scores
from probe.solvers import sgd
from probe.solvers.adamw import Diverged

FLAG = "--init-head-from"
NEAR = 1e-6  # of a score
WEIGHT, BIAS = "weight", "bias"  # of a head's file: (O, D) and (O,)
NOT_SEEN = (
    "precision",
    "store",
    "layers.stored",
)  # of a key: a head's input is the same by meaning


@dataclass(frozen=True)
class FirstHead:
    """Weights to begin with, on features as they are. O logits, D features."""

    weights: NDArray[np.float32]  # (O, D)
    intercept: NDArray[np.float32]  # (O,)
    source: Mapping[str, Any]  # for the row: where they are from

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
            pool; a kind without such weights; features that are gone; or a fit that gives other
            scores than were stored.
        CacheError: the features are damaged.
    """
    if result.endswith(".safetensors"):
        weights, intercept = _read_head(Path(result))
        source: dict[str, Any] = {"file": Path(result).name}
    else:
        path, row = find_row(result, results_dir, FLAG)
        weights, intercept = _of_row(path, row, question, key, pool, features_dir, layer)
        source = {"row": row["id"], "kind": row["probe"]["kind"]}
    weights, intercept = as_logits(weights, intercept, n_logits, question.task.word)
    return FirstHead(weights.astype(np.float32), intercept.astype(np.float32), source)


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
    if probe.get("kind") not in REFIT:
        raise RequestError(
            f"{FLAG}: {name} is of kind {probe.get('kind')}, which has no weights of logits; name "
            f"a row of kind {', '.join(REFIT)}"
        )
    if "few_shot" in probe:
        raise RequestError(
            f"{FLAG}: {name} learnt from episodes, each its own head; name a row of all of train"
        )
    refuse_other_samples(row, question, name)
    _refuse_other_encoder(row["features"].get("key", {}), key, name)
    features = _find_features(row["features"].get("digest", ""), features_dir, name)
    if not np.array_equal(features.ids, question.features.ids):
        raise RequestError(f"{FLAG}: {features.path} has other ids than the images have now")
    x = _read_input(features, row, pool, layer, name)
    splits = divide_samples(x, dataclasses.replace(question, features=features))
    fit = REFIT[probe["kind"]](row, splits, question, name)
    _compare(path, row, splits, fit, probe.get("scores_of") == "patients", name)
    return fit.weights, fit.intercept


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


def _find_features(digest: str, folder: Path, name: str) -> Features:
    """The stored features of a row, by the digest of their key."""
    for path in list_files(folder):
        with contextlib.suppress(CacheError, OSError):  # another file's trouble
            if not path.name.endswith(PARTIAL) and read_header(path).digest == digest:
                return open_features(path)
    raise RequestError(
        f"{FLAG}: the features of {name} aren't in {folder}, and its weights are fitted on them "
        "again; name their folder with --features DIR, or extract them"
    )


def _read_input(
    features: Features, row: Mapping[str, Any], pool: str, layer: int | None, name: str
) -> NDArray[np.floating]:
    """(S, D) what the probe saw, which must be what the head will see."""
    last = features.last_layer if layer is None else layer
    probe = row["probe"]
    found_layer, found_pool = _seen_by(row, features, name)
    if found_layer != last:
        raise RequestError(
            f"{FLAG}: {name} saw layer {found_layer}, and the head sees layer {last}; name a row of "
            f"--layer {last}"
        )
    if probe.get("aggregate", "mean") != "mean":
        raise RequestError(
            f"{FLAG}: {name} took the {probe['aggregate']} of a sample's rows, and a head's input is "
            "their mean"
        )
    if not _is_same(features, last, found_pool, pool):
        raise RequestError(
            f"{FLAG}: {name} saw the pool {found_pool}, and the head sees {pool}; name a row of "
            f"--pool {pool}, or give finetune --pool {found_pool}"
        )
    return read_samples(features, last, found_pool)


def _seen_by(row: Mapping[str, Any], features: Features, name: str) -> tuple[int, str]:
    """The layer and pool of a row's head."""
    probe, chosen = row["probe"], row["chosen"]
    layer, pool = probe["layer"], probe["pool"]
    is_single = probe.get("n_last", 1) == 1 and pool != "concat"
    if probe["kind"] == "heads":  # its n_last is the grid's; val chose one
        layer, pool = features.last_layer, "cls" if pool == GRID else pool
        is_single = chosen["n_last"] == 1 and not chosen["with_mean"] and pool != "concat"
    if not is_single:
        raise RequestError(f"{FLAG}: {name} saw several layers or pools side by side, a head one")
    return layer, pool


def _is_same(features: Features, layer: int, a: str, b: str) -> bool:
    """Whether two pools of a layer hold the same numbers: head is often the class token."""
    if a == b:
        return True
    if layer != features.last_layer or not {a, b} <= {*features.pools}:
        return False
    return np.array_equal(features.array(layer, a), features.array(layer, b))


def _compare(
    path: Path,
    row: Mapping[str, Any],
    splits: dict[str, Split],
    fit: _Fit,
    per_patient: bool,
    name: str,
) -> None:
    """Refuse a fit that gives other scores than stand beside the row."""
    try:
        stored = read_scores(path, row)
    except (OSError, ValueError) as error:
        raise RequestError(
            f"{FLAG}: the scores of {name} can't be read ({error}); ask the probe anew"
        ) from error
    n_compared = 0
    for split, score in fit.scores.items():
        own, wanted = splits[split], stored.get(f"{split}_scores", np.empty(0))
        if not len(wanted):  # not read: layers were compared
            continue
        found = Scored(score(own.x), own.y, own.ids, own.groups)
        found = by_patient(found) if per_patient else found
        if not np.array_equal(found.ids, stored[f"{split}_ids"]):
            raise RequestError(f"{FLAG}: {name} scored other {split} samples than there are now")
        apart = float(np.abs(found.scores - wanted).max())
        if apart > NEAR:
            raise RequestError(
                f"{FLAG}: fitted again, {name} gives other scores on {split}, {apart:.2g} apart; "
                "libraries or the device are others than then, so ask the probe anew"
            )
        n_compared += len(wanted)
    if not n_compared:
        raise RequestError(f"{FLAG}: {name} has no scores to compare with; it didn't read test")


# ---------------------------------------------------------------------------- fitted again


@dataclass(frozen=True)
class _Fit:
    """A probe that was fitted again."""

    weights: NDArray[np.floating]  # (O, D) on features as they are
    intercept: NDArray[np.floating]  # (O,)
    # Split -> (n, D) features to (n, C) scores; val only where the stored scores are this fit's.
    scores: Mapping[str, Callable[[NDArray[np.floating]], NDArray[np.floating]]]


def _linear(
    row: Mapping[str, Any], splits: dict[str, Split], question: Question, name: str
) -> _Fit:
    probe = row["probe"]
    form = probe.get("form", linear.FORMS[0])
    if form != linear.FORMS[0]:
        raise RequestError(
            f"{FLAG}: {name} has a sigmoid for each class ({form}), and a head one softmax; name a "
            f"row of --form {linear.FORMS[0]}"
        )
    names = ("tolerance", "max_iter", "max_products")
    config = linear.Linear(tuple(probe["strengths"]), form, *(probe[name] for name in names))
    train, n_classes = splits["train"], question.task.n_classes
    is_refitted = "folds" in probe or "refit" in probe
    fitted_on = join(train, splits["val"]) if probe.get("refit") == "train+val" else train
    fits = linear.fit_path(fitted_on.x, fitted_on.y, question.task.word, n_classes, config)
    (fit,) = (fit for fit in fits if fit.strength == row["chosen"]["strength"])
    if fit.weights.shape[1] < (1 if question.task.word == BINARY else n_classes):
        raise RequestError(
            f"{FLAG}: {name} has no weights of a class that all or none of its samples have"
        )
    weights = fit.weights / fit.head.scale[:, None]
    intercept = fit.intercept - fit.head.mean @ weights
    answered = ["test"] if is_refitted else ["val", "test"]
    return _Fit(weights.T, intercept, dict.fromkeys(answered, fit.predict_scores))


def _adamw(row: Mapping[str, Any], splits: dict[str, Split], question: Question, name: str) -> _Fit:
    probe = row["probe"]
    shared = {
        field.name: probe[field.name]
        for field in dataclasses.fields(adamw.AdamW)
        if field.name in probe
    }
    config = adamw.AdamW(**shared, seeds=(probe["training_seed"],))
    train, val = splits["train"], splits["val"]
    n_classes = question.task.n_classes
    ((fit,),) = adamw.fit_heads(
        [train.x], train.y, [val.x], val.y, question.task.word, n_classes, config
    )
    if isinstance(fit, Diverged):
        raise RequestError(f"{FLAG}: fitted again, {name} diverges; ask the probe anew")
    return _Fit(fit.weights.T, fit.intercept, dict.fromkeys(["val", "test"], fit.predict_scores))


def _heads(row: Mapping[str, Any], splits: dict[str, Split], question: Question, name: str) -> _Fit:
    probe, chosen = row["probe"], row["chosen"]
    names = [field.name for field in dataclasses.fields(heads.Heads)]
    settings = {name: probe[name] for name in names if name in probe}
    config = heads.Heads(**{**settings, "lrs": tuple(probe["lrs"]), "n_last": (1,)})
    if config.test_every is not None:
        raise RequestError(f"{FLAG}: {name} chose its checkpoint on test, as published")
    train, val = splits["train"], splits["val"]
    fits = sgd.fit_grid(
        train.x, train.y, 1, False, question.task.word, question.task.n_classes, config
    )
    (of_val,) = (fit for fit in fits if fit.lr == chosen["lr"])
    fit = of_val
    if config.refit:
        both = join(train, val)
        fit = sgd.refit_one(of_val, both.x, both.y, config)[-1]
    scores = {"val": of_val.predict_scores, "test": fit.predict_scores}
    return _Fit(fit.weights.T, fit.intercept, scores)


REFIT = {"linear": _linear, "adamw": _adamw, "heads": _heads}
