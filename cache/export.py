"""A small feature file to share: some layers and pools, hashed ids, and nothing of this machine.

Features aren't anonymous. A vector finds its own image again among others, and may tell age, sex
or site; whoever may not have the images should not be given features without the same care. What
is taken away here is what names people and places outright.
"""

import hmac
import itertools
import os
import secrets
import shlex
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cache.errors import RequestError
from cache.features import Features
from cache.files import move_whole, work_folder
from cache.format.read import read_table
from cache.format.spec import HASH, NO_FEATURES, FileSpec, Samples, is_by_unit
from cache.leak_memory import count_leaks, counted_leaks
from cache.sharing import Sharing
from cache.splits.rules import DRAWN
from cache.store import FeatureWriter

EXPORTED = "exported_from"  # the note of such a file
ID_DIGITS = 32  # hex digits of a hashed id: 128 bits, no two of any data set are alike
# What probes read, and what says how the features came about. Any other note may name a place.
NOTES = (
    "transform",
    "licence",
    "weights",
    "weights_licence",
    "random_weights",
    "own_weights",
    "raw_layers",
    "seen",
    "protocol",
    "fitted",
    DRAWN,
)


def export_features(
    features: Features, path: Path, sharing: Sharing, *, overwrite: bool = False
) -> str | None:
    """Write some of a file's features as a file of their own, under the same key, in the same order.

    Thumbnails and pictures never go along: how many samples leak is counted before, and holds for
    the file's own split alone.

    Args:
        features: a complete file of images.
        path: where the new one will be. It appears there when it is whole.
        sharing: what of the file.
        overwrite: replace what is at ``path``.

    Returns:
        The salt of the hashed ids where it was made here: it is kept nowhere.

    Raises:
        RequestError: the file has no such layer or pool, or holds texts; the place is taken, or is
            the file's own.
        BrokenCache: the file is damaged.
        OSError: the folder can't be written.
    """
    _check_place(features, path, overwrite)
    names = choose_arrays(features, sharing)
    salt = sharing.salt or secrets.token_hex(16)
    spec = _make_spec(features, path, names, sharing, salt)
    leaks = counted_leaks(features)
    if leaks is None and (found := count_leaks(features)):  # its labels or split were changed
        leaks = found.summary()
    path.parent.mkdir(parents=True, exist_ok=True)
    # In a folder of its own: what ends this early leaves nothing that looks like the file.
    with work_folder(path) as folder:
        made = folder / path.name
        with FeatureWriter(made, spec) as writer:
            _copy_units(features, writer)
            # Times and device tell of a machine; parameters, and how many samples leak, of no one.
            known = {name: n for name, n in features.cost.items() if name == "parameters"}
            writer.finish(known if leaks is None else {**known, "leaks": leaks})
        move_whole(made, path)
    return salt if sharing.hash_ids and sharing.salt is None else None


def choose_arrays(features: Features, sharing: Sharing) -> list[str]:
    """The arrays of the layers and pools that are wanted, in the file's order.

    Returns:
        Names such as "layers/11/cls", and "rows/hash" where ids stay as they are.

    Raises:
        RequestError: a layer without any of the pools, or a pool that none of the layers has.
    """
    places = _places(features)
    layers = {layer for layer, _ in places.values()}
    if sharing.layers is not None:
        layers = {features.find_layer(layer) for layer in sharing.layers}
    pools = {pool for layer, pool in places.values() if layer in layers}
    if sharing.pools is not None:
        pools = {*sharing.pools}
    chosen = {name: at for name, at in places.items() if at[0] in layers and at[1] in pools}
    for layer, pool in itertools.product(sorted(layers), sorted(pools)):
        empty_layer = sharing.layers is not None and layer not in {at[0] for at in chosen.values()}
        if empty_layer or pool not in {at[1] for at in chosen.values()}:
            features.array_name(layer, pool)  # refuses, and says what there is
    hashes = [name for name in features.header.arrays if name == HASH and not sharing.hash_ids]
    return [*chosen, *hashes]


def _places(features: Features) -> dict[str, tuple[int, str]]:
    """Name of a feature array -> its layer and pool."""
    places = {}
    for name in features.header.arrays:
        if is_by_unit(name):
            continue
        if name.startswith("layers/"):
            _, layer, pool = name.split("/")
            places[name] = int(layer), pool
        elif name not in NO_FEATURES:
            places[name] = features.last_layer, name
    return places


def hash_names(names: NDArray[np.str_], salt: str) -> NDArray[np.str_]:
    """Names as salted hashes (HMAC-SHA256): equal ones stay equal, empty ones empty.

    Without the salt nobody can tell whether a guessed name is among them.
    """
    key = salt.encode()
    hashed = [
        hmac.new(key, name.encode(), "sha256").hexdigest()[:ID_DIGITS] if name else ""
        for name in names.tolist()
    ]
    return np.array(hashed, f"U{ID_DIGITS}")


def _check_place(features: Features, path: Path, overwrite: bool) -> None:
    if features.is_text:
        raise RequestError(f"{features.path} holds texts, which name nobody: share it as it is")
    if path.suffix != ".h5":
        raise RequestError(f"-o takes the name of a file that ends in .h5, not {path}")
    if os.path.realpath(path) == os.path.realpath(features.path):
        raise RequestError(f"{path} is the very file to export; give another name with -o")
    if path.is_dir():
        raise RequestError(f"{path} is a folder; -o takes the name of a file that ends in .h5")
    if path.exists() and not overwrite:
        raise RequestError(f"{path} is there already; give another name with -o, or --overwrite")


def _make_spec(
    features: Features, path: Path, names: Sequence[str], sharing: Sharing, salt: str
) -> FileSpec:
    """All that the new file will say of itself."""
    header = features.header
    row_ids, ids, groups = read_table(header, "rows/ids"), features.ids, features.groups
    if sharing.hash_ids:
        row_ids, ids = hash_names(row_ids, salt), hash_names(ids, salt)
        groups = None if groups is None else hash_names(groups, salt)
    notes = {name: value for name, value in features.notes.items() if name in NOTES}
    return FileSpec(
        model=features.model,
        encoder=features.encoder,
        size=features.size,
        dataset=features.dataset,
        task=features.task,
        class_names=tuple(features.class_names),
        positive_class=header.attributes["positive_class"] or None,
        key=features.key,
        arrays={name: shape for name, shape in header.row_shapes.items() if name in names},
        fixed_unit_rows=header.unit_rows,
        dtype=header.arrays[names[0]].dtype.name,
        row_ids=row_ids,
        row_sample=features.row_sample,
        samples=Samples(
            ids,
            read_table(header, "samples/split"),
            features.labels,
            groups,
            {} if sharing.drop_meta else features.meta,
        ),
        command=_command(features, path, sharing),
        notes={**notes, EXPORTED: features.path.name},
        versions=features.versions,
        fingerprint={name: v for name, v in features.fingerprint.items() if name in names},
    )


def _command(features: Features, path: Path, sharing: Sharing) -> str:
    """What made the file: names without their folders, and never the salt."""
    words = ["cache", "export", features.path.name]
    words += [] if sharing.layers is None else [f"--layers={','.join(map(str, sharing.layers))}"]
    words += [] if sharing.pools is None else ["--pool", ",".join(sharing.pools)]
    words += ["--hash-ids"] if sharing.hash_ids else []
    words += ["--drop-meta"] if sharing.drop_meta else []
    return shlex.join([*words, "-o", path.name])


def _copy_units(features: Features, writer: FeatureWriter) -> None:
    """Write every unit of the new file, each compared with the old one's checksums before."""
    for unit in writer.todo:
        writer.write_stored(
            unit, {name: features.stored(name, unit) for name in writer.spec.stored}
        )
