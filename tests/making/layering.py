"""Feature files whose layers are more or less alike."""

import numpy as np
from features import make_spec, write_rows

from cache.features import open_features
from probe.report.figures.files import AskedOfFiles

TUNED = "encoder.safetensors, fine-tuned on toys (full, encoder lr 1e-05, seed 0)"
SPLIT = (20, 10, 40)  # train, val, test


def layered_file(
    folder, model="vit", n_layers=4, *, seed=0, shared=3.0, tuned=False, change=None, **fields
):
    """A file in which each layer is the one before and more noise.

    Args:
        folder: of features.
        model: the encoder's.
        n_layers: with pool cls, 8 wide.
        seed: of the noise; the first layer of all files tells classes.
        shared: what all layers of all files share, beside noise of 1.
        tuned: whether ``finetune`` made the weights.
        change: layer -> a function of its vectors.
        fields: as of ``make_spec``.
    """
    total = sum(SPLIT)
    labels = np.arange(total) % 3
    common = np.random.default_rng(1).normal(size=(3, 8))[labels]
    common += np.random.default_rng(2).normal(size=(total, 8))
    rng = np.random.default_rng(seed)
    x, content = shared * common, {}
    for layer in range(n_layers):
        x = x + rng.normal(size=(total, 8))
        content[f"layers/{layer:02d}/cls"] = (change or {}).get(layer, lambda x: x)(x)
    key = {
        "layers": {"of": n_layers},
        "encoder": model if tuned else f"{model}.published",
        "weights": f"sha256:{seed:064x}",
        **fields.pop("key", {}),
    }
    said = {
        "split": np.repeat(np.arange(3, dtype=np.uint8), SPLIT),
        "labels": labels,
        "notes": {"own_weights": tuned, "weights": TUNED if tuned else "published.pth"},
        "size": 32,
        **fields,
    }
    spec = make_spec(total, {name: 8 for name in content}, "float32", model=model, key=key, **said)
    path = folder / spec.dataset / f"{model}_32_{seed:012x}.h5"
    return open_features(write_rows(path, spec, content))


def of_files(*files, **asked):
    """What a figure's ``make`` takes."""
    return AskedOfFiles(files, **asked)
