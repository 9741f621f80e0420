"""How fast ``--kind segment`` is, beside a plain torch loop on the same patches in memory.

    OMP_NUM_THREADS=1 python benchmarks/probe_segment.py               # 1,000 images x 256 patches x 384
    ... --images 300 --width 1024 --classes 9
    ... --file FILE --masks FILE                                       # a token file's own patches

The loop is AdamW in batches of 4,096 patches on features standardised by train, at lr 1e-2, 1e-3 and 1e-4,
each until val hasn't improved by a thousandth for three epochs; the best counts. Ours is the whole of what
``probe`` does: a path of strengths, the choice on val, and the chosen one's fit to all patches. Seconds are
CPU time, so that other processes don't count: give BLAS one thread, whose waiting would count, too.
"""

from __future__ import annotations

import argparse
import resource
import time
from pathlib import Path
from typing import Any

import numpy as np

from cache import open_features
from cache.masks import open_masks
from probe.kinds.segment import USUAL, patches_of
from probe.maps import Maps
from probe.places import TOKENS, Place
from probe.solvers.patches import Patches, fit_and_choose, held_rows, path_losses

RATES, BATCH, PATIENCE, LEAST = (1e-2, 1e-3, 1e-4), 4096, 3, 1e-3
MOST_EPOCHS = 200


def synthetic(n: int, width: int, n_classes: int, seed: int) -> tuple[Any, Any]:
    """Float16 features (N, D) whose spectrum falls as j^-0.7, and shares (N, C) of unequal classes."""
    rng, fixed = np.random.default_rng(seed), np.random.default_rng(1)
    rotation = np.linalg.qr(fixed.normal(size=(width, width)))[0].astype(np.float32)
    spectrum = np.arange(1, width + 1, dtype=np.float32) ** -0.7
    spread = 1.2 * fixed.normal(size=(n_classes, width)) * (fixed.random(width) < 0.05)
    frequent = 0.5 ** np.arange(n_classes)
    one, other = rng.choice(n_classes, (2, n), p=frequent / frequent.sum())
    share = np.where(rng.random(n) < 0.7, 1, rng.random(n)).astype(np.float32)
    shares = np.zeros((n, n_classes), np.float32)
    shares[np.arange(n), one] += share
    shares[np.arange(n), other] += 1 - share
    features = np.empty((n, width), np.float16)
    for start in range(0, n, 8192):  # in pieces: the peak of memory is to be the solver's
        rows = slice(start, start + 8192)
        noise = rng.standard_normal((len(shares[rows]), width), dtype=np.float32)
        signal = shares[rows] @ spread.astype(np.float32)
        features[rows] = ((noise + signal) * spectrum) @ rotation
    return features, shares


def read(file: Path, masks: Path) -> list[tuple[Any, Any]]:
    """Patches of a token file's train and val: float16 features and shares."""
    features = open_features(file)
    maps = Maps(
        features, (Place(max(features.layers), TOKENS, features=features),), open_masks(masks)
    )
    found = []
    for name in ("train", "val"):
        rows = np.flatnonzero(features.split[features.row_sample] == ("train", "val").index(name))
        each, shares = zip(*patches_of(maps, rows).read(), strict=True)
        found.append((np.concatenate(each).astype(np.float16), np.concatenate(shares)))
    return found


def torch_loop(
    train: tuple[Any, Any], val: tuple[Any, Any], rate: float
) -> list[tuple[float, float]]:
    """CPU seconds and val loss after each epoch."""
    import torch

    torch.manual_seed(0)
    start = time.process_time()
    x, shares = map(torch.from_numpy, train)
    wide = x.float()
    mean, scale = wide.mean(dim=0), wide.std(dim=0).clamp_min(1e-6)
    del wide
    of_val = (torch.from_numpy(val[0]).float() - mean) / scale
    truth = torch.from_numpy(val[1])
    head = torch.nn.Linear(x.shape[1], shares.shape[1])
    optimiser = torch.optim.AdamW(head.parameters(), lr=rate)
    found: list[tuple[float, float]] = []
    best, since = np.inf, 0
    while since < PATIENCE and len(found) < MOST_EPOCHS:
        for rows in torch.randperm(len(x)).split(BATCH):
            batch = (x[rows].float() - mean) / scale
            loss = torch.nn.functional.cross_entropy(head(batch), shares[rows])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        with torch.no_grad():
            loss = float(torch.nn.functional.cross_entropy(head(of_val), truth))
        found.append((time.process_time() - start, loss))
        since = 0 if loss < best * (1 - LEAST) else since + 1
        best = min(best, loss)
    return found


def compare(train: tuple[Any, Any], val: tuple[Any, Any]) -> None:
    patches, of_val = Patches.of(*train), Patches.of(*val)
    shape = f"{patches.n_rows:_} patches x {patches.width}, {train[1].shape[1]} classes"
    before, start = peak(), time.process_time()
    most = held_rows(patches.width)
    rows = np.sort(np.random.default_rng(0).permutation(patches.n_rows)[:most])
    sample = patches if patches.n_rows <= most else Patches.of(*(part[rows] for part in train))
    found = fit_and_choose(patches, sample, of_val, USUAL)
    ours = time.process_time() - start
    memory = peak() - before
    loss = path_losses([found.fit], of_val)[0]
    readings = sum(fit.n_readings for fit in found.path), found.fit.n_readings
    print(
        f"segment {shape}: {ours:.1f} s for {len(found.path)} strengths ({readings[0]} readings) and the "
        f"fit to all ({readings[1]}); val loss {loss:.5f} at C {found.fit.strength:g}; {memory:.0f} MB "
        f"beside the features",
        flush=True,
    )
    runs = {rate: torch_loop(train, val, rate) for rate in RATES}
    for rate, run in runs.items():
        print(
            f"  torch lr {rate:g}: {len(run)} epochs, {run[-1][0]:.1f} s, {min(run, key=last)[1]:.5f}"
        )
    best = min(min(loss for _, loss in run) for run in runs.values())
    whole = sum(run[-1][0] for run in runs.values())
    reached = [next((s for s, loss in run if loss <= 1.01 * best), None) for run in runs.values()]
    alone = min(seconds for seconds in reached if seconds is not None)
    print(
        f"  our val loss is {loss / best - 1:+.2%} of the loop's best {best:.5f}; the loop takes {whole:.1f} s: "
        f"ratio {whole / ours:.1f}; its best rate alone is within 1 % of that after {alone:.1f} s: ratio "
        f"{alone / ours:.1f}"
    )


def last(pair: tuple[float, float]) -> float:
    return pair[1]


def peak() -> float:
    """MB of memory at the most so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description="Time --kind segment beside a plain torch loop.")
    parser.add_argument("--images", type=int, default=1000, help="of 256 patches; val has a fifth")
    parser.add_argument("--width", type=int, default=384)
    parser.add_argument("--classes", type=int, default=5)
    parser.add_argument("--file", type=Path, help="a token file, in the place of made patches")
    parser.add_argument("--masks", type=Path, help="its masks")
    given = parser.parse_args()
    if given.file:
        train, val = read(given.file, given.masks)
    else:
        n = 256 * given.images
        shape = given.width, given.classes
        train, val = synthetic(n, *shape, 0), synthetic(n // 5, *shape, 7)
    compare(train, val)


if __name__ == "__main__":
    main()
