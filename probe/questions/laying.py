"""Laying labels and splits over a feature file's own, by id."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.errors import RequestError
from cache.features import Features
from cache.labels.target import Target
from cache.task import MISSING, REGRESSION
from probe.questions.overlay import OverlayConfig
from probe.questions.question import Asked
from probe.questions.splits import choose_splits
from probe.questions.targets import choose_target, labels_digest


def lay_over(config: OverlayConfig, features: Features) -> list[Asked]:
    """A file's samples as they are asked for, once for each split; without a wish as stored.

    Samples of which no label is known are in no split.

    Args:
        config: the wishes.
        features: the file.

    Raises:
        RequestError: a table that can't be read or fits nothing, no such target, uncertain labels
            of which nobody says what they count as, or a split that can't be made.
    """
    target, said = choose_target(config, features)
    is_known = _is_known(target)
    if not is_known.any():
        raise RequestError(f"{features.dataset} has no sample of which a label is known")
    marks = [_target_mark(said)] if said else []
    if n := int((~is_known).sum()):
        marks.append(f"{n:_} of {len(is_known):_} samples have no label: left out")
    stored = {name: features.header.tables[f"samples/{name}"] for name in ("labels", "split")}
    labels_id = labels_digest(target, features) if said else stored["labels"]
    row = {**said, "task": target.task, "labels": labels_id} if said else {}
    return [
        Asked(
            features,
            target.task,
            target.class_names,
            target.labels,
            named.split,
            named.name,
            {"labels": labels_id, "split": division.get("digest", stored["split"])},
            row,
            division,
            (*marks, *named.notes),
        )
        for named, division in choose_splits(config, features, target, is_known)
    ]


def _is_known(target: Target) -> NDArray[np.bool_]:
    """(S,) samples of which something is known."""
    if target.task == REGRESSION:
        return ~np.isnan(target.labels)
    known = target.labels != MISSING
    return known.any(axis=1) if known.ndim == 2 else known


def _target_mark(said: Mapping[str, Any]) -> str:
    words = [f"target: {said['target']}"] if "target" in said else []
    words += [f"labels: {said['file']}"] if "file" in said else []
    words += [f"uncertain labels: {said['uncertain']}"] if "uncertain" in said else []
    return ", ".join(words)
