"""Small feature files: whose content can be computed anywhere, or tells the labels."""

import hashlib
import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields

import h5py
import numpy as np

from cache.format.create import _write_attribute
from cache.format.key import canonical_json
from cache.format.read import _plain
from cache.format.spec import HASH, NO_FEATURES, THUMBNAIL, FileSpec, Samples, attributes_crc
from cache.format.units import unit_rows
from cache.store import FeatureWriter

OF_FILE = {f.name for f in fields(FileSpec)}
OF_SAMPLES = {f.name for f in fields(Samples)}
ARRAYS = {
    "layers/00/cls": 6,
    "layers/00/mean": 6,
    "layers/01/cls": 6,
    "layers/01/mean": 6,
    "head": 3,
}


def make_spec(n_rows=700, arrays=ARRAYS, dtype="float16", **fields):
    """What a small file says of itself.

    Args:
        n_rows: of three classes, a third of them in each split.
        arrays: name -> width.
        dtype: of the features.
        fields: of ``FileSpec`` and ``Samples`` by their names; all others are parts of the key, and
            ``key`` has those of these names.
    """
    ids = np.array([f"train/{i:06d}" for i in range(n_rows)])
    said = {
        "model": "toy",
        "encoder": "toy.random",
        "size": 8,
        "dataset": "toys",
        "task": "multi-class",
        "class_names": ("a", "b", "é"),
        "row_ids": ids,
        "row_sample": np.arange(n_rows),
        "command": "extract --model toy --data toys",
    }
    samples = {
        "ids": ids,
        "split": np.minimum(np.arange(n_rows) * 3 // n_rows, 2).astype(np.uint8),
        "labels": np.arange(n_rows) % 3,
    }
    key = {"layers": {"of": 2, "stored": [0, 1]}, "store": dtype, **fields.pop("key", {})}
    for name, value in fields.items():
        (samples if name in OF_SAMPLES else said if name in OF_FILE else key)[name] = value
    return FileSpec(key=key, arrays=arrays, dtype=dtype, samples=Samples(**samples), **said)


def make_token_spec(n_rows=100, dtype="float16", grids=((2, 3), (2, 3)), width=5, **fields):
    """Patch tokens of some layers, with what small pictures there are to be.

    Args:
        n_rows: as of ``make_spec``.
        dtype: of the tokens.
        grids: (h, w) of layers 0, 1...
        width: D.
        fields: as of ``make_spec``; ``looks`` are the arrays behind the tokens, name -> width.
    """
    looks = fields.pop("looks", {HASH: 16, THUMBNAIL: 64})
    stored = [*range(len(grids))]
    key = {
        "layers": {"of": len(grids), "stored": stored},
        "tokens": {"grids": [list(grid) for grid in grids]},
        **fields.pop("key", {}),
    }
    arrays = {f"layers/{i:02d}/tokens": (*grid, width) for i, grid in enumerate(grids)}
    return make_spec(
        n_rows,
        {**arrays, **looks},
        dtype,
        key=key,
        command="extract --model toy --data toys --tokens all",
        **fields,
    )


def make_text_spec(labels, class_names=("a", "b", "é"), width=6, notes=None, prompts=(), **fields):
    """Prompts of some classes: the texts that belong to make_spec's images."""
    labels = np.asarray(labels)
    ids = np.array([f"{c}/{(labels[:i] == c).sum()}" for i, c in enumerate(labels)])
    about = {"layers": {"of": 2}, "text": {"prompts": [*prompts]}, "size": 0, **fields}
    return make_spec(
        len(ids),
        {"proj": width},
        "float32",
        class_names=tuple(class_names),
        ids=ids,
        row_ids=ids,
        split=np.zeros(len(ids), np.uint8),
        labels=labels,
        command="extract --text --model toy --data toys",
        notes={"logit_scale": 100.0} if notes is None else notes,
        **about,
    )


@dataclass(frozen=True)
class Looks:
    """Which samples are alike, and whether the file holds hashes and small pictures of its rows."""

    copies: Mapping[int, int] = field(default_factory=dict)  # a sample -> its exact copy
    twins: Mapping[int, int] = field(default_factory=dict)  # -> its near twin, one grey darker
    side: int = 8  # of the pictures, pixels
    are_kept: bool = True


def make_features(
    root,
    dataset="toys",
    model="toy",
    *,
    n=(120, 40, 60),
    task="multi-class",
    n_classes=3,
    n_layers=2,
    strength=1.5,
    looks=None,
    seed=7,
    **fields,
):
    """A feature file in which layer 1 and head tell the labels, and other layers are noise.

    Args:
        root: the folder of features.
        dataset: its name.
        model: the encoder's.
        n: samples of train, val and test, in this order.
        task: of the labels; classes come in turn, other labels are drawn.
        n_classes: C.
        n_layers: each with pools cls and mean; 0: head alone.
        strength: of what tells the labels, beside noise of 1.
        looks: which samples have the pictures, features and labels of others; None: none have.
        seed: of all that is drawn.
        fields: as of ``make_spec``; those that are None aren't said. ``labels`` may be a function
            of those drawn; where others are given, features tell classes in turn. Where
            ``row_sample`` has a sample several times, its rows are alike.

    Returns:
        The file's path.
    """
    rng = np.random.default_rng(seed)
    total = sum(n)
    fields = {name: value for name, value in fields.items() if value is not None}
    given = fields.pop("labels", lambda labels: labels)
    if not callable(given):
        labels = np.arange(total) % n_classes
        signal = rng.normal(size=(n_classes, 8))[labels]
    elif task == "regression":
        labels, n_classes = rng.normal(size=total), 1
        signal = np.outer(labels, rng.normal(size=8))
    elif task == "multi-label, binary-class":
        labels = rng.integers(0, 2, (total, n_classes))
        signal = labels @ rng.normal(size=(n_classes, 8))
    else:
        labels = np.arange(total) % n_classes
        signal = rng.normal(size=(n_classes, 8))[labels]
    noise = rng.normal(size=(total, 8))
    rows = fields.setdefault("row_sample", np.arange(total))
    content = {}
    if looks:
        pictures = rng.integers(0, 250, (len(rows), looks.side**2), dtype=np.uint8)
        for sample, other in {**looks.copies, **looks.twins}.items():
            for array in (labels, signal, noise):
                array[sample] = array[other]
            brighter = sample not in looks.copies  # then their correlation is 1
            pictures[rows == sample] = pictures[rows == other] + np.uint8(brighter)
        hashes = b"".join(hashlib.sha256(p.tobytes()).digest()[:16] for p in pictures)
        if looks.are_kept:
            content[HASH] = np.frombuffer(hashes, np.uint8).reshape(-1, 16)
            content[THUMBNAIL] = pictures
    telling = (noise + strength * signal)[rows]
    layers = {f"layers/{i:02d}/{pool}": i for i in range(n_layers) for pool in ("cls", "mean")}
    features = {name: telling if i == 1 else noise[rows] for name, i in layers.items()}
    content = {**features, "head": telling, **content}
    ids = fields.setdefault("ids", np.array([f"{i:05d}" for i in range(total)]))
    names = ids if len(rows) == total else np.array([f"{ids[s]}:{i}" for i, s in enumerate(rows)])
    about = {
        "split": np.repeat(np.arange(3, dtype=np.uint8), n),
        "labels": given(labels) if callable(given) else given,
        "class_names": tuple(f"class {i}" for i in range(n_classes)),
        "row_ids": names,
        "encoder": f"{model}.full",
        "size": 32,
        "command": f"extract --model {model} --data {dataset}",
        **fields,
    }
    about["split"] = np.asarray(about["split"], np.uint8)
    arrays = {name: x.shape[1] for name, x in content.items()}
    about["key"] = {
        "layers": {"of": n_layers or 1},
        "model": model,
        "dataset": dataset,
        **about.get("key", {}),
    }
    spec = make_spec(len(rows), arrays, dataset=dataset, model=model, task=task, **about)
    name = f"{model}_32_{len(spec.key)}{n[0]:011d}.h5"
    return write_rows(root / dataset / name, spec, content)


def unit_arrays(spec, unit):
    """The rows of a unit: a function of nothing but their place."""
    start, stop = unit_rows(unit, spec.n_rows, spec.unit_rows)

    def rows(name, i):
        rng = np.random.default_rng([unit, i])
        shape = (stop - start, *spec.stored[name].shape[1:])
        if name in NO_FEATURES:
            return rng.integers(0, 256, shape, dtype=np.uint8)
        return rng.normal(size=shape)

    return {name: rows(name, i) for i, name in enumerate(spec.arrays)}


def write_units(writer, units=None):
    for unit in writer.todo if units is None else units:
        writer.write_unit(unit, unit_arrays(writer.spec, unit))


def write_file(path, spec):
    with FeatureWriter(path, spec) as writer:
        write_units(writer)
        assert writer.finish({"images_per_s": 1.0})
    return path


def write_rows(path, spec, content):
    """A complete file of given features: name of an array -> (N, D)."""
    with FeatureWriter(path, spec) as writer:
        for unit in writer.todo:
            rows = slice(*writer.header.rows_of(unit))
            writer.write_unit(unit, {name: x[rows] for name, x in content.items()})
        assert writer.finish({})
    return path


def payload(features):
    """Every feature array as bytes."""
    return {
        name: features.memmap(*where).tobytes() for name, where in array_places(features).items()
    }


def array_places(features):
    places = {
        f"layers/{i:02d}/{pool}": (i, pool)
        for i, pools in features.layers.items()
        for pool in pools
    }
    return places | ({"head": (-1, "head")} if "head" in features.pools else {})


def forge_table(path, name, change):
    """Change a table of a feature file as a program with other ideas would: checksums and all.

    Args:
        path: the file.
        name: of the table.
        change: told its values, gives others of the same type and shape.
    """
    with h5py.File(path, "r+", locking=False) as file:
        table = file[name]
        table[...] = change(table[()])
        attributes = {n: _plain(value) for n, value in file.attrs.items()}
        checksums = json.loads(attributes["tables_crc32"])
        checksums[name] = zlib.crc32(table[()].tobytes())
        attributes["tables_crc32"] = canonical_json(checksums)
        for n in ("tables_crc32", "attributes_crc32"):
            del file.attrs[n]
        _write_attribute(file, "tables_crc32", attributes["tables_crc32"])
        file.attrs["attributes_crc32"] = attributes_crc(attributes)
