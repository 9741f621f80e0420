"""What else is asked beside a question: the baselines of a fused probe, or all pairs of encoders."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import fields, replace
from typing import Any, NamedTuple

from probe.config import ProbeConfig
from probe.finding import Files
from probe.kinds.linear import Linear
from probe.kinds.stack import Stack
from probe.places import AUTO, PlacesConfig


class Run(NamedTuple):
    """One question to one file, or to several side by side."""

    config: ProbeConfig
    files: Files


def plan_runs(config: ProbeConfig, found: Iterable[Files]) -> Iterator[Run]:
    """The question of every file, with what is asked beside it."""
    alone = replace(config, run=replace(config.run, beside=False, pairs=False))
    for files in found:
        if config.run.pairs:
            yield from _pairs(alone, files)
            continue
        if config.run.beside:
            yield from _baselines(alone, files)
        yield Run(alone, files)


def _baselines(config: ProbeConfig, files: Files) -> Iterator[Run]:
    """Linear probes of the last layer and of the best, of all places joined, and averaged.

    The best is chosen without test, and its row stands beside the last layer's.
    """
    own = _settings(config.kind) if isinstance(config.kind, Linear) else {}
    plain = replace(config, kind=Linear(**own), protocol=None)
    for features in files:
        # The first is read of the last layer: what is meant there where nobody names a pool.
        first = "cls" if "cls" in features.pools else "head"
        chosen = PlacesConfig(AUTO, (first, "mean"), config.places.aggregate)
        yield Run(replace(plain, places=chosen), (features,))
    yield Run(plain, files)
    if not isinstance(config.kind, Stack):
        yield Run(replace(plain, kind=Stack()), files)


def _pairs(config: ProbeConfig, files: Files) -> Iterator[Run]:
    """Each encoder by itself, and of each pair the joined features and the averaged scores."""
    assert isinstance(config.kind, Linear)
    for features in files:
        yield Run(config, (features,))
    for pair in itertools.combinations(files, 2):
        yield Run(config, pair)
        yield Run(replace(config, kind=Stack(**_settings(config.kind))), pair)


def _settings(kind: Linear) -> dict[str, Any]:
    return {field.name: getattr(kind, field.name) for field in fields(Linear)}
