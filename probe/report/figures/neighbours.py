"""How many nearest neighbours encoders share."""

from dataclasses import dataclass

from cache.errors import RequestError
from probe.report.figures.cka import LAST, encoder_names, in_tile
from probe.report.figures.files import AskedOfFiles, caption_of, panel_of
from probe.report.figures.frame import Frame
from probe.report.figures.heat import Scale, Tile
from probe.report.findings.alike import neighbours_alike

SCALE = Scale(0, 1, "share of neighbours")
PATIENTS = "Images of one patient are near each other in any encoder: patients with several raise the numbers."


@dataclass(frozen=True)
class Overlap(Tile):
    """The share of each sample's k nearest others that two encoders agree on."""

    dataset: str
    split: str
    encoder: str  # of the row
    place: str
    other: str  # of the column
    other_place: str
    k: int
    n: int  # samples
    chance: float  # of encoders that have nothing in common


def make(asked: AskedOfFiles) -> Frame[Overlap]:
    """A panel for each data set, an encoder's last layer each.

    Raises:
        RequestError: a data set has one layer of one encoder.
    """
    tiles: list[Overlap] = []
    ways: list[tuple[str, str]] = []
    notes: list[str] = []
    has_patients = False
    for dataset, files in asked.of_datasets().items():
        places = [place for file in files for place in asked.places(file, LAST)]
        if len(places) < 2:
            raise RequestError(
                f"neighbours are compared with those of another encoder, and of {dataset} there is "
                "one; `extract --model` makes others"
            )
        found = neighbours_alike(places, asked.k, split=asked.split, seed=asked.seed)
        has_patients |= any(file.groups is not None for file in files)
        ways.append((dataset, found.describe()))
        panel = f"{panel_of(found.samples)}; by chance {found.chance:.2g}"
        notes += [f"{dataset}: {note}" for note in found.samples.notes]
        names = encoder_names(found.encoders)
        pairs = iter(found.pairs())
        for row in names:
            for column in names:
                of = next(pairs)
                tiles.append(
                    Overlap(
                        *(panel, row, column, of.overlap, in_tile(of.overlap), "", False),
                        *(dataset, asked.split, of.encoder, of.place, of.other, of.other_place),
                        *(of.k, of.n, of.chance),
                    )
                )
    words = [caption_of(ways), *([PATIENTS] if has_patients else [])]
    return Frame("heat", tuple(tiles), " ".join(words), tuple(notes), scale=SCALE)
