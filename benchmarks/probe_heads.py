"""How fast heads are trained all at once, beside one after another as papers' code does it.

    python benchmarks/probe_heads.py

The plain way is torch.nn.Linear, torch.optim.AdamW (or SGD) and a DataLoader over the cached
matrix, one seed and one layer after another; AdamW's looks at val now and then and copies the best
weights, as the paper's code does. Fewer iterations are timed than a protocol has: each costs the
same. Rounds alternate, and the median ratio is what counts.
"""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Subset, TensorDataset

from cache.task import MULTI_CLASS
from probe.kinds.adamw import AdamW, fit_heads
from probe.kinds.heads import Heads, fit_grid
from probe.metrics.classification import accuracy
from probe.solvers.epochs import check_epochs

N_IMAGES, WIDTH, N_CLASSES = 7_007, 768, 7  # DermaMNIST's training images and a ViT-B
N_VAL = 1_003
N_ROUNDS = 5


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def report(name: str, plain: Callable[[], object], ours: Callable[[], object], n: float) -> None:
    """Time both, alternating; ``n`` times as many head-iterations are in ours as in plain."""
    ratios = []
    for _ in range(N_ROUNDS):
        slow, fast = seconds(plain), seconds(ours)
        ratios.append(slow * n / fast)
    median = statistics.median(ratios)
    print(f"{name}: ratio {median:.1f} ({min(ratios):.1f} to {max(ratios):.1f})", flush=True)


def plain_adamw(features: np.ndarray, labels: np.ndarray, checked: list[int]) -> None:
    """One seed of one layer, as a trainer is usually written; val is N_VAL of the same images."""
    data = TensorDataset(torch.from_numpy(features), torch.from_numpy(labels))
    loader = DataLoader(data, 64, shuffle=True, drop_last=True)
    val = DataLoader(Subset(data, range(N_VAL)), 64)
    head = nn.Linear(features.shape[1], N_CLASSES)
    optimizer = torch.optim.AdamW(head.parameters(), lr=1e-3, weight_decay=1e-2)
    best, kept = -1.0, None
    for epoch in range(max(checked) + 1):
        for x, y in loader:
            loss = nn.functional.cross_entropy(head(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        if epoch in checked:
            with torch.no_grad():
                found = [(head(x).softmax(1), y) for x, y in val]
            scores, truth = (torch.cat(parts).numpy() for parts in zip(*found, strict=True))
            if (value := accuracy(scores, truth, MULTI_CLASS)) > best:
                best, kept = value, copy.deepcopy(head.state_dict())
    assert kept


def plain_sgd(features: np.ndarray, labels: np.ndarray, config: Heads, n: int) -> None:
    """The grid as DINOv2 trains it: a module for each head, their losses summed, one backward."""
    width = features.shape[1] // 5
    slices = [slice(3 * width, 4 * width), slice(3 * width, None), slice(4 * width), slice(None)]
    heads, groups = [], []
    for columns in slices:
        for lr in config.lrs:
            head = nn.Linear(len(range(5 * width)[columns]), N_CLASSES)
            heads.append((columns, head))
            groups.append({"params": head.parameters(), "lr": lr / 2})
    optimizer = torch.optim.SGD(groups, momentum=0.9, weight_decay=0)
    data = TensorDataset(torch.from_numpy(features), torch.from_numpy(labels))
    batches = iter(DataLoader(data, 128, shuffle=True, drop_last=True))
    for _ in range(n):
        x, y = next(batches)
        loss = sum(nn.functional.cross_entropy(head(x[:, c]), y) for c, head in heads)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[union-attr]
        optimizer.step()


def main() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(N_CLASSES, size=N_IMAGES)
    layers = [rng.normal(size=(N_IMAGES, WIDTH)).astype(np.float32) for _ in range(4)]
    val = [x[:N_VAL] for x in layers]
    plain_adamw(layers[0], labels, [0])  # the first backward pass of a process is slow
    print(f"{torch.get_num_threads()} threads, {N_IMAGES} x {WIDTH}, {N_CLASSES} classes")
    # Three checks of 27 epochs are as many as eleven of 137, which 15,000 iterations have.
    config = AdamW(iterations=None, epochs=27, n_checks=2)
    checked = check_epochs(27, 2)
    for n_layers in (1, 4):
        report(
            f"AdamW, 3 seeds x {n_layers} layers at once",
            lambda: plain_adamw(layers[0], labels, checked),
            lambda n=n_layers: fit_heads(
                layers[:n], labels, val[:n], labels[:N_VAL], MULTI_CLASS, N_CLASSES, config
            ),
            n=3 * n_layers,
        )
    blocks = np.concatenate([*layers, layers[3]], axis=1)
    grid = Heads(epochs=1, iterations=20)
    report(
        "SGD, DINOv2's grid of 52 heads",
        lambda: plain_sgd(blocks, labels, grid, 10),
        lambda: fit_grid(blocks, labels, 4, True, MULTI_CLASS, N_CLASSES, grid),
        n=2,
    )


if __name__ == "__main__":
    main()
