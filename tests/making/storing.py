"""A small feature file whose right content can be computed anywhere: for tests of the store."""

import json
import zlib

import h5py
import numpy as np

from cache.format.key import canonical_json
from cache.format.read import FileSpec, Samples, _attributes_crc, _plain, _write_attribute
from cache.format.units import unit_rows
from cache.store import FeatureWriter

ARRAYS = {
    "layers/00/cls": 6,
    "layers/00/mean": 6,
    "layers/01/cls": 6,
    "layers/01/mean": 6,
    "head": 3,
}


def make_spec(
    n_rows=700,
    arrays=ARRAYS,
    dtype="float16",
    labels=None,
    dataset="toys",
    task="multi-class",
    **key,
):
    ids = np.array([f"train/{i:06d}" for i in range(n_rows)])
    split = np.minimum(np.arange(n_rows) * 3 // n_rows, 2).astype(np.uint8)
    labels = np.arange(n_rows) % 3 if labels is None else labels
    return FileSpec(
        model="toy",
        encoder="toy.random",
        size=8,
        dataset=dataset,
        task=task,
        class_names=("a", "b", "é"),
        key={"layers": {"of": 2, "stored": [0, 1]}, "store": dtype, **key},
        arrays=arrays,
        dtype=dtype,
        row_ids=ids,
        row_sample=np.arange(n_rows),
        samples=Samples(ids, split, labels),
        command="extract --model toy --data toys",
    )


def make_text_spec(
    labels, class_names=("a", "b", "é"), width=6, notes=None, dataset="toys", prompts=(), **key
):
    """Prompts of some classes: the texts that belong to make_spec's images."""
    labels = np.asarray(labels)
    ids = np.array([f"{c}/{(labels[:i] == c).sum()}" for i, c in enumerate(labels)])
    return FileSpec(
        model="toy",
        encoder="toy.random",
        size=0,
        dataset=dataset,
        task="multi-class",
        class_names=tuple(class_names),
        key={"layers": {"of": 2}, "store": "float32", "text": {"prompts": [*prompts]}, **key},
        arrays={"proj": width},
        dtype="float32",
        row_ids=ids,
        row_sample=np.arange(len(ids)),
        samples=Samples(ids, np.zeros(len(ids), np.uint8), labels),
        command="extract --text --model toy --data toys",
        notes={"logit_scale": 100.0} if notes is None else notes,
    )


def unit_arrays(spec, unit):
    """The rows of a unit: a function of nothing but their place."""
    start, stop = unit_rows(unit, spec.n_rows)
    return {
        name: np.random.default_rng([unit, i]).normal(size=(stop - start, width))
        for i, (name, width) in enumerate(spec.arrays.items())
    }


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
            rows = slice(*unit_rows(unit, spec.n_rows))
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


def scores_file(row):
    """The file of scores that stands beside a stored row."""
    (path,) = row.parent.glob(f"{row.stem}*.npz")
    return path


def make_earlier(row, *fields):
    """Rewrite a stored row as medprobe wrote it before rows had checksums, and without some fields.

    Returns:
        What it says now.
    """
    content = json.loads(row.read_text())
    for name in ("sha256", "scores_sha256", *fields):
        del content[name]
    content["row_version"] = 1
    row.write_text(json.dumps(content))
    scores_file(row).rename(row.with_suffix(".npz"))
    return content


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
        file.attrs["attributes_crc32"] = _attributes_crc(attributes)
