"""A feature file that other labels and splits are laid over, and `probe` of it."""

import json

import numpy as np
from storing import write_rows

from cache import open_features
from cache.format.read import FileSpec, Samples
from probe.cli import main

N = 240


def make_file(root, dataset="toys", task="multi-class", labels=None, split=None, **more):
    """Features that tell three classes apart; ids in no order, three images a patient."""
    rng = np.random.default_rng(3)
    truth = rng.permutation(N) % 3
    x = rng.normal(size=(N, 8)) + 1.2 * rng.normal(size=(3, 8))[truth]
    labels = truth if labels is None else np.asarray(labels)
    names = more.pop("class_names", ("a", "b", "c"))
    ids = more.pop("ids", np.array([f"{dataset}/{i:04d}" for i in rng.permutation(N)]))
    stored = np.repeat([0, 1, 2], [120, 60, 60]) if split is None else split
    samples = {name: more.pop(name) for name in ("groups", "meta") if name in more}
    row_sample, notes = more.pop("row_sample", np.arange(N)), more.pop("notes", {})
    model, row_ids = more.pop("model", "toy"), more.pop("row_ids", ids)
    spec = FileSpec(
        model=model,
        encoder="toy.full",
        size=32,
        dataset=dataset,
        task=task,
        class_names=names,
        key={"layers": {"of": 2}, "dataset": dataset, **more},
        arrays={"layers/00/cls": 8, "layers/01/cls": 8},
        dtype="float16",
        row_ids=row_ids,
        row_sample=row_sample,
        samples=Samples(ids, stored.astype(np.uint8), labels, **samples),
        command=f"extract --model toy --data {dataset}",
        notes=notes,
    )
    content = {"layers/00/cls": rng.normal(size=(N, 8)), "layers/01/cls": x}
    return open_features(write_rows(root / dataset / f"{model}_32_0123456789ab.h5", spec, content))


def run(capsys, words):
    status = main([str(word) for word in words])
    said = capsys.readouterr()
    assert "Traceback" not in said.err
    return status, said.out, said.err


def rows(results):
    return [json.loads(path.read_text()) for path in sorted(results.glob("*/*.json"))]
