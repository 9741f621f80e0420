"""Small feature files for `probe`, its command run in this process, and the rows it leaves."""

import json

import numpy as np

from cache.format.read import FileSpec, Samples
from cache.format.units import unit_rows
from cache.store import FeatureWriter
from probe.cli import main


def make_features(
    root,
    dataset="toys",
    model="toy",
    n=(120, 40, 60),
    n_classes=3,
    task="multi-class",
    notes=None,
    n_layers=2,
    relabel=lambda labels: labels,
    order=None,
    **key,
):
    """A feature file in which layer 1 tells the classes apart and layer 0 is noise."""
    rng = np.random.default_rng(7)
    total = sum(n)
    if task == "multi-label, binary-class":
        labels = rng.integers(0, 2, (total, n_classes))
        signal = labels @ rng.normal(size=(n_classes, 8))
    else:
        labels = np.arange(total) % n_classes
        signal = rng.normal(size=(n_classes, 8))[labels]
    ids = np.array([f"{i:05d}" for i in range(total)])
    arrays = {f"layers/{i:02d}/{pool}": 8 for i in range(n_layers) for pool in ("cls", "mean")}
    spec = FileSpec(
        model=model,
        encoder=f"{model}.full",
        size=32,
        dataset=dataset,
        task=task,
        class_names=tuple(f"class {i}" for i in range(n_classes)),
        key={"layers": {"of": n_layers}, "model": model, "dataset": dataset, **key},
        arrays={**arrays, "head": 8},
        dtype="float16",
        row_ids=ids,
        row_sample=np.arange(total) if order is None else order,
        samples=Samples(ids, np.repeat(np.arange(3, dtype=np.uint8), n), relabel(labels)),
        command=f"extract --model {model} --data {dataset}",
        notes=notes or {},
    )
    noise = rng.normal(size=(total, 8))
    content = {
        name: noise + (1.5 * signal if "01" in name or name == "head" else 0)
        for name in spec.arrays
    }
    path = root / dataset / f"{model}_32_{len(key)}{n[0]:011d}.h5"
    with FeatureWriter(path, spec) as writer:
        for unit in writer.todo:
            start, stop = unit_rows(unit, total)
            writer.write_unit(unit, {name: x[start:stop] for name, x in content.items()})
        assert writer.finish({})
    return path


def run(capsys, words):
    status = main(words.split())
    said = capsys.readouterr()
    assert "Traceback" not in said.err
    return status, said.out, said.err


def rows(results):
    return [json.loads(path.read_text()) for path in sorted(results.glob("*/*.json"))]
