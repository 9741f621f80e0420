"""Which feature files are meant: by path, or by what they are of; one, or several side by side."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from cache.commands.names import is_norm2
from cache.commands.settings import setting
from cache.errors import CacheError, Failure, RequestError
from cache.places import features_root

if TYPE_CHECKING:
    from cache.features import Features  # h5py: --help shouldn't wait for it


def _read_part(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise RequestError(f"--where takes PART=VALUE, e.g. precision=bf16; not {text!r}")
    return name, value


@dataclass(frozen=True)
class FindConfig:
    """Which feature files to ask; nothing: all that are found."""

    files: tuple[Path, ...] = ()  # by path; empty: found by the wishes below
    models: tuple[str, ...] = setting(
        (),
        "encoders, comma separated; a+b: side by side; all+: every one that is there",
        flag="--model",
        short="-m",
        metavar="NAMES",
    )
    sizes: tuple[int, ...] = setting(
        (), "input sizes, comma separated", flag="--size", metavar="PX"
    )
    data: tuple[str, ...] = setting((), "data sets, comma separated", metavar="NAMES")
    where: tuple[tuple[str, str], ...] = setting(
        (),
        "a part of the key, e.g. precision=bf16, where several files fit",
        metavar="PART=VALUE",
        repeated=True,
        read=_read_part,
    )
    features: Path | None = setting(
        None, "", metavar="DIR", shown="$MEDPROBE_FEATURES or ./features"
    )

    def __post_init__(self) -> None:
        for path in self.files:
            if Path() in parts_of(path):
                raise RequestError(f"a plus joins two feature files, as a.h5+b.h5; not {path}")
        for model in self.models:
            names = [name.strip() for name in encoders_of(model)]
            if model != f"{ALL}+" and (ALL in names or not all(names)):
                raise RequestError(
                    f"--model takes encoders' names, a+b for two side by side, or {ALL}+ for every one "
                    f"that is there; not {model!r} (each by itself: leave --model out)"
                )

    @property
    def folder(self) -> Path:
        return self.features or features_root()


def parts_of(path: Path) -> tuple[Path, ...]:
    """The files that a plus joins, as "a.h5+b.h5"; folders and names may have a plus of their own."""
    return tuple(map(Path, re.split(r"(?<=\.h5)\+", str(path))))


def encoders_of(model: str) -> list[str]:
    """The encoders that a plus joins; one in brackets is of a file's name, as "vit (a+b.pth 3f2a)"."""
    return re.split(r"\+(?![^(]*\))", model)


Files = tuple["Features", ...]  # of one encoder, or of several side by side
ALL = "all"  # "all+": every encoder that is there


def choose_asked(
    find: FindConfig, say: Callable[[str], None] = lambda line: None, tokens: bool = False
) -> tuple[list[Files], list[Failure]]:
    """What is asked one after the other: a feature file, or those of encoders that a plus joins.

    Args:
        find: which are meant.
        say: told a line about what "all+" leaves out.
        tokens: ask token files, not pooled ones.

    Raises:
        CacheError: nothing can be had.
        RequestError: several keys fit one request, or a join is of less than two encoders.
    """
    together = [path for path in find.files if len(parts_of(path)) > 1]
    joins = [model for model in find.models if len(encoders_of(model)) > 1]
    found: list[Files] = []
    failures: list[Failure] = []
    models = tuple(model for model in find.models if model not in joins)
    files = tuple(path for path in find.files if path not in together)
    if files or models or not (together or joins):
        each, failures = choose_files(replace(find, files=files, models=models), tokens)
        found = [(features,) for features in each]
    for path in together:
        parts = parts_of(path)
        each, missing = choose_files(FindConfig(parts))
        failures += missing
        if not missing and len(each) < len(parts):
            raise RequestError(f"{path} names one feature file twice; name each once")
        found += [] if missing else [_in_order(each)]
    for model in dict.fromkeys(joins):
        asked, missing = _by_dataset(find, model, say)
        found, failures = found + asked, failures + missing
    if not found:
        raise CacheError("; ".join(failure.why for failure in failures))
    return found, list(dict.fromkeys(failures))  # a broken file is met for each encoder


def _by_dataset(
    find: FindConfig, model: str, say: Callable[[str], None]
) -> tuple[list[Files], list[Failure]]:
    """The files of encoders that a word joins, for each data set that has all of them.

    An encoder of which several sizes are there is named with one, as in "dinov2@224".
    """
    is_every = model == f"{ALL}+"
    names = [ALL] if is_every else [name.strip() for name in encoders_of(model)]
    of_names: list[dict[str, list[Features]]] = []
    failures: list[Failure] = []
    for name in names:
        encoder, _, size = name.partition("@")
        if size and not size.isdigit():
            raise RequestError(f"--model takes NAME@PIXELS, as dinov2@224; not {name!r}")
        models = () if is_every else (encoder,)
        sizes = (int(size),) if size else ()
        each, missing = choose_files(replace(find, models=models, sizes=sizes))
        failures += missing
        if not size:  # not each of several need have every size that is named
            each = [f for f in each if not find.sizes or f.size in find.sizes]
        by_dataset: dict[str, list[Features]] = {}
        kept = _usual(each)
        if is_every:
            kept = [features for features in kept if not features.notes.get("random_weights")]
        elif "norm2" in name:  # as tables call it
            kept = each
        left_out = [f"{f.label} on {f.dataset}" for f in each if is_every and f not in kept]
        if left_out:
            say(f"{model} leaves out {', '.join(left_out)}: join it by name, as a+b")
        for features in kept:
            by_dataset.setdefault(features.dataset, []).append(features)
        of_names.append(by_dataset)
    found: list[Files] = []
    for dataset in dict.fromkeys(dataset for of in of_names for dataset in of):
        lacking = [n for n, of in zip(names, of_names, strict=True) if dataset not in of]
        files = [features for of in of_names for features in of.get(dataset, [])]
        if lacking:
            why = f"no features of {' or '.join(lacking)}; name only data sets that have all, with --data"
            failures.append(Failure(f"{model} on {dataset}", why))
        elif not is_every and len(files) > len(names):
            there = ", ".join(f"{features.label}@{features.size}" for features in files)
            raise RequestError(
                f"--model {model} fits {len(files)} files of {dataset}; name one size of each encoder, "
                f"of {there}"
            )
        elif len({features.path for features in files}) < len(files):
            raise RequestError(f"--model {model} names one encoder twice; name each once")
        elif len(files) < 2:
            at = f" at {', '.join(map(str, find.sizes))} px" if find.sizes else ""
            why = f"{files[0].label} is the only encoder{at} that {model} joins; extract another"
            failures.append(Failure(f"{model} on {dataset}", why))
        else:
            found.append(_in_order(files))
    return found, failures


def _in_order(files: list[Features]) -> Files:
    """By name: whichever is named first, the encoders side by side are the same."""
    return tuple(sorted(files, key=lambda f: (f.label, f.size, f.digest)))


def _usual(files: list[Features]) -> list[Features]:
    """Each encoder's usual layers, and its norm2 layers only without those."""

    def encoder(features: Features) -> tuple[str, int, str]:
        return str(features.key.get("weights")), features.size, features.dataset

    usual = {encoder(features) for features in files if not is_norm2(features.key)}
    return [
        features
        for features in files
        if not (is_norm2(features.key) and encoder(features) in usual)
    ]


def choose_files(find: FindConfig, tokens: bool = False) -> tuple[list[Features], list[Failure]]:
    """The feature files that the settings name, of tokens or pooled ones, and what can't be had.

    Raises:
        CacheError: none can be had.
        RequestError: several keys fit one request.
    """
    if find.files:
        found, failures = [], []
        for path in {os.path.realpath(path): path for path in find.files}.values():
            try:
                found.append(_open_images(path, tokens))
            except (CacheError, RequestError, OSError) as error:
                failures.append(Failure(path.name, str(error)))
        if not found:
            raise CacheError("; ".join(failure.why for failure in failures))
        return found, failures
    from cache.catalogue import Wish, find_features

    wish = Wish(find.models, find.sizes, find.data, dict(find.where), tokens=tokens)
    found, troubles = find_features(find.folder, wish)
    return found, [Failure("features", trouble) for trouble in troubles]


def _open_images(path: Path, tokens: bool) -> Features:
    from cache.features import open_features

    features = open_features(path)
    if features.is_text:
        raise RequestError(f"{path} holds text features; use --kind zeroshot with the image file")
    if tokens and not features.is_tokens:
        raise RequestError(
            f"{path} holds no patch tokens; make them with `extract --tokens -1` and the rest of its "
            f"command:\n  {features.header.cure}"
        )
    if features.is_tokens and not tokens:
        raise RequestError(
            f"{path} holds patch tokens, which --kind segment, decoder and attentive read; name the "
            "pooled file"
        )
    return features
