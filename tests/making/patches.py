"""A small set of which one patch of an image tells the class: its token file, and the pooled one."""

import numpy as np
from features import make_spec, write_rows

from cache.format.key import feature_path

GRID, WIDTH = (4, 5), 16
N = (120, 40, 60)


def draw_patches(n=N, n_classes=3, grid=GRID, width=WIDTH, seed=0):
    """Tokens (N, h, w, D), labels, and the number of the patch that tells."""
    rng = np.random.default_rng(seed)
    total = sum(n)
    labels, at = np.arange(total) % n_classes, rng.integers(grid[0] * grid[1], size=total)
    tokens = rng.normal(size=(total, grid[0] * grid[1], width))
    tokens[np.arange(total), at, 0] = 8
    tokens[np.arange(total), at, 1 + labels] += 9
    return tokens.reshape(total, *grid, width), labels, at


def make_patches(
    root, *, n=N, n_classes=3, tokens=True, pooled=True, layers=(1,), dataset="toys", **fields
):
    """The token file, and beside it the pooled one of the same encoder and images.

    Args:
        root: the folder of features.
        n: samples of train, val and test.
        n_classes: C.
        tokens: whether the token file is made.
        pooled: whether the pooled file is.
        layers: of tokens, all alike; the pooled file has 0 and 1.
        dataset: its name.
        fields: of ``making.features.make_spec``, of both files.

    Returns:
        The token file's path, and (N,) the patches that tell.
    """
    x, labels, at = draw_patches(n, n_classes)
    about = {
        "dataset": dataset,
        "labels": labels,
        "split": np.repeat(np.arange(3, dtype=np.uint8), n),
        "class_names": tuple("abcdef"[:n_classes]),
        "weights": "sha256:0",
        **fields,
    }

    def write(arrays, content, **key):
        spec = make_spec(sum(n), arrays, key=key, **about)
        path = feature_path(root, dataset, "toy", 8, spec.key)
        return write_rows(path, spec, content) or path

    path, names = None, [f"layers/{layer:02d}" for layer in layers]
    if tokens:
        path = write(
            {f"{name}/tokens": x.shape[1:] for name in names},
            {f"{name}/tokens": x for name in names},
            layers={"of": 2, "stored": list(layers)},
            tokens={"grids": [list(x.shape[1:3])] * len(layers)},
        )
    if pooled:
        content = {
            f"layers/{layer:02d}/{pool}": vectors
            for layer in (0, 1)
            for pool, vectors in (("cls", x[:, 0, 0]), ("mean", x.mean(axis=(1, 2))))
        }
        write(dict.fromkeys(content, WIDTH), content)
    return path, at
