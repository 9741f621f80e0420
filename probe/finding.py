"""Which feature files are meant: by path, or by what they are of."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

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
        (), "encoders, comma separated", flag="--model", short="-m", metavar="NAMES"
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

    @property
    def folder(self) -> Path:
        return self.features or features_root()


def choose_files(find: FindConfig) -> tuple[list[Features], list[Failure]]:
    """The feature files that the settings name, and what can't be had.

    Raises:
        CacheError: none can be had.
        RequestError: several keys fit one request.
    """
    if find.files:
        found, failures = [], []
        for path in {os.path.realpath(path): path for path in find.files}.values():
            try:
                found.append(_open_images(path))
            except (CacheError, RequestError, OSError) as error:
                failures.append(Failure(path.name, str(error)))
        if not found:
            raise CacheError("; ".join(failure.why for failure in failures))
        return found, failures
    from cache.catalogue import Wish, find_features

    wish = Wish(find.models, find.sizes, find.data, dict(find.where))
    found, troubles = find_features(find.folder, wish)
    return found, [Failure("features", trouble) for trouble in troubles]


def _open_images(path: Path) -> Features:
    from cache.features import open_features

    features = open_features(path)
    if features.is_text:
        raise RequestError(f"{path} holds text features; use --kind zeroshot with the image file")
    return features
