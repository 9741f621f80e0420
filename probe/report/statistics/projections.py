"""Vectors as points of a plane: the two directions of the largest variance, t-SNE and UMAP."""

from importlib import import_module
from importlib.util import find_spec
from typing import NamedTuple

import numpy as np

from cache.errors import RequestError
from probe.arrays import Doubles, Floats, Singles
from probe.solvers.standardise import chunks

CHUNK_ROWS = 4096
ROUNDING = 1e-12  # of the variance: less of it is none
ALIKE = 1e-6  # of a weight: two that differ by less are equally large
N_BEFORE = 50  # principal components that t-SNE begins with (van der Maaten & Hinton 2008)
PERPLEXITY = 30.0  # of t-SNE, and at most a third of the others
N_NEIGHBOURS, NEAREST = 15, 0.1  # of UMAP, both its default


class Plane(NamedTuple):
    """n samples in the directions of the largest variance."""

    points: Doubles  # (n, d)
    shares: Doubles  # (d,) of the variance that each direction has, 0 where there is none


def pca(x: Floats, n_directions: int = 2) -> Plane:
    """The principal components of n vectors.

    From the (D, D) covariance, or the (n, n) Gram where n is smaller. A direction's sign is that in
    which its largest weight is positive, the first of equally large ones.

    Args:
        x: (n, D) finite.
        n_directions: d; those beyond what n and D allow are 0.

    Raises:
        RequestError: under 2 samples.
    """
    n, width = x.shape
    if n < 2:
        raise RequestError(f"principal components need 2 samples at least, found {n}")
    mean = np.mean(x, axis=0, dtype=np.float64)
    if width <= n:
        products = np.zeros((width, width))
        for rows in chunks(n, CHUNK_ROWS):
            block = x[rows] - mean
            products += block.T @ block
        values, vectors = np.linalg.eigh(products)
        weights = vectors[:, ::-1][:, :n_directions]
    else:
        centred = x - mean
        products = centred @ centred.T
        values, vectors = np.linalg.eigh(products)
        weights = centred.T @ vectors[:, ::-1][:, :n_directions]
        lengths = np.linalg.norm(weights, axis=0)
        weights /= np.where(lengths > 0, lengths, 1)
    total = float(np.trace(products))
    largest = values[::-1][:n_directions]
    is_there = largest > ROUNDING * total
    sizes = np.abs(weights)
    first = np.argmax(sizes >= (1 - ALIKE) * sizes.max(axis=0), axis=0)
    signs = np.sign(weights[first, np.arange(weights.shape[1])])
    weights *= np.where(is_there, signs, 0)
    points, shares = np.zeros((n, n_directions)), np.zeros(n_directions)
    shares[: len(largest)] = np.where(is_there, largest, 0) / (total or 1)
    for rows in chunks(n, CHUNK_ROWS):
        points[rows, : weights.shape[1]] = (x[rows] - mean) @ weights
    return Plane(points, shares)


def tsne(x: Floats, seed: int = 0) -> Singles:
    """(n, 2) points by t-SNE of scikit-learn, from the first ``N_BEFORE`` principal components.

    Neighbours stay neighbours; distances between groups, and their sizes, mean nothing.

    Args:
        x: (n, D) finite.
        seed: of what scikit-learn draws; the start is the first two components.

    Raises:
        RequestError: under 4 samples, or all the same.
    """
    n = len(x)
    if n < 4:
        raise RequestError(f"t-SNE needs 4 samples at least, found {n}")
    from sklearn.manifold import TSNE  # late: it takes a second, and other figures don't need it

    plane = pca(x, max(2, min(N_BEFORE, n, x.shape[1])))
    if not plane.shares.any():
        raise RequestError("t-SNE needs vectors that differ, and all are the same")
    return TSNE(2, perplexity=perplexity_of(n), init="pca", random_state=seed).fit_transform(
        plane.points
    )


def perplexity_of(n: int) -> float:
    """That of t-SNE of n samples."""
    return min(PERPLEXITY, (n - 1) / 3)


def umap(x: Floats, seed: int = 0) -> Singles:
    """(n, 2) points by UMAP (McInnes et al. 2018), of the package umap-learn, on one thread.

    What ``tsne`` says of distances holds here.

    Args:
        x: (n, D) finite.
        seed: of what it draws.

    Raises:
        RequestError: umap-learn isn't installed, or under 4 samples.
    """
    if not find_spec("umap"):
        raise RequestError("UMAP needs another package: pip install umap-learn")
    if len(x) < 4:
        raise RequestError(f"UMAP needs 4 samples at least, found {len(x)}")
    made = import_module("umap").UMAP(  # late: it takes seconds, and compiles
        n_components=2, n_neighbors=neighbours_of(len(x)), min_dist=NEAREST, random_state=seed, n_jobs=1
    )  # fmt: skip
    return made.fit_transform(np.asarray(x, np.float32))


def neighbours_of(n: int) -> int:
    """Those of UMAP of n samples."""
    return min(N_NEIGHBOURS, n - 1)
