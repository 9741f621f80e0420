"""A sheet of maps of one data set: of one token file, or of several beside each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from cache.errors import RequestError
from probe.report.maps.asked import OVERLAY, PCA, AskedOfMaps
from probe.report.maps.chosen import Chosen, Image, choose_images, row_ids
from probe.report.maps.columns import OfFile, Said
from probe.report.maps.given import Given
from probe.report.maps.sheet import Sheet

if TYPE_CHECKING:
    from cache.features import Features


def make_sheet(asked: AskedOfMaps, given: Given) -> Sheet:
    """All maps that are asked for.

    Raises:
        RequestError: files of several data sets; images, layers, masks or rows that aren't there.
    """
    names = list(dict.fromkeys(features.dataset for features in given.files))
    if len(names) > 1:
        raise RequestError(
            f"maps beside each other are of one data set, not of {' and '.join(names)}"
        )
    chosen = choose_images(asked, given)
    if asked.patch is not None and all(asked.patch.image != image.id for image in chosen.images):
        name = asked.patch.image
        for features in given.files:
            if name not in row_ids(features):
                raise RequestError(
                    f"--patch: {features.path.name} has no image {name}; name one that it has, such as "
                    f"{chosen.images[0].id}"
                )
        how = f"{chosen.how}, and {name}"
        chosen = replace(chosen, images=(Image(name), *chosen.images), how=how)
    what = asked.what or (PCA, *([OVERLAY] if given.masks is not None else []))
    said = Said()
    columns = [
        column
        for features in given.files
        for column in OfFile(features, asked, what, chosen.images, given, said).columns()
    ]
    lines = tuple((image.id, *image.lines) for image in chosen.images)
    caption = _caption(given.files, chosen, said, smooth=asked.smooth)
    return Sheet(lines, tuple(columns), (*said.keys,), caption, (*chosen.notes, *said.noted))


def _caption(files: Sequence[Features], chosen: Chosen, said: Said, *, smooth: bool) -> str:
    encoders = dict.fromkeys(_encoder(features) for features in files)
    first = f"Patch tokens of {' and '.join(encoders)} on {files[0].dataset}: {chosen.how}."
    between = "Colours between patches are interpolated: nothing is known there."
    return " ".join([first, *said.told, *([between] if smooth else [])])


def _encoder(features: Features) -> str:
    grids = dict.fromkeys(features.grid(layer) for layer in features.layers)
    said = ", ".join(f"{h} x {w}" for h, w in grids)
    norm = features.key.get("layers", {}).get("norm")
    is_raw = ", not normed" if norm == "none" else ""
    return f"{features.label} at {features.size} px (grid {said}{is_raw})"
