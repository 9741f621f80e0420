"""How fast the attentive probe trains, beside a plain torch loop, and in how much memory.

    python benchmarks/probe_attentive.py             # a minute or two
    python benchmarks/probe_attentive.py --memory    # peak of memory by the number of images

The plain loop is the model as the paper's code writes it: every token's value, attention by autograd,
torch.optim.AdamW and clip_grad_norm_, one setting and one seed, tokens standardised as ours are.
Rounds alternate; what counts is the median ratio of processor time, of a step and model.
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
from probe.solvers.attentive import Moments, Patches, PatchTraining
from probe.solvers.fusion_training import Course
from probe.solvers.outputs import Outputs
from probe.solvers.side_by_side import CLIP, Rate

N_STEPS, N_ROUNDS = 10, 3
N_IMAGES, BATCH, N_QUERIES = 512, 64, 32
COURSE = Course(1, 1, BATCH, None, True)
MAP = 256, 384  # tokens and width that --memory has on disk


class Plain(nn.Module):
    """The model as written."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.queries = nn.Parameter(0.02 * torch.randn(N_QUERIES, width))
        self.values = nn.Linear(width, width, bias=False)
        self.norm = nn.BatchNorm1d(width, affine=False, eps=1e-6)
        self.head = nn.Linear(width, 2)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        n, n_tokens, width = tokens.shape
        queries = self.queries.expand(n, -1, -1) * width**-0.5
        attention = (queries @ tokens.transpose(1, 2)).softmax(dim=2)
        values = self.values(tokens).view(n, n_tokens, N_QUERIES, -1).transpose(1, 2)
        return self.head(self.norm((attention[:, :, None] @ values).view(n, width)))


def plain(x: np.ndarray, labels: np.ndarray, n_steps: int) -> None:
    """One setting and one seed, as a trainer is usually written."""
    _, _, width = x.shape
    model = Plain(width)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=1e-2)
    features, wanted = torch.from_numpy(x), torch.from_numpy(labels)
    weights = len(labels) / (2 * torch.bincount(wanted))
    mean, scale = torch.zeros(width), torch.ones(width)
    for _ in range(n_steps):
        rows = torch.randint(len(x), (BATCH,))
        tokens = (features[rows].float() - mean) / scale
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(tokens), wanted[rows], weights).backward()
        nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()


def start(x: np.ndarray, labels: np.ndarray, n_models: int) -> PatchTraining:
    rows, outputs = np.arange(len(x)), Outputs(BINARY, 2, one_logit=False)
    rates = [Rate(1e-3, 1e-2)] * n_models
    tokens = Patches(x, Moments.of(x[:8]).standard(np.arange(8)))
    return PatchTraining(N_QUERIES, tokens, rows, labels, outputs, COURSE, rates, 0, BATCH)


def seconds(work: Callable[[], object]) -> float:
    begin = time.process_time()
    work()
    return time.process_time() - begin


def compare(n_tokens: int, width: int, n_models: int, n_steps: int) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(N_IMAGES, n_tokens, width)).astype(np.float16)
    labels = rng.integers(2, size=N_IMAGES)
    training = start(x, labels, n_models)
    training.run(1)
    plain(x, labels, 1)
    ratios, each = [], []
    for _ in range(N_ROUNDS):
        slow = seconds(lambda: plain(x, labels, n_steps)) / n_steps
        until = training.n_done + n_steps
        fast = seconds(lambda: training.run(until)) / n_steps / n_models  # noqa: B023
        ratios.append(slow / fast)
        each.append(fast)
    print(
        f"{n_tokens} tokens of {width}, {n_models} settings: ratio "
        f"{statistics.median(ratios):.1f} ({min(ratios):.1f} to {max(ratios):.1f}), "
        f"{1000 * statistics.median(each):.1f} ms a step of {BATCH} and model",
        flush=True,
    )


def peak(n: int) -> None:
    """Train and answer on zeros in a file of so many images; prints megabytes."""
    import resource
    import tempfile

    with tempfile.TemporaryFile() as file:
        x = np.memmap(file, np.float16, "w+", shape=(n, *MAP))
        training = start(x, np.arange(n) % 2, 6)
        training.run(3)
        training.answer(training.tokens, np.arange(min(n, 2048)))
    print(f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f}")


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure how fast the attentive probe trains.")
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--peak", type=int)
    parser.add_argument("--steps", type=int, default=N_STEPS)
    given = parser.parse_args()
    if given.peak:
        return peak(given.peak)
    if given.memory:
        for n in (2_000, 8_000, 32_000):
            words = [sys.executable, __file__, "--peak", str(n)]
            run = subprocess.run(words, capture_output=True, text=True, check=True)
            stored = n * MAP[0] * MAP[1] * 2 / 2**20
            print(f"{n} images: {int(run.stdout)} MB at most; stored are {stored:.0f} MB")
        return None
    print(f"{torch.get_num_threads()} threads, {N_QUERIES} queries")
    for n_tokens, width, n_models in ((256, 384, 1), (256, 384, 6), (196, 768, 1), (196, 768, 6)):
        compare(n_tokens, width, n_models, given.steps)
    return None


if __name__ == "__main__":
    main()
