"""Columns of maps of one token file: what is asked for of each layer, over all images that are shown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from cache.commands.names import counted, short_label
from cache.errors import RequestError
from cache.geometry import Geometry
from probe.arrays import Array, Doubles, Floats
from probe.places import ALL
from probe.report.maps.asked import (
    ATTENTION,
    COSINE,
    PARTS,
    PCA,
    TOKEN_MAPS,
    AskedOfMaps,
)
from probe.report.maps.chosen import (
    Image,
    best_of,
    command,
    is_of,
    masked,
    row_ids,
    said_of,
    segmentations,
)
from probe.report.maps.given import Given
from probe.report.maps.overlaid import Overlays, Predicted
from probe.report.maps.sheet import (
    DIM,
    Cell,
    Key,
    Layer,
    Maps,
    grey_layer,
    numbered_layer,
    opaque,
    picture_layer,
    scale_of,
    scaled_layer,
)
from probe.report.rows.stored import StoredRow
from probe.report.statistics.token_maps import (
    EDGES,
    OTSU,
    ZERO,
    cosines,
    foreground_pca,
    grid_cell,
    norms,
    parts,
)

if TYPE_CHECKING:
    from cache.features import Features

ALIKE = 6.0  # levels of 255 that pictures differ by, at most, where only their sizes differ
BETWEEN = 0.5  # share of the first component between images of which a note is made
# Paul Tol's muted colours (personal.sron.nl/~pault, 2021) and two more of his: no class of masks has them.
OF_PARTS = (
    *("#332288", "#DDCC77", "#44AA99", "#CC6677", "#88CCEE", "#117733"),
    *("#882255", "#999933", "#AA4499", "#DDDDDD", "#661100", "#6699CC"),
)
OLD = "Tokens much longer than others near them often hold no place at all (registers; Darcet et al. 2024)."


@dataclass
class Said:
    """What columns leave to say, each once, in order."""

    told: dict[str, None] = field(default_factory=dict)  # sentences of the caption
    noted: dict[str, None] = field(default_factory=dict)
    keys: dict[Key, None] = field(default_factory=dict)  # of colours
    pictures: list[Array] = field(default_factory=list)  # that stand in the last column of images


def _look_alike(pictures: Sequence[Array], others: Sequence[Array]) -> bool:
    """Whether two encoders see the same squares, so that one picture stands for both."""
    return len(pictures) == len(others) and all(
        np.abs(a.astype(np.int16) - b).mean() < ALIKE for a, b in zip(pictures, others, strict=True)
    )


@dataclass
class OfFile:
    """The columns of one token file."""

    features: Features
    asked: AskedOfMaps
    what: Sequence[str]
    images: Sequence[Image]
    given: Given
    said: Said  # added to

    @property
    def is_first(self) -> bool:
        """Whether it is the file that the picture and true masks are shown with."""
        return self.features is self.given.files[0]

    @cached_property
    def rows(self) -> Array:
        """The row of each image in this file."""
        places = {str(name): i for i, name in enumerate(row_ids(self.features).tolist())}
        return np.array([places[image.id] for image in self.images], np.intp)

    @cached_property
    def pictures(self) -> list[Array | None]:
        """Each image as this encoder sees it."""
        from cache.format.spec import PICTURE

        if self.features.pictures is None:
            self.said.noted[
                f"{self.features.path.name} has no pictures; `{command(self.features)}`, without "
                "--no-pictures, makes it with them"
            ] = None
            return [None] * len(self.rows)
        n = self.features.header.unit_rows
        parts = {u: self.features.stored(PICTURE, u) for u in np.unique(self.rows // n).tolist()}
        return [parts[row // n][row % n] for row in self.rows.tolist()]

    @property
    def group(self) -> str:
        files = self.given.files
        if len(files) == 1:
            return ""
        sizes = {features.size for features in files}
        size = f" {self.features.size} px" if len(sizes) > 1 else ""
        return f"{short_label(self.features.label)}{size}"

    def columns(self) -> Iterator[Maps]:
        known = [picture for picture in self.pictures if picture is not None]
        if known and not _look_alike(known, self.said.pictures):
            self.said.pictures = known
            cells = tuple(
                Cell(picture_layer(p), mark=self._mark(i)) for i, p in enumerate(self.pictures)
            )
            yield Maps(self.group, "image", (), cells)
        layers = self._layers() if {*self.what} & {*TOKEN_MAPS} else []
        for what in self.what:
            if what in TOKEN_MAPS:
                for layer in layers:
                    yield self._of_tokens(what, layer)
            elif what == ATTENTION:
                yield from self._attention()
            else:
                yield from self._overlays()

    def _layers(self) -> list[int]:
        features = self.features
        if self.asked.layers is None or self.asked.layers == ALL:
            return sorted(features.layers)[0 if self.asked.layers else -1 :]
        found = []
        for layer in self.asked.layers:
            try:
                found.append(features.find_layer(int(layer)))
            except RequestError as error:
                wish = sorted({*features.layers, int(layer)}) if int(layer) >= 0 else [int(layer)]
                raise RequestError(
                    f"{error}; `{command(features, layers=wish)}` stores it"
                ) from None
        return list(dict.fromkeys(found))

    # ------------------------------------------------------------------ of tokens

    def _of_tokens(self, what: str, layer: int) -> Maps:
        if what == COSINE:
            return self._cosine(layer)
        # In the file's order, so that colours don't depend on the order in which images are named.
        order = np.argsort(self.rows)
        back = np.argsort(order)
        x = self.features.tokens(layer, self.rows[order])
        where = f"layer {layer}"
        if what == PCA:
            return self._pca(layer, x, back)
        if what == PARTS:
            found = parts(x, self.asked.k, is_cosine=self.asked.cosine, seed=self.asked.seed)
            cells = [
                Cell((Layer(numbered_layer(labels, OF_PARTS).rgba, is_grid=True),))
                for labels in found.labels[back]
            ]
            length = " of length 1" if self.asked.cosine else ""
            self.said.told[
                f"k-means: tokens{length} in {self.asked.k} parts, the same in all images of a column; in %: "
                "variance between parts."
            ] = None
            return Maps(self.group, "k-means", (where, f"{100 * found.share:.0f} %"), tuple(cells))
        lengths = norms(x)[back]
        self.said.told[f"Norm: length of each token. {OLD}"] = None
        return self._scaled("norm", where, lengths)

    def _pca(self, layer: int, x: Floats, back: Array) -> Maps:
        threshold = None if self.asked.threshold == "none" else self.asked.threshold
        try:
            found = foreground_pca(x, threshold, flip=self.asked.flip)
        except RequestError as error:
            raise RequestError(f"{self.features.path.name}, layer {layer}: {error}") from None
        who = " ".join(filter(None, [self.group, f"layer {layer}"]))
        n = len(x)
        if threshold is not None and not found.is_clear and not self.asked.flip:
            self.said.noted[
                f"PCA, {who}: the border lies below the middle in {found.n_agree} of "
                f"{counted(n, 'image')}, and not by much or in too few: which side is foreground is a "
                "guess; --flip turns it, --threshold none shows both"
            ] = None
        if n > 1 and found.between > BETWEEN:
            self.said.noted[
                f"PCA, {who}: {found.between:.0%} of the first component's variance lies between images: "
                "it tells images apart, not places; show images that are more alike, or one alone"
            ] = None
        elif n > 1 and found.colours_between > BETWEEN:
            self.said.noted[
                f"PCA, {who}: {found.colours_between:.0%} of the variance of the foreground's first component "
                "lies between images: its red tells them apart, not their parts"
            ] = None
        self.said.told[_told_pca(self.asked.threshold, n)] = None
        alpha = 255 * found.foreground
        rgba = np.dstack  # (h, w, 3) and (h, w) -> (h, w, 4), image by image
        cells = []
        for i, place in enumerate(back.tolist()):
            colours = opaque(found.colours[place] * 255)[..., :3]
            layer_of = Layer(rgba([colours, alpha[place].astype(np.uint8)]), is_grid=True)
            cells.append(Cell((*grey_layer(self.pictures[i], DIM), layer_of)))
        shares = ", ".join(f"{100 * share:.0f}" for share in found.shares)
        return Maps(self.group, "PCA", (f"layer {layer}", f"{shares} %"), tuple(cells))

    def _cosine(self, layer: int) -> Maps:
        image, row, column = self._seed(layer)
        found = cosines(self.features.tokens(layer, self.rows), image, row, column)
        assert self.asked.patch is not None
        self.said.told[
            f"Cosine of each token with that of the framed patch of {self.asked.patch.image}."
        ] = None
        return self._scaled("cosine", f"layer {layer}", found)

    def _seed(self, layer: int) -> tuple[int, int, int]:
        """Which image, and row and column of its grid, the patch that is named is of."""
        patch, features = self.asked.patch, self.features
        assert patch is not None
        place = next(i for i, image in enumerate(self.images) if image.id == patch.image)
        h, w = features.grid(layer)
        if patch.is_share:
            return place, *grid_cell(patch.y, patch.x, (h, w))
        if patch.y >= h or patch.x >= w:
            raise RequestError(
                f"--patch: the grid of {features.path.name} is {h} x {w}, rows 0..{h - 1} and columns "
                f"0..{w - 1}; or name a place of the picture, as in {patch.image}:50%,50%"
            )
        return place, int(patch.y), int(patch.x)

    def _mark(self, number: int) -> tuple[float, float, float, float] | None:
        """The frame of the named patch in its image."""
        patch = self.asked.patch
        if patch is None or COSINE not in self.what or patch.image != self.images[number].id:
            return None
        layer = self._layers()[0]
        _, row, column = self._seed(layer)
        h, w = self.features.grid(layer)
        return column / w, row / h, (column + 1) / w, (row + 1) / h

    def _scaled(self, title: str, where: str, values: Doubles) -> Maps:
        scale = scale_of(values, title)
        cells = tuple(
            Cell((scaled_layer(each, scale),), mark=self._mark(i) if title == "cosine" else None)
            for i, each in enumerate(values)
        )
        return Maps(self.group, title, (where,), cells, scale)

    # ------------------------------------------------------------------ of rows

    def _attention(self) -> Iterator[Maps]:
        rows = [of for of in self.given.rows if is_of(of, self.features)]
        having = [(of, arrays) for of in rows if "attention_maps" in (arrays := dict(of.scores()))]
        if not having:
            raise RequestError(
                f"no row of {self.features.label} on {self.features.dataset} holds attention to patches; "
                f"`probe --kind attentive --data {self.features.dataset} --model {self.features.model}` "
                "makes one (of fusion, which attends to layers, see `report figure attention`)"
            )
        of, arrays = having[0]
        ids = arrays["attention_ids"]
        trainings = [
            other["attention_maps"]
            for row, other in having
            if row.row.question == of.row.question and np.array_equal(other["attention_ids"], ids)
        ]
        if len(trainings) < len(having):
            self.said.noted[
                f"attention is of {of.path}, the first of {len(having)} rows; name another by --row"
            ] = None
        mean = np.mean([maps.astype(np.float64) for maps in trainings], axis=0)
        places = {str(name): i for i, name in enumerate(ids.tolist())}
        yield self._attended(of, mean, places, len(trainings))

    def _attended(self, of: StoredRow, maps: Doubles, places: Mapping[str, int], n: int) -> Maps:
        """Attention (n_kept, h, w) of n trainings, times what each patch would get if all were equal."""
        samples = self.features.ids[self.features.row_sample[self.rows]]
        n_patches = maps.shape[1] * maps.shape[2]
        found = [
            maps[places[str(name)]] * n_patches if str(name) in places else None for name in samples
        ]
        known = [each for each in found if each is not None]
        if not known:
            raise RequestError(
                f"{of.path} holds attention of none of these images, but of {len(places)} test images; "
                f"`--images {','.join([*places][:2])}` shows some of those"
            )
        scale = scale_of(np.stack(known), "attention")
        scale = type(scale)(0.0, scale.high, scale.label)
        cells = tuple(
            Cell((), "not in its test") if each is None else Cell((scaled_layer(each, scale),))
            for each in found
        )
        self.said.told[
            f"Attention: mean over queries{f' and {n} trainings' if n > 1 else ''}, times what each patch "
            "would get if all were equal."
        ] = None
        return Maps(self.group, "attention", (said_of(of),), cells, scale)

    def _overlays(self) -> Iterator[Maps]:
        masks, dataset = self.given.masks, self.features.dataset
        if masks is None:
            raise RequestError(
                f"{dataset} has no masks below {self.features.path.parent}; name them with --masks FILE, "
                f"or `{command(self.features)}` writes those of a set that has some"
            )
        over = Overlays(masks, Geometry.of(self.features.key))
        rows = self._segmentations()
        if rows and not self.given.is_named:
            best = best_of(rows)
            if len(rows) > 1:
                self.said.noted[
                    f"masks are those of {said_of(best)}, the best of {len(rows)} rows on val; --row names "
                    "others"
                ] = None
            rows = [best]
        if self.is_first:
            cells = [over.true(image.id, p) for image, p in self._each()]
            yield Maps(self.group, "true", (), tuple(cells))
        shown = 0
        for of in rows:
            predicted = Predicted.of(of.scores())
            if predicted is None:
                self.said.noted[f"{of.path} keeps no predicted masks; ask again"] = None
                continue
            shown += 1
            each = list(self._each())
            cells = [over.predicted(image.id, p, predicted) for image, p in each]
            yield Maps(self.group, "predicted", (said_of(of),), tuple(cells))
            cells = [over.wrong(image.id, p, predicted) for image, p in each]
            yield Maps(self.group, "errors", (said_of(of),), tuple(cells))
        if not rows:
            self.said.noted[
                f"no row says what is predicted: `probe --kind segment --data {dataset} --model "
                f"{self.features.model}` makes one"
            ] = None
        if self.is_first or shown:
            keys = over.keys(with_errors=shown > 0)
            self.said.keys |= dict.fromkeys(keys)
        cut = max(over.unseen(image.id) for image in self.images)
        if cut > 0.001:
            self.said.noted[f"up to {cut:.0%} of an image is cut off and isn't shown"] = None

    def _segmentations(self) -> list[StoredRow]:
        """Rows whose masks may be shown: all that are named, with several encoders beside its own."""
        if not self.given.is_named:
            return segmentations(self.given.rows, self.features)
        named = masked(self.given.rows)
        if len(self.given.files) == 1:
            return named
        return [of for of in named if is_of(of, self.features)]

    def _each(self) -> Iterator[tuple[Image, Array | None]]:
        return zip(self.images, self.pictures, strict=True)


def _told_pca(threshold: str | float, n: int) -> str:
    over = f"over {counted(n, 'image')} together"
    percent = f"from the {EDGES[0]:g}st to the {EDGES[1]:g}th percentile"
    if threshold == "none":
        return (
            f"PCA: the first three components of all patches, {over}, in red, green and blue, {percent}; in "
            "%: their variance."
        )
    above = {OTSU: "Otsu's threshold of", ZERO: "the mean of"}.get(
        str(threshold),
        f"{threshold:g} standard deviations of" if isinstance(threshold, float) else "",
    )
    return (
        f"PCA: foreground is above {above} the first component of all patches, {over}, whose sign makes "
        f"borders background; three components of the foreground are red, green and blue, {percent}; in "
        "%: their share of its variance."
    )
