"""Laying labels and splits over a feature file's own, by id.

Which sample trains, chooses, tests: as stored, as a file says, or by a rule.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.errors import RequestError
from cache.features import Features
from cache.format.sample_tables import SPLITS
from cache.labels.target import Target
from cache.splits.files import read_split_file, write_split_file
from cache.splits.make import LEFT_OUT, NamedSplit, make_splits, split_digest
from cache.splits.rules import SplitRule
from cache.task import MISSING, REGRESSION, Task
from probe.arrays import Bools, Ints
from probe.questions.overlay import OverlayConfig
from probe.questions.question import Question
from probe.questions.targets import choose_target, labels_digest, meta_columns, read_meta


def lay_over(config: OverlayConfig, features: Features) -> list[Question]:
    """A file's samples as they are asked for, once for each split; without a wish as stored.

    Samples of which no label is known are in no split.

    Args:
        config: the wishes.
        features: the file.

    Raises:
        RequestError: a table that can't be read or fits nothing, no such target, uncertain labels
            of which nobody says what they count as, or a split that can't be made.
    """
    target, said, notes = choose_target(config, features)
    is_known = _is_known(target)
    if not is_known.any():
        raise RequestError(f"{features.dataset} has no sample of which a label is known")
    marks = [_target_mark(said)] if said else []
    if n := int((~is_known).sum()):
        notes = [f"{n:_} of {len(is_known):_} samples have no label: left out", *notes]
    stored = {name: features.header.tables[f"samples/{name}"] for name in ("labels", "split")}
    labels_id = labels_digest(target, features) if said else stored["labels"]
    row = {**said, "task": target.task, "labels": labels_id} if said else {}
    return [
        Question(
            features,
            Task(target.task, target.class_names),
            target.labels,
            named.split,
            named.name,
            {"labels": labels_id, "split": division.get("digest", stored["split"])},
            row,
            division,
            (*marks, *notes, *named.notes),
        )
        for named, division in choose_splits(config, features, target, is_known)
    ]


def _is_known(target: Target) -> Bools:
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


def choose_splits(
    config: OverlayConfig, features: Features, target: Target, is_known: Bools
) -> Iterator[tuple[NamedSplit, dict[str, Any]]]:
    """The splits that are asked for.

    Args:
        config: the wishes.
        features: the file.
        target: of its S samples.
        is_known: (S,) which of them have a label; the others are in no split.

    Yields:
        Each split, and what the row says of it; nothing where it is the stored one.

    Raises:
        RequestError: a file that fits the samples, or the rule, ill; a rule that can't be followed;
            a split file that can't be written.
    """
    if config.split is None and config.split_file is None:
        split = np.where(is_known, stored_split(features), LEFT_OUT).astype(np.uint8)
        yield NamedSplit("", split), {}
        return
    if config.split is None:
        assert config.split_file
        there = read_split_file(config.split_file, features.ids, features.dataset)
        split = np.where(is_known, there, LEFT_OUT)
        splits = [NamedSplit("", split.astype(np.uint8), _left_out(split, is_known))]
        said = {"rule": "file", "file": config.split_file.name}
        how = config.split_file.name
    else:
        splits = _by_rule(config.split, config.split_seed, features, target, is_known)
        seed = {"seed": config.split_seed} if config.split.uses_chance else {}
        said = {"rule": str(config.split), **seed}
        how = f"{config.split}, seed {config.split_seed}" if seed else str(config.split)
        if config.split_file:
            _keep(config.split_file, how, features, splits[0].split)
    for named in splits:
        notes = (f"split: {how}, not the data set's own", *named.notes)
        digest = f"sha256:{split_digest(features.ids, named.split)}"
        of = {"of": len(splits)} if len(splits) > 1 else {}
        yield (
            dataclasses.replace(named, notes=notes),
            {**said, "name": named.name, **of, "digest": digest},
        )


def stored_split(features: Features) -> NDArray[np.uint8]:
    """(S,) the file's own split as an index into SPLITS."""
    return (features.split[:, None] == np.array(SPLITS)).argmax(axis=1).astype(np.uint8)


def _left_out(split: Ints, is_known: Bools) -> tuple[str, ...]:
    n = int((is_known & (split == LEFT_OUT)).sum())
    return (f"{n:_} of {len(split):_} samples aren't in the split file: left out",) if n else ()


def _by_rule(
    rule: SplitRule, seed: int, features: Features, target: Target, is_known: Bools
) -> list[NamedSplit]:
    """Of the samples with labels alone: the others would only unbalance it."""
    groups = features.groups
    splits = make_splits(
        rule,
        features.ids[is_known],
        target.labels[is_known],
        target.task,
        None if groups is None else groups[is_known],
        {name: read_meta(features, name)[is_known] for name in meta_columns(features)},
        seed,
        target.class_names,
    )
    full = np.full((len(splits), len(is_known)), LEFT_OUT, np.uint8)
    full[:, is_known] = [named.split for named in splits]
    return [
        dataclasses.replace(named, split=split) for named, split in zip(splits, full, strict=True)
    ]


def _keep(path: Path, how: str, features: Features, split: NDArray[np.uint8]) -> None:
    """Write the split to its file, or find it there."""
    if not path.exists():
        write_split_file(path, features.ids, split, features.dataset)
        return
    there = read_split_file(path, features.ids, features.dataset)
    if n := int((there != split).sum()):
        raise RequestError(
            f"{path} isn't the split that {how} makes: {n:_} of {len(split):_} samples differ; leave "
            "--split out to use the file, or name another file to write"
        )
