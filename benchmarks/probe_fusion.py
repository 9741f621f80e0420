"""How fast attentive fusion trains, beside a plain torch loop, and in how much memory.

    python benchmarks/probe_fusion.py             # a minute or two
    python benchmarks/probe_fusion.py --memory    # peak of memory by the number of samples

The plain loop is the model as papers' code writes it, a module with its three norms and four
products of all tokens, torch.optim.AdamW and clip_grad_norm_, one setting and one seed. Batches, 24
places and width 384 are those of PneumoniaMNIST and a ViT-S. Rounds alternate; what counts is the
median ratio of processor time, of a step and model.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from cache.task import BINARY
from probe.solvers.fusion_training import Course, Noise, Tokens, Training
from probe.solvers.outputs import Outputs
from probe.solvers.side_by_side import CLIP, Rate

N_TOKENS, WIDTH = 24, 384
N_STEPS, N_ROUNDS = 50, 3
COURSE = Course(1000, 40, 2048, None, True)
LARGE = 107_180, 24, 768  # PathMNIST and a ViT-B: 3.9 GB as float16


class Plain(nn.Module):
    """The model as written: every token's key and value, for every sample."""

    def __init__(self, n_tokens: int, width: int, n_classes: int) -> None:
        super().__init__()
        self.heads, inner = n_tokens, n_tokens * 2 * (width // n_tokens)
        self.query = nn.Parameter(0.02 * torch.randn(1, 1, width))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))
        self.ask, self.key, self.value = (nn.Linear(width, inner, bias=False) for _ in range(3))
        self.out, self.batch_norm = nn.Linear(inner, width), nn.BatchNorm1d(width)
        self.head = nn.Linear(width, n_classes)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        def heads(values: torch.Tensor) -> torch.Tensor:
            return values.unflatten(2, (self.heads, -1)).transpose(1, 2)

        query, key, value = self.norms
        asked = heads(self.ask(query(self.query.expand(len(tokens), -1, -1))))
        keys, values = heads(self.key(key(tokens))), heads(self.value(value(tokens)))
        attention = (asked * asked.shape[-1] ** -0.5 @ keys.transpose(2, 3)).softmax(dim=3)
        return self.head(self.batch_norm(self.out((attention @ values).transpose(1, 2).flatten(1))))


def plain(x: np.ndarray, labels: np.ndarray, size: int, noise: float, n_steps: int) -> None:
    """One setting and one seed, as a trainer is usually written."""
    model = Plain(N_TOKENS, WIDTH, 2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=1e-2)
    features, wanted = torch.from_numpy(x).view(len(x), N_TOKENS, WIDTH), torch.from_numpy(labels)
    weights = len(labels) / (2 * torch.bincount(wanted))
    for _ in range(n_steps):
        rows = torch.randint(len(x), (size,))
        tokens = nn.functional.normalize(features[rows].float(), dim=2)
        if noise:
            is_noisy = (torch.rand(size, 1, 1) < 0.5).float()
            tokens = tokens + noise * is_noisy * torch.randn(tokens.shape)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(tokens), wanted[rows], weights).backward()
        nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()


def ours(x: np.ndarray, labels: np.ndarray, n_models: int, noise: float, n_steps: int) -> int:
    """Settings together; returns the size of a batch."""
    rates = [Rate(1e-3, 1e-2, 0.0)] * n_models
    course = Course(1000, 40, 2048, Noise(noise, is_absolute=True) if noise else None, True)
    tokens = Tokens(x, [WIDTH] * N_TOKENS)
    outputs = Outputs(BINARY, 2, one_logit=False)
    training = Training(tokens, np.arange(len(x)), labels, outputs, course, rates, 0)
    training.run(n_steps)
    return training.batch_size


def seconds(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def compare(n: int, n_models: int, noise: float, n_steps: int) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n, N_TOKENS * WIDTH)).astype(np.float16)
    labels = rng.integers(2, size=n)
    size = ours(x, labels, 1, noise, 1)
    plain(x, labels, size, noise, 1)
    ratios, each = [], []
    for _ in range(N_ROUNDS):
        slow = seconds(lambda: plain(x, labels, size, noise, n_steps)) / n_steps
        fast = seconds(lambda: ours(x, labels, n_models, noise, n_steps)) / n_steps / n_models
        ratios.append(slow / fast)
        each.append(fast)
    print(
        f"{n} samples in batches of {size}, {n_models} settings, noise {noise:g}: ratio "
        f"{statistics.median(ratios):.1f} ({min(ratios):.1f} to {max(ratios):.1f}), "
        f"{1000 * statistics.median(each):.1f} ms a step and model",
        flush=True,
    )


def peak(n: int) -> None:
    """Train and answer on zeros in a file of so many samples; prints megabytes."""
    import resource
    import tempfile

    _, n_tokens, width = LARGE
    with tempfile.TemporaryFile() as file:
        x = np.memmap(file, np.float16, "w+", shape=(n, n_tokens * width))
        tokens, labels = Tokens(x, [width] * n_tokens), np.arange(n) % 9
        outputs, rates = Outputs("multi-class", 9), [Rate(1e-3, 1e-2, 0.1)] * 2
        training = Training(tokens, np.arange(n), labels, outputs, COURSE, rates, 0)
        training.run(2)
        training.answer(tokens, np.arange(min(n, 4096)))
    print(f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f}")


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure how fast attentive fusion trains.")
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--peak", type=int)
    parser.add_argument("--steps", type=int, default=N_STEPS)
    given = parser.parse_args()
    if given.peak:
        return peak(given.peak)
    if given.memory:
        for n in (12_000, 48_000, LARGE[0]):
            words = [sys.executable, __file__, "--peak", str(n)]
            run = subprocess.run(words, capture_output=True, text=True, check=True)
            as_floats = n * LARGE[1] * LARGE[2] * 4 / 2**20
            print(f"{n} samples: {int(run.stdout)} MB at most; as float32 {as_floats:.0f} MB")
        return None
    print(f"{torch.get_num_threads()} threads, {N_TOKENS} places of {WIDTH}")
    for n, n_models, noise in (
        (4708, 1, 0.0),
        (4708, 12, 0.0),
        (4708, 1, 0.05),
        (499, 1, 0.0),
        (499, 12, 0.0),
    ):
        compare(n, n_models, noise, given.steps)
    return None


if __name__ == "__main__":
    main()
