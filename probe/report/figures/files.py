"""What a figure of feature files is made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cache.commands.names import counted
from cache.commands.settings import check, setting
from cache.errors import RequestError
from probe.places import ALL, LAST_N, POOLS, Place, find_places
from probe.report.findings.alike import METHODS, PCA
from probe.report.findings.matched import SPLITS, Common

if TYPE_CHECKING:
    from cache.features import Features  # h5py: --help shouldn't wait for it


def _read_layer(text: str) -> int | str:
    try:
        return int(text)
    except ValueError:
        return text


@dataclass(frozen=True)
class AskedOfFiles:
    """What a frame of feature files is made of.

    Raises:
        RequestError: a word or number that a flag doesn't take.
    """

    files: Sequence[Features] = ()  # of one or several data sets
    layer: int | str | None = setting(
        None,
        "number of the block or stage, -1 the last; last4: the last four side by side; all",
        read=_read_layer,
        shown="cka and drift: all; else -1",
    )
    pools: tuple[str, ...] = setting(
        (),
        f"{', '.join(POOLS)}; several comma separated",
        flag="--pool",
        metavar="NAMES",
        among=POOLS,
        shown="cls where there is one, else mean",
    )
    split: str = setting("test", "whose samples", among=SPLITS)
    biased: bool = setting(False, "CKA as it was first defined; of noise it is about D / (D + n)")
    batch: int | None = setting(
        None, "CKA in minibatches of so many", least=4, shown="512 of more than 2048 samples"
    )
    method: str = setting(PCA, "how scatter lays samples out", among=METHODS)
    k: int = setting(10, "neighbours", least=1)
    seed: int = setting(0, "of samples that are drawn, of minibatches, of t-SNE and UMAP", least=0)

    def __post_init__(self) -> None:
        check(self)
        if isinstance(self.layer, str) and self.layer != ALL and not LAST_N.fullmatch(self.layer):
            raise RequestError(
                f"--layer takes a number, -1 for the last, {ALL}, or last4 for the last four side by "
                f"side; not {self.layer!r}"
            )

    @property
    def counted(self) -> str:
        """How much of what it is, for people."""
        return counted(len(self.files), "feature file")

    def of_datasets(self) -> dict[str, list[Features]]:
        """The files of each data set."""
        found: dict[str, list[Features]] = {}
        for file in self.files:
            found.setdefault(file.dataset, []).append(file)
        return found

    def places(self, file: Features, usual: int | str) -> list[Place]:
        """The layers and pools that are asked for.

        Raises:
            RequestError: the file has no such layer, or none of the pools.
        """
        layer = usual if self.layer is None else self.layer
        if layer != ALL or self.pools:
            return find_places(file, layer, self.pools)
        pool = next(pool for pool in POOLS if pool in file.pools)  # one, so that layers are alike
        return find_places(file, layer, [pool])


def panel_of(samples: Common, words: str = "") -> str:
    """What a panel is called: data set, how many samples of which split, and more."""
    return ": ".join(filter(None, [f"{samples.dataset}, {samples}", words]))


def caption_of(ways: Sequence[tuple[str, str]]) -> str:
    """How panels were made, each way once.

    Args:
        ways: data set and way of each panel.
    """
    found: dict[str, list[str]] = {}
    for dataset, way in ways:
        found.setdefault(way, []).append(dataset)
    if len(found) == 1:
        way = ways[0][1]
        return f"{way[0].upper()}{way[1:]}."
    return " ".join(f"{', '.join(dict.fromkeys(of))}: {way}." for way, of in found.items())
