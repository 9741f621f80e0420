"""What else is asked beside a question: baselines of fused and attentive probes, or all pairs."""

from __future__ import annotations

import itertools
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from cache.commands.names import is_norm2
from cache.errors import CacheError
from cache.format.key import file_stem
from cache.places import features_root
from probe.config import ProbeConfig
from probe.finding import Files
from probe.joins import find_token_places
from probe.kinds.linear import Linear
from probe.kinds.stack import Stack
from probe.places import AUTO, TOKENS, PlacesConfig, has_pool

if TYPE_CHECKING:
    from cache.features import Features  # h5py: --help shouldn't wait for it

Say = Callable[[str], None]  # told a line
OF_TOKENS = (
    "tokens",
    "layers",
    "store",
    "format",
)  # what keys of one encoder's two files differ in
FLAGS_OF_TOKENS = ("--tokens", "--store", "--features")  # and commands


class Run(NamedTuple):
    """One question to one file, or to several side by side."""

    config: ProbeConfig
    files: Files


def plan_runs(
    config: ProbeConfig, found: Iterable[Files], say: Say = lambda line: None
) -> Iterator[Run]:
    """The question of every file, with what is asked beside it; ``say`` is told what is missing."""
    alone = replace(config, run=replace(config.run, beside=False, pairs=False))
    for files in found:
        if config.run.pairs:
            yield from _pairs(alone, files)
            continue
        if config.run.beside and config.kind.reads == TOKENS:
            yield from _pooled(alone, files[0], say)
        elif config.run.beside:
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


def _pooled(config: ProbeConfig, tokens: Features, say: Say) -> Iterator[Run]:
    """Linear probes of the class token and of the patches' mean, at the layers that are asked."""
    where, folder = config.places, config.find.folder
    at = find_token_places(tokens, where.layer, where.pools)
    pooled = find_pooled(tokens, folder)
    if pooled is None:
        say(advise_pooled(tokens, folder))
        return
    plain = replace(config, kind=Linear(), protocol=None)
    word = ",".join("+".join(str(place.layer) for place in places) for places in at)
    if where.is_comparing:
        word = AUTO if where.layer == AUTO else word
        pools = (tuple(pool for pool in ("cls", "mean") if pool in pooled.pools),)
    else:
        last = at[0][-1].layer
        pools = tuple((pool,) for pool in ("cls", "mean") if has_pool(pooled, last, pool))
        if not pools:
            say(advise_pooled(tokens, folder))
    layer = int(word) if word.isdigit() else word
    for names in pools:
        yield Run(replace(plain, places=replace(where, layer=layer, pools=names)), (pooled,))


def find_pooled(tokens: Features, root: Path) -> Features | None:
    """The finished pooled file of a token file's images, encoder, weights and transform.

    Args:
        tokens: the token file.
        root: the folder of features.
    """
    from cache.features import open_features  # h5py

    folders = dict.fromkeys([tokens.path.parent, root / file_stem(tokens.dataset)])
    for path in (path for folder in folders for path in sorted(folder.glob("*.h5"))):
        try:
            other = open_features(path)
        except (CacheError, OSError):
            continue  # `cache verify` tells of it; or it holds masks
        is_pooled = not (other.is_text or other.is_tokens)
        if is_pooled and not is_norm2(other.key) and _whole(other.key) == _whole(tokens.key):
            return other
    return None


def _whole(key: Mapping[str, Any]) -> dict[str, Any]:
    return {name: part for name, part in key.items() if name not in OF_TOKENS}


def advise_pooled(tokens: Features, root: Path) -> str:
    """What a user can do where there is no pooled file: the command that makes it."""
    words: list[str] = []
    typed = iter(tokens.header.command)
    for word in typed:
        if word in FLAGS_OF_TOKENS:
            next(typed, None)  # its value
        elif word.partition("=")[0] not in (*FLAGS_OF_TOKENS, "--no-pictures"):
            words.append(word)
    words += [] if root == features_root() else ["--features", str(root)]
    return (
        f"--beside: no pooled features of {tokens.label} on {tokens.dataset}, so no linear probe stands "
        f"beside; make them with\n  {shlex.join(words)}"
    )


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
