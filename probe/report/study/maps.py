"""Maps of patch tokens on a study's page: of each token file that its rows read."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence

from cache.errors import CacheError, RequestError
from probe.report.formats.cells import Page
from probe.report.maps.asked import OVERLAY, RANDOM, WRONG, AskedOfMaps
from probe.report.maps.chosen import segmentations
from probe.report.maps.given import given_of
from probe.report.maps.make import make_sheet
from probe.report.maps.sheet import Cell
from probe.report.rows.people import People
from probe.report.rows.stored import StoredRow
from probe.report.study.parts import Block, MapSheet

MOST_FILES, MOST_IMAGES = 4, 4
QUALITY = 88  # of JPEG
MAPS = "A few test images as an encoder's patch tokens have them; `report maps` shows others."


def maps_of(rows: Sequence[StoredRow], people: People) -> Iterator[Block]:
    """A sheet of each token file; of masks the worst test images, where a row has some.

    Args:
        rows: of the study.
        people: that knows its files.
    """
    used = {source.digest for of in rows for source in of.row.sources}
    files = [file for file in people.files if file.is_tokens and file.digest in used]
    notes: dict[str, None] = {}
    for file in files[:MOST_FILES]:
        own = [of for of in rows if of.row.encoded.dataset == file.dataset]
        called = f"{file.label} at {file.size} px on {file.dataset}"
        has_masks = any(of.row.measured.test for of in segmentations(own, file))
        asked = [(called, AskedOfMaps(images=f"{RANDOM}:{MOST_IMAGES}"))]
        if has_masks:
            worst = AskedOfMaps(images=f"{WRONG}:{MOST_IMAGES}", what=(OVERLAY,))
            asked.append((f"{called}: the masks of smallest Dice", worst))
        for title, wish in asked:
            try:
                yield MapSheet(title, make_sheet(wish, given_of([file], own, people=people)))
            except (RequestError, CacheError, OSError) as error:
                notes[f"{title}: {error}"] = None
    if len(files) > MOST_FILES:
        notes[f"{MOST_FILES} of {len(files)} token files are shown"] = None
    if notes:
        yield Page((), notes=tuple(notes))


def encoded(cell: Cell) -> tuple[bytes, str]:
    """A map as a picture file, PNG or JPEG, whichever is smaller; and its media type."""
    from PIL import Image

    image = Image.fromarray(cell.pixels())
    found = []
    for form, how in (
        ("png", {"optimize": True}),
        ("jpeg", {"quality": QUALITY, "subsampling": 0}),
    ):
        file = io.BytesIO()
        image.save(file, form, **how)
        found.append((file.getvalue(), f"image/{form}"))
    return min(found, key=lambda of: len(of[0]))
