"""A step of ``probe --kind decoder`` beside a bare torch loop on the same maps.

    python benchmarks/probe_decoder.py

The bare loop has torch's own layers on maps that lie in memory as float32, ``interpolate`` to the
input's square and ``cross_entropy``: it reads nothing and keeps nothing. Ours reads float16 maps of a
file by the batch. Rounds alternate; what counts is the median ratio of processor time, which a
thread that reads ahead adds to.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from probe.solvers.decoder_training import Course, Ground, Training
from probe.solvers.decoders import Form, MapHead

N_IMAGES, BATCH, N_CLASSES, LR = 64, 16, 3, 1e-3
N_STEPS, N_ROUNDS = 4, 5
# Head, layers, side of the grid, width and size of the input: a ViT-S, and a CNN's stage.
CASES = [
    ("linear", 1, 16, 384, 224),
    ("linear", 1, 32, 384, 448),
    ("ms", 4, 16, 384, 224),
    ("unet", 5, 16, 64, 224),
]


def seconds(work: Callable[[], object]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started


def bare(name: str, maps: list[torch.Tensor], masks: torch.Tensor, size: int) -> None:
    """As a trainer is usually written; maps are (N, D, h, w)."""
    widths = [part.shape[1] for part in maps]
    width = sum(widths) if name == "ms" else widths[-1]
    unet = MapHead(Form("unet"), widths, N_CLASSES, seed=0)  # the same blocks
    linear = nn.Sequential(nn.BatchNorm2d(width), nn.Conv2d(width, N_CLASSES, 1))
    weights = (unet.modules if name == "unet" else linear).parameters()
    optimizer = torch.optim.AdamW(weights, lr=LR)
    for _ in range(N_STEPS):
        rows = torch.randperm(N_IMAGES)[:BATCH]
        batch = [part[rows] for part in maps]
        if name == "unet":
            logits, mode = unet([part.permute(0, 2, 3, 1) for part in batch]), "bicubic"
        else:
            logits, mode = (
                linear(torch.cat(batch, dim=1) if name == "ms" else batch[-1]),
                "bilinear",
            )
        logits = functional.interpolate(logits, (size, size), mode=mode)
        loss = functional.cross_entropy(logits, masks[rows].long(), ignore_index=255)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def main() -> None:
    rng = np.random.default_rng(0)
    for name, n_layers, grid, width, size in CASES:
        shape = n_layers, N_IMAGES, grid, grid, width
        masks = rng.integers(0, N_CLASSES, (N_IMAGES, size, size)).astype(np.uint8)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "maps"
            stored = np.memmap(path, np.float16, "w+", shape=shape)
            stored[:] = rng.standard_normal(shape, np.float32)
            stored.flush()
            file = np.memmap(path, np.float16, "r", shape=shape)
            widths = (width,) * n_layers
            ground = Ground(
                lambda rows, file=file: [part[rows].astype(np.float32) for part in file],
                lambda rows, masks=masks: masks[rows],
                *(widths, N_CLASSES, size, 0),
            )
            course = Course(Form(name), "ce", "adamw", 1e-2, BATCH, N_STEPS)
            in_memory = [torch.from_numpy(np.float32(p)).permute(0, 3, 1, 2) for p in file]
            in_memory = [part.contiguous() for part in in_memory]
            plain_masks, ratios, times = torch.from_numpy(masks), [], []
            for _ in range(N_ROUNDS):
                ours = seconds(Training(ground, np.arange(N_IMAGES), course, [LR], 0).run)
                plain = seconds(partial(bare, name, in_memory, plain_masks, size))
                ratios.append(ours / plain)
                times.append(ours / N_STEPS)
            print(
                f"{name} on {n_layers} x {grid} x {grid} x {width}, {size} px: "
                f"{statistics.median(ratios):.2f} of a bare loop ({min(ratios):.2f} to "
                f"{max(ratios):.2f}); {1000 * statistics.median(times):.0f} ms a step",
                flush=True,
            )


if __name__ == "__main__":
    main()
