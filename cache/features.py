"""Reading features: a complete file's layers, labels, splits and key, for probes and notebooks."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.aggregate import aggregate_rows
from cache.commands.names import encoder_label
from cache.errors import CacheMiss, RequestError
from cache.format.key import PARTIAL, partial_path
from cache.format.read import Header, parse_cost, read_header, read_table
from cache.format.rounding import Rounding, summarise_rounding
from cache.format.sample_tables import SPLITS
from cache.format.spec import (
    ERROR,
    HASH,
    NO_FEATURES,
    PICTURE,
    SCALE,
    THUMBNAIL,
    TOKENS,
    is_by_unit,
)
from cache.leaks import number_copies
from cache.stored import StoredArrays, count_done, incomplete_message, read_extent

POOLS = ("cls", "mean", "head", "proj")
META = "samples/meta/"


def open_features(path: str | Path) -> "Features":
    """Open a complete feature file.

    Args:
        path: a ``.h5`` file that ``extract`` made.

    Raises:
        CacheMiss: there is no such file, or it isn't complete yet.
        BrokenCache: it is damaged, truncated, or no feature file.
    """
    path = Path(path)
    if path.is_dir():
        raise CacheMiss(f"{path} is a folder; name feature files, or their root with --features")
    if not path.exists():
        if not partial_path(path).exists():
            raise CacheMiss(f"no features at {path}; `cache ls` lists what there is")
        path = partial_path(path)
    header = read_header(path)
    n_done = count_done(header)
    # By the records, not by the name: whoever renames a file doesn't complete it.
    if path.name.endswith(PARTIAL) or n_done < header.n_units:
        raise CacheMiss(incomplete_message(header, n_done))
    return Features(header)


class Features(StoredArrays):
    """One feature file: what each layer of one encoder made of every image of one data set.

    N rows (images as the encoder saw them), S samples (what carries a label). In 2D data sets
    each sample is one row. Everything is read when asked for; arrays are read-only.
    """

    def __init__(self, header: Header) -> None:
        super().__init__(header)
        self._order: NDArray[np.intp] | None = None  # of samples, see ``in_order``

    def __repr__(self) -> str:
        if self.is_text:
            return f"<Features {self.dataset} · texts of {self.model} · {self.n_rows} prompts>"
        if self.is_tokens:
            return (
                f"<Features {self.dataset} · tokens of {self.model} at {self.size} px · "
                f"{self.n_rows} rows · {self.n_layers} layers>"
            )
        return (
            f"<Features {self.dataset} · {self.model} at {self.size} px · {self.n_rows} rows · "
            f"{self.n_layers} layers · pools {', '.join(self.pools)}>"
        )

    # ------------------------------------------------------------------ what it is

    @property
    def key(self) -> Mapping[str, Any]:
        """What made these features: everything that changes them, and nothing else."""
        return self.header.key

    @property
    def digest(self) -> str:
        """SHA-256 of the key, 64 hex digits."""
        return self.header.digest

    @property
    def model(self) -> str:
        """The encoder's short name."""
        return self.header.attributes["model"]

    @property
    def label(self) -> str:
        """The encoder's name beside others of its architecture, as tables show it."""
        return encoder_label(self.model, self.notes, self.key)

    @property
    def encoder(self) -> str:
        """The encoder's full name."""
        return self.header.attributes["encoder"]

    @property
    def size(self) -> int:
        """Side of the encoder's input, pixels; 0 of texts."""
        return self.header.attributes["size"]

    @property
    def is_text(self) -> bool:
        """Whether the rows are prompts, not images: see "Text files" in FORMAT.md."""
        return self.header.is_text

    @property
    def is_part(self) -> bool:
        """Whether it holds only some images of its data set: ``extract --ids``. For maps alone."""
        return self.header.is_part

    @property
    def is_tokens(self) -> bool:
        """Whether the features are patch tokens with a grid: see "Token files" in FORMAT.md."""
        return self.header.is_tokens

    @property
    def dataset(self) -> str:
        return self.header.attributes["dataset"]

    @property
    def task(self) -> str:
        """One of MedMNIST's four words, e.g. "binary-class", or "regression"."""
        return self.header.attributes["task"]

    @property
    def class_names(self) -> list[str]:
        return self.header.attributes["class_names"]

    @property
    def notes(self) -> Mapping[str, Any]:
        """What a reader of numbers should know: transform in words, marks such as random weights."""
        return json.loads(self.header.attributes["notes"])

    @property
    def fingerprint(self) -> Mapping[str, list[float]]:
        """The fixed picture's features in short, see fingerprint.py; empty in older files."""
        return self.header.fingerprint

    @property
    def versions(self) -> Mapping[str, str]:
        """Of the programs that made the file."""
        return json.loads(self.header.attributes["versions"])

    @property
    def cost(self) -> Mapping[str, Any]:
        """What the extraction took: images/s, device, when."""
        raw = read_extent(self.header, self.header.cost).tobytes()
        return parse_cost(raw, self.path, self.header.cure)

    @property
    def n_rows(self) -> int:
        return self.header.n_rows

    # ------------------------------------------------------------------ samples

    @cached_property
    def labels(self) -> NDArray[Any]:
        """int64 (S,) class numbers, or (S, C) of 0 and 1 for several labels at once.

        Where nobody knows, -1 (``cache.task.MISSING``); of several labels -2 where somebody says
        that it isn't clear (UNCERTAIN). Continuous labels are float64 (S,), NaN where unknown.
        """
        return read_table(self.header, "samples/labels")

    @cached_property
    def split(self) -> NDArray[np.str_]:
        """(S,) "train", "val" or "test"."""
        return np.array(SPLITS)[read_table(self.header, "samples/split")]

    @cached_property
    def ids(self) -> NDArray[np.str_]:
        """(S,) sample ids, unique."""
        return read_table(self.header, "samples/ids")

    @cached_property
    def groups(self) -> NDArray[np.str_] | None:
        """(S,) patients, where the data set knows them."""
        known = "samples/groups" in self.header.tables
        return read_table(self.header, "samples/groups") if known else None

    @cached_property
    def meta(self) -> Mapping[str, NDArray[Any]]:
        """Column -> (S,) texts or numbers: age, sex, site..., where the data set has them."""
        names = [name for name in self.header.tables if name.startswith(META)]
        return {name.removeprefix(META): read_table(self.header, name) for name in names}

    @cached_property
    def row_sample(self) -> NDArray[np.int64]:
        """(N,) index of each row's sample."""
        return read_table(self.header, "rows/sample")

    @cached_property
    def rows_are_samples(self) -> bool:
        """Whether each row is one sample, in order; else rows are slices of volumes, or views."""
        # Not by their number alone: rows in another order would be given their neighbours' labels.
        return np.array_equal(self.row_sample, np.arange(self.header.n_samples))

    def laid_over(
        self, split: NDArray[np.str_], labels: NDArray[Any], task: str, class_names: Sequence[str]
    ) -> "Features":
        """The same features with another split, and other labels, of the samples.

        Args:
            split: (S,) "train", "val" or "test"; "" of samples that are in none.
            labels: (S,) or (S, C), as ``labels``.
            task: theirs.
            class_names: theirs.
        """
        attributes = {**self.header.attributes, "task": task, "class_names": [*class_names]}
        found = Features(dataclasses.replace(self.header, attributes=attributes))
        vars(found).update(split=split, labels=labels)  # where cached properties look first
        return found

    def in_order(self, ids: NDArray[np.str_]) -> "Features":
        """The same features, whose samples come in another order; rows stay in the file's.

        Args:
            ids: (S,) all of its own.
        """
        if np.array_equal(ids, self.ids):
            return self
        order = np.argsort(self.ids)
        order = order[np.searchsorted(self.ids, ids, sorter=order)]
        found = Features(self.header)
        groups = None if self.groups is None else self.groups[order]
        tables = {"ids": ids, "labels": self.labels[order], "split": self.split[order]}
        tables |= {"groups": groups, "meta": {n: of[order] for n, of in self.meta.items()}}
        vars(found).update(tables, _order=order)  # where cached properties look first
        return found

    def by_sample(self, x: NDArray[Any], how: str) -> NDArray[Any]:
        """(N, D) of rows -> (S, D) of samples, several rows of one as ``aggregate_rows`` has it."""
        if not self.rows_are_samples:
            x = aggregate_rows(x, self.row_sample, self.header.n_samples, how)
        return x if self._order is None else x[self._order]

    # ------------------------------------------------------------------ layers

    @cached_property
    def layers(self) -> dict[int, list[str]]:
        """Layer number -> its pools, in order."""
        layers: dict[int, list[str]] = {}
        for name in self.header.arrays:
            if name.startswith("layers/") and not is_by_unit(name):
                _, layer, pool = name.split("/")
                layers.setdefault(int(layer), []).append(pool)
        return layers

    @property
    def n_layers(self) -> int:
        return len(self.layers)

    @property
    def pools(self) -> list[str]:
        """Every pool that some layer has, in the order cls, mean, head, proj; of tokens these."""
        names = {name.rsplit("/", 1)[-1] for name in self.header.arrays if name not in NO_FEATURES}
        return [pool for pool in (*POOLS, TOKENS) if pool in names]

    @property
    def last_layer(self) -> int:
        """The number of the encoder's last layer, which ``head`` and ``proj`` belong to."""
        return max(self.key["layers"]["of"] - 1, *self.layers, 0)

    def find_layer(self, layer: int) -> int:
        """The absolute number of a layer; negative ones count from the encoder's end.

        Raises:
            RequestError: the file doesn't hold this layer.
        """
        absolute = layer if layer >= 0 else self.last_layer + 1 + layer
        of_last = {"head", "proj"} & {*self.pools}
        if absolute in self.layers or (absolute == self.last_layer and of_last):
            return absolute
        stored = _ranges(sorted(self.layers)) or "none"
        raise RequestError(
            f"{self.path.name} has no layer {layer}: {self.encoder} has layers "
            f"0..{self.last_layer}, stored are {stored}"
        )

    def array_name(self, layer: int, pool: str) -> str:
        """The HDF5 name of an array, e.g. "layers/11/cls", "layers/11/tokens" or "head".

        Raises:
            RequestError: the file doesn't hold it.
        """
        layer = self.find_layer(layer)
        of_layer = pool in ("cls", "mean", TOKENS)
        name = f"layers/{layer:02d}/{pool}" if of_layer else pool
        there = of_layer or (pool in POOLS and layer == self.last_layer)
        if there and name in self.header.arrays:
            return name
        has = [*self.layers.get(layer, [])]
        if layer == self.last_layer:
            has += [pool for pool in ("head", "proj") if pool in self.header.arrays]
        raise RequestError(
            f"{self.path.name} has no pool {pool!r} at layer {layer} of {self.encoder}; "
            f"there it has {', '.join(has)}"
        )

    @property
    def hashes(self) -> NDArray[np.uint8] | None:
        """(N, 16) start of the SHA-256 of each row's pixels; None in files that have none.

        Raises:
            BrokenCache: a unit's rows are not those that were written.
        """
        return self._checked(HASH) if HASH in self.header.arrays else None

    @cached_property
    def copies(self) -> NDArray[np.intp] | None:
        """(S,) a number for each sample, the same for exact copies; None in files without hashes.

        Raises:
            BrokenCache: a unit's rows are not those that were written.
        """
        hashes = self.hashes
        if hashes is None:
            return None
        return number_copies(hashes, self.row_sample, len(self.ids))

    @property
    def thumbnails(self) -> NDArray[np.uint8] | None:
        """(N, t * t) small grey picture of each row, a read-only map; None in files without."""
        return self._map(THUMBNAIL) if THUMBNAIL in self.header.arrays else None

    @property
    def pictures(self) -> NDArray[np.uint8] | None:
        """(N, 224, 224, 3) each row as the encoder sees it, a read-only map; None in files without.

        The square that the grid of its tokens covers, levels 0 to 255.
        """
        return self._map(PICTURE) if PICTURE in self.header.arrays else None

    def memmap(self, layer: int = -1, pool: str = "mean") -> NDArray[Any]:
        """(N, D) features as a read-only map of the file: nothing is read until it is used.

        Fit for taking a few rows of many. Checksums are not checked; ``array`` does. Of "tokens"
        (N, h, w, D) as they are stored: int8 without its scales, which ``tokens`` multiplies out.

        Raises:
            RequestError: the file doesn't hold this layer or pool.
        """
        return self._map(self.array_name(layer, pool))

    def array(self, layer: int = -1, pool: str = "mean") -> NDArray[Any]:
        """(N, D) features in memory, every unit compared with its checksum.

        Args:
            layer: number of the block or stage, from 0; negative from the encoder's end.
            pool: "cls", "mean", or of the last layer "head" or "proj"; "tokens" gives them all, as
                ``tokens`` does.

        Raises:
            RequestError: the file doesn't hold this layer or pool.
            BrokenCache: a unit's rows are not those that were written.
        """
        if pool == TOKENS:
            return self.tokens(layer, slice(None))
        return self._checked(self.array_name(layer, pool))

    # ------------------------------------------------------------------ tokens

    def grid(self, layer: int = -1) -> tuple[int, int]:
        """(h, w) places of a layer's tokens: rows from the input's top, columns from its left.

        Raises:
            RequestError: the file doesn't hold tokens of this layer.
        """
        h, w = self.header.arrays[self.array_name(layer, TOKENS)].shape[1:3]
        return h, w

    def tokens(self, layer: int, rows: slice | NDArray[np.integer] | Sequence[int]) -> NDArray[Any]:
        """Tokens of some rows, in memory; every unit that they lie in is checked once.

        Beside what is returned, one unit is in memory at a time: below 64 MB, or 16 rows.

        Args:
            layer: number of the block or stage, from 0; negative from the encoder's end.
            rows: which of the N, in any order; negative ones count from the end.

        Returns:
            (n, h, w, D) float16 or float32 as stored; int8 multiplied out to float32.

        Raises:
            RequestError: the file doesn't hold tokens of this layer.
            BrokenCache: a unit's rows are not those that were written.
        """
        name = self.array_name(layer, TOKENS)
        numbers = np.arange(self.n_rows)[rows]
        extent = self.header.arrays[name]
        rounded = extent.dtype == np.int8
        found = np.empty((len(numbers), *extent.shape[1:]), np.float32 if rounded else extent.dtype)
        units = numbers // self.header.unit_rows
        for unit in np.unique(units).tolist():
            here = np.flatnonzero(units == unit)
            rows_there = numbers[here] - self.header.rows_of(unit)[0]
            scale = self.stored(name + SCALE, unit)[0] if rounded else None
            _take(self.stored(name, unit), rows_there, scale, found, here)
        return found

    def rounding(self, layer: int = -1) -> Rounding | None:
        """What rounding to int8 did to a layer's tokens; None where nothing was rounded.

        Raises:
            RequestError: the file doesn't hold tokens of this layer.
            BrokenCache: a unit's sums are not those that were written.
        """
        name = self.array_name(layer, TOKENS) + ERROR
        return summarise_rounding(self._checked(name)) if name in self.header.arrays else None

    def check_thumbnails(self) -> None:
        """Compare the thumbnails with their checksums, which reading them through the map doesn't.

        Raises:
            BrokenCache: a unit's rows are not those that were written.
        """
        if self.thumbnails is not None:
            self._compare(THUMBNAIL, self.thumbnails)


def _take(
    stored: NDArray[Any],
    rows: NDArray[np.intp],
    scale: NDArray[np.float32] | None,
    found: NDArray[Any],
    places: NDArray[np.intp],
) -> None:
    """Put some rows of a unit in their places, one by one: without a copy of them all."""
    for row, place in zip(rows.tolist(), places.tolist(), strict=True):
        if scale is None:
            found[place] = stored[row]
        else:
            np.multiply(stored[row], scale, out=found[place])


def _ranges(numbers: list[int]) -> str:
    """[0, 1, 2, 5] -> "0..2, 5"."""
    parts: list[list[int]] = []
    for number in numbers:
        if parts and number == parts[-1][-1] + 1:
            parts[-1].append(number)
        else:
            parts.append([number])
    return ", ".join(f"{p[0]}..{p[-1]}" if len(p) > 1 else str(p[0]) for p in parts)
