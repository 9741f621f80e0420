"""What a step of ``finetune`` costs beside a bare timm (+ peft) loop that does the same.

    python benchmarks/finetune_step.py
    python benchmarks/finetune_step.py --modes full --size 98 --weights FILE --device cuda

The bare loop is what one writes by hand: a DataLoader over the same arrays, the same network,
resize, optimiser and batch, and nothing else. ``finetune`` runs as the command does, its checks of
the loss and its progress line included; checkpoints and val lie outside what is timed. The two
sides take turns within one run, a few steps each, so that a busy machine disturbs both alike, and
the median of the ratios is what counts; on a CPU that of the processor's time stands beside, which
waiting for a core doesn't blur. The goal is 1.10, of time and of memory.

Peak memory is measured in a process for each side: what the whole process had resident at most, or
on CUDA what was allocated there. "Added" is what training took beyond the imports, where the
libraries that both sides load don't blur the ratio.

The images are generated, 28 px and grey, as many as BreastMNIST's. Random weights change no time.
A weight file of 16 bits adds 4 bytes a parameter while it is loaded: it is read by way of float32.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import timm.data
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch.utils.data import DataLoader, TensorDataset

if TYPE_CHECKING:  # the bare side's process never imports what only the other one needs
    from finetune.data.batches import Batch, Draw, Loader
    from finetune.training.training import Training

MODES = ("full", "lora", "head")
COUNTS = {"train": 546, "val": 78, "test": 156}  # BreastMNIST's
SIDE = 28
TARGETS = ["qkv", "fc1", "fc2"]  # finetune.model.adapters.TARGETS, of a timm ViT
RANK = 16  # finetune.config.LoraConfig's; so are the rates and the decay below
HEAD_LR, ENCODER_LR, WEIGHT_DECAY = 1e-3, 1e-5, 1e-2
SIDES = ("finetune", "bare")


def make_arrays() -> dict[str, np.ndarray]:
    """Two classes, noise of two levels, in MedMNIST's layout."""
    rng = np.random.default_rng(0)
    arrays = {}
    for split, n in COUNTS.items():
        labels = rng.integers(0, 2, n)
        images = rng.normal(90 + 60 * labels[:, None, None], 40, (n, SIDE, SIDE))
        arrays[f"{split}_images"] = images.clip(0, 255).astype(np.uint8)
        arrays[f"{split}_labels"] = labels[:, None].astype(np.uint8)
    return arrays


# ---------------------------------------------------------------------------- the bare side


def make_bare(options: argparse.Namespace, mode: str) -> torch.nn.Module:
    """The network as timm, and peft, make it."""
    overlay = {"file": str(options.weights)} if options.weights else None
    model = timm.create_model(
        options.model,
        pretrained=overlay is not None,
        pretrained_cfg_overlay=overlay,
        num_classes=1,
        img_size=options.size,
    )
    if mode == "head":
        model.requires_grad_(False)
        model.get_classifier().requires_grad_(True)  # type: ignore
    if mode == "lora":
        import peft

        lora = peft.LoraConfig(
            r=RANK, lora_alpha=RANK, target_modules=TARGETS, modules_to_save=["head"]
        )
        model = peft.get_peft_model(model, lora)
    return model.to(options.device)


def bare_steps(options: argparse.Namespace, mode: str) -> Generator[int, None, None]:
    """Train for ever; gives the number of trained parameters after each step."""
    arrays, device = make_arrays(), torch.device(options.device)
    images = torch.from_numpy(arrays["train_images"])
    labels = torch.from_numpy(arrays["train_labels"]).float()
    on_gpu = device.type == "cuda"
    loader = DataLoader(
        TensorDataset(images, labels),
        options.batch_size,
        shuffle=True,
        drop_last=True,
        pin_memory=on_gpu,
    )
    model = make_bare(options, mode)
    config = timm.get_pretrained_cfg(options.model)
    assert config
    mean, std = (
        255 * torch.tensor(values, device=device).view(1, 3, 1, 1)
        for values in (config.mean, config.std)
    )
    trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
    groups = [
        {"params": [p for n, p in trained.items() if "head" in n], "lr": HEAD_LR},
        {"params": [p for n, p in trained.items() if "head" not in n], "lr": ENCODER_LR},
    ]
    groups = [group for group in groups if group["params"]]
    optimiser = torch.optim.AdamW(groups, weight_decay=WEIGHT_DECAY, fused=True)
    n_trained = sum(p.numel() for p in trained.values())
    dtype = {"fp16": torch.float16, "bf16": torch.bfloat16}.get(options.precision)
    scaler = torch.amp.GradScaler(device.type, enabled=options.precision == "fp16")
    model.train()
    while True:
        for batch, target in loader:
            x = batch[:, None].to(device, non_blocking=True).float()
            x = F.interpolate(x, options.size, mode="bicubic", antialias=True).clamp_(0, 255)
            x = (x - mean) / std
            optimiser.zero_grad(set_to_none=True)
            with torch.autocast(device.type, dtype, enabled=dtype is not None):
                logits = model(x)
            loss = F.binary_cross_entropy_with_logits(
                logits.float(), target.to(device, non_blocking=True)
            )
            scaler.scale(loss).backward()
            scaler.step(optimiser)
            scaler.update()
            yield n_trained


# ---------------------------------------------------------------------------- finetune's side


class Watched:
    """A loader whose reader is told before each batch is asked for."""

    def __init__(self, loader: Loader, before: Callable[[], None]) -> None:
        self._loader, self._before = loader, before

    def batches(self, draws: Iterable[Draw], seed: int = 0) -> Iterator[Batch]:
        batches = self._loader.batches(draws, seed)
        try:
            while True:
                self._before()
                yield next(batches)
        finally:
            batches.close()


def make_training(
    options: argparse.Namespace, mode: str, folder: Path, before: Callable[[], None]
) -> Training:
    """A training as the command makes it, long enough never to end.

    Args:
        options: of this benchmark.
        mode: one of ``MODES``.
        folder: for the data and the checkpoints.
        before: called before each step.
    """
    from extract.machine.digests import DigestMemory
    from extract.plan import make_plan
    from finetune.cli import read_requests
    from finetune.ranks import Ranks
    from finetune.run import make_learned, prepare
    from finetune.setting import Trial
    from finetune.training.checkpoints import Checkpoints
    from finetune.training.training import Training
    from finetune.trials import build
    from probe.questions.laying import lay_over

    path = folder / "images.npz"
    np.savez(path, **make_arrays())  # type: ignore[arg-type]
    words = ["--model", options.model, "--data", f"npz:{path}", "--size", str(options.size)]
    words += ["--weights", str(options.weights or "random"), "--mode", mode]
    words += ["--batch-size", str(options.batch_size), "--micro-batch", str(options.batch_size)]
    words += ["--features", str(folder / "features"), "--runs", str(folder / "runs")]
    words += ["--device", options.device, "--precision", options.precision]
    words += ["--iterations", "10_000_000", "--checks", "1"]
    words += ["--lr", str(HEAD_LR), "--weight-decay", str(WEIGHT_DECAY)]
    words += [] if mode == "head" else ["--encoder-lr", str(ENCODER_LR)]
    words += ["--lora-rank", str(RANK), "--lora-alpha", str(RANK)] if mode == "lora" else []
    request = read_requests(words)[""]
    request = dataclasses.replace(
        request, run=dataclasses.replace(request.run, checkpoint_seconds=math.inf)
    )
    memory = DigestMemory(folder / "digests.json")
    (job,) = make_plan(request.images).jobs
    device = torch.device(options.device)
    setting = prepare(request, job, memory, device, Ranks(), lambda line: None)
    (asked,) = lay_over(request.overlay, setting.images.features)
    learned = make_learned(setting, asked)
    classifier = build(setting, learned.objective, seed=0)
    watched = Watched(setting.augmented, before)
    setting = dataclasses.replace(setting, augmented=watched)  # type: ignore[arg-type]
    files = Checkpoints(folder / "runs" / mode, {})
    return Training(setting, learned, Trial(ENCODER_LR, 0), classifier, files, mode)


class Enough(Exception):
    """Everything is measured."""


# ---------------------------------------------------------------------------- time


def measure_time(options: argparse.Namespace, mode: str) -> NDArray[np.float64]:
    """(rounds, 2, 2) seconds a step: of ``finetune`` and of the bare loop, by the clock and the CPU."""
    bare = bare_steps(options, mode)
    n_trained = next(bare)
    rounds: list[tuple[NDArray[np.float64], NDArray[np.float64]]] = []
    calls, started = 0, now(options.device)

    def before() -> None:
        """Every few steps of ``finetune`` the other side has its turn."""
        nonlocal calls, started
        calls += 1
        if (calls - 1) % options.steps:
            return
        between = now(options.device)
        for _ in range(options.steps):
            next(bare)
        ended = now(options.device)
        if calls > 1 + options.steps:  # the first round only warms up
            rounds.append((between - started, ended - between))
            show(f"{mode}: round {len(rounds)} of {options.rounds}")
        if len(rounds) == options.rounds:
            raise Enough
        started = now(options.device)

    with tempfile.TemporaryDirectory() as folder:
        training = make_training(options, mode, Path(folder), before)
        parameters = training.classifier.parameters()
        same = sum(p.numel() for p in parameters if p.requires_grad)
        if same != n_trained:
            raise SystemExit(
                f"{mode}: finetune trains {same:_} parameters, the other {n_trained:_}"
            )
        (training.files.folder).mkdir(parents=True)
        try:
            training.run()
        except Enough:
            return np.array(rounds) / options.steps
    raise AssertionError("the training ended first")


def now(device: str) -> NDArray[np.float64]:
    """The clock, and the processor's time of all threads, once the device has done its work."""
    synchronise(device)
    return np.array([time.perf_counter(), time.process_time()])


def synchronise(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


# ---------------------------------------------------------------------------- memory


def peak(device: str) -> int:
    """Bytes that were in use at most until now."""
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated(device)
    status = Path("/proc/self/status")
    if not status.exists():  # macOS counts bytes
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Linux hands ru_maxrss on to the programs that a process starts; this starts anew with each.
    (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


def print_peak(options: argparse.Namespace, mode: str, side: str) -> None:
    """Take some steps and print the peak: what a process of its own does."""
    calls = 0

    def before() -> None:
        nonlocal calls
        calls += 1
        if calls > options.steps:
            raise Enough

    if side == "bare":
        if mode == "lora":
            import peft
        imported = peak(options.device)
        steps = bare_steps(options, mode)
        for _ in range(options.steps):
            next(steps)
    else:
        import finetune.run  # noqa: F401

        if mode == "lora":
            import peft  # noqa: F401
        imported = peak(options.device)
        with tempfile.TemporaryDirectory() as folder:
            training = make_training(options, mode, Path(folder), before)
            (training.files.folder).mkdir(parents=True)
            try:
                training.run()
            except Enough:
                pass
    synchronise(options.device)
    print(json.dumps([imported, peak(options.device)]))


def measure_memory(options: argparse.Namespace, mode: str) -> dict[str, tuple[int, int]]:
    """For each side the peak bytes after its imports, and after training."""
    found = {}
    for side in SIDES:
        words = [sys.executable, __file__, "--memory-of", mode, side]
        words += ["--model", options.model, "--size", str(options.size)]
        words += ["--batch-size", str(options.batch_size), "--steps", str(options.steps)]
        words += ["--device", options.device, "--precision", options.precision]
        words += ["--weights", str(options.weights)] if options.weights else []
        result = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True)
        found[side] = tuple(json.loads(result.stdout.splitlines()[-1]))
    return found


# ---------------------------------------------------------------------------- the report


def show(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def report_time(mode: str, rounds: NDArray[np.float64], device: str) -> None:
    ratios = rounds[:, 0] / rounds[:, 1]
    own, other = np.median(rounds[..., 0], axis=0) * 1e3
    ratio, of_cpu = np.median(ratios, axis=0)
    low, high = np.quantile(ratios[:, 0], [0.25, 0.75])
    note = "" if device != "cpu" else f"; of processor time {of_cpu:.3f}"
    print(
        f"{mode:<5} step    finetune {own:8.1f} ms   bare {other:8.1f} ms   ratio {ratio:.3f}   "
        f"(half of the rounds {low:.3f}..{high:.3f}{note})",
        flush=True,
    )


def report_memory(mode: str, found: dict[str, tuple[int, int]]) -> None:
    (start, own), (other_start, other) = (found[side] for side in SIDES)
    print(
        f"{mode:<5} memory  finetune {own / 1e6:8.0f} MB   bare {other / 1e6:8.0f} MB   ratio "
        f"{own / other:.3f}   (added {(own - start) / 1e6:.0f} MB / "
        f"{(other - other_start) / 1e6:.0f} MB = {(own - start) / (other - other_start):.3f})",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--model", default="vit_small_patch14_dinov2", help="of timm, (%(default)s)"
    )
    parser.add_argument("--size", type=int, default=56, help="px (%(default)s)")
    parser.add_argument("--weights", type=Path, metavar="FILE", help="(random)")
    parser.add_argument("--modes", nargs="+", choices=MODES, default=MODES)
    parser.add_argument("--batch-size", type=int, default=16, help="(%(default)s)")
    parser.add_argument("--precision", default="fp32", choices=("fp32", "bf16", "fp16"))
    parser.add_argument("--device", default="cpu", help="cpu or cuda (%(default)s)")
    parser.add_argument("--rounds", type=int, default=30, help="(%(default)s)")
    parser.add_argument("--steps", type=int, default=4, help="of each side a round (%(default)s)")
    parser.add_argument("--memory-of", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.memory_of:
        print_peak(options, *options.memory_of)
        return
    threads = torch.get_num_threads()
    print(
        f"{options.model}, {options.size} px, batch {options.batch_size}, {options.precision}, "
        f"{options.device}, {threads} threads"
    )
    for mode in options.modes:
        report_time(mode, measure_time(options, mode), options.device)
        report_memory(mode, measure_memory(options, mode))


if __name__ == "__main__":
    main()
