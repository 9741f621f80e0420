"""A feature file whose splits share exact copies and near twins."""

import hashlib

import numpy as np

from cache.format.read import HASH, THUMBNAIL, FileSpec, Samples
from cache.format.units import unit_rows
from cache.store import FeatureWriter

N = (60, 20, 40)  # samples of train, val and test


FIRST_TEST = 80


COPIES = {FIRST_TEST: 0, FIRST_TEST + 1: 60}  # a test sample -> its exact copy in train or val


TWINS = {FIRST_TEST + i: i for i in (2, 3, 4)}  # -> its near twin in train


VAL_TWIN = {70: 5}


def make_file(
    root,
    dataset="toys",
    groups=None,
    looks=True,
    task="multi-class",
    copies=COPIES,
    twins=TWINS,
    seed=0,
    side=8,
    slices=1,
    **key,
):
    """A feature file whose copies and twins have the features of what they are alike."""
    rng = np.random.default_rng(seed)
    total = sum(N)
    labels = rng.integers(0, 2, total)
    pictures = rng.integers(0, 250, (total, slices, side * side), dtype=np.uint8)
    x = rng.normal(size=(total, 4)) + 0.5 * labels[:, None]
    for sample, other in {**copies, **twins, **(VAL_TWIN if twins else {})}.items():
        labels[sample] = labels[other]
        x[sample] = x[other]
        pictures[sample] = pictures[other] + (sample not in copies)  # brighter: correlation 1
    if task == "regression":
        labels = x.sum(axis=1) + rng.normal(size=total)
    if task == "multi-label, binary-class":
        labels = np.stack([labels, rng.integers(0, 2, total)], axis=1)
    ids = np.array([f"{dataset}/{i:03d}" for i in range(total)])
    row_sample = np.arange(total).repeat(slices)
    arrays = {"head": 4, **({HASH: 16, THUMBNAIL: side * side} if looks else {})}
    spec = FileSpec(
        model="toy",
        encoder="toy.full",
        size=32,
        dataset=dataset,
        task=task,
        class_names=("age",) if task == "regression" else ("a", "b"),
        key={"layers": {"of": 1}, "dataset": dataset, **key},
        arrays=arrays,
        dtype="float32",
        row_ids=np.array([f"{ids[s]}:{i}" for i, s in enumerate(row_sample)]),
        row_sample=row_sample,
        samples=Samples(ids, np.repeat(np.arange(3, dtype=np.uint8), N), labels, groups),
        command=f"extract --model toy --data {dataset}",
    )
    flat = pictures.reshape(-1, side * side)
    hashes = b"".join(hashlib.sha256(picture.tobytes()).digest()[:16] for picture in flat)
    content = {
        "head": x.repeat(slices, axis=0),
        HASH: np.frombuffer(hashes, np.uint8).reshape(-1, 16),
        THUMBNAIL: flat,
    }
    path = root / dataset / f"toy_32_{len(key):012d}.h5"
    with FeatureWriter(path, spec) as writer:
        for unit in writer.todo:
            rows = slice(*unit_rows(unit, len(flat)))
            writer.write_unit(unit, {name: content[name][rows] for name in arrays})
        assert writer.finish({})
    return path
