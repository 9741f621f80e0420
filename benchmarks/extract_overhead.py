"""What an extraction costs beside its encoder: images/s of the whole over images/s of its parts.

    python benchmarks/extract_overhead.py
    python benchmarks/extract_overhead.py --model vit_small_patch16_224 --size 224 --n 192
    python benchmarks/extract_overhead.py ... --tokens -1 --store int8      patch tokens, with pictures

Within one run and in turns, so that a busy machine disturbs all alike:

* extract: the command's own hot path, from the .npz file to the feature file;
* forward: the plain model, without taps, on batches that are prepared already;
* decode: inflating the file alone;
* transform: resizing and normalising alone.

The goal is 0.97 of the smaller of forward and decode, where the encoder has a device of its own. On
a CPU all four share the cores, so the sum of their times is the floor (measured on two cores, ViT-S
at 224 px: 0.955). On a busy machine set OMP_NUM_THREADS=1: threads that wait for each other blur
everything. Seconds on the processor, of which the smallest of all rounds count, don't hang on what else
runs: with one thread they say what is overhead and what is noise. The weights are random, which changes no time; the images are generated, as large as
MedMNIST's largest and about as compressible.
"""

import argparse
import copy
import dataclasses
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from cache.store import FeatureWriter
from extract.config import STORES, ExtractConfig, default_batch_size
from extract.datasets.sources import find_source
from extract.encoders.encoder import DTYPES, describe
from extract.forward import compute_blocks, decode_pieces, plan_runs, write_blocks
from extract.job import Job
from extract.key import make_transform
from extract.loaded import LazyEncoder
from extract.machine.digests import DigestMemory
from extract.machine.progress import Progress
from extract.prepare.protocols import preprocess
from extract.spec import make_spec


def write_images(path: Path, n: int, side: int) -> None:
    """Write ``n`` colour images of smooth noise, zlib-compressed, in MedMNIST's layout."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (n, side // 8, side // 8, 3), dtype=np.uint8)
    images = coarse.repeat(8, axis=1).repeat(8, axis=2)
    images += rng.integers(0, 4, images.shape, dtype=np.uint8)
    labels = (np.arange(n) % 2).astype(np.uint8)[:, None]
    parts = {"train": slice(0, n - 2), "val": slice(n - 2, n - 1), "test": slice(n - 1, n)}
    arrays = {f"{split}_images": images[part] for split, part in parts.items()}
    arrays |= {f"{split}_labels": labels[part] for split, part in parts.items()}
    np.savez_compressed(path, **arrays)  # type: ignore[arg-type]


Measured = dict[str, list[float]]  # part -> one number a round


def measure(folder: Path, options: argparse.Namespace) -> tuple[Measured, Measured]:
    """Images/s of each part, and seconds of all its threads on the processor, once a round."""
    config = ExtractConfig(
        models=(options.model,),
        size=options.size,
        weights="random",
        precision=options.precision,
        batch_size=options.batch_size,
        tokens=options.tokens,
        store=options.store,
        device=options.device,
        features=folder / "features",
        overwrite=True,
    )
    memory = DigestMemory(folder / "digests.json")
    is_tokens = options.tokens is not None
    description = describe(options.model, options.size, options.tokens or "all", tokens=is_tokens)
    encoder = LazyEncoder(description, config, memory)
    device = encoder.device
    batch_size = options.batch_size or default_batch_size(device.type, description.size)
    config = dataclasses.replace(config, batch_size=batch_size)

    path = folder / "images.npz"
    write_images(path, options.n, options.source_size)
    source = find_source(f"npz:{path}", description.size, None, None)
    dataset = source.open(memory)
    preprocessing = preprocess(config, description.entry, description.statistics)
    transform = make_transform(description.size, preprocessing, dataset.n_channels)
    job = Job(description, source, preprocessing)
    spec = make_spec(job, dataset, encoder, config, transform)
    units = list(range(spec.n_units))
    runs = plan_runs(units, spec.unit_rows, spec.n_rows, batch_size)
    taps = encoder.get(print)

    def extract_all() -> None:
        with FeatureWriter(folder / "x.h5", spec, overwrite=True) as writer:
            with Progress("extract", None) as progress:
                rows = spec.unit_rows
                blocks = compute_blocks(
                    *(taps, dataset, transform, units, config, progress.advance, None, rows),
                    pictures=is_tokens,
                )
                write_blocks(writer, blocks, max(1, batch_size // rows))
            writer.finish({})

    def decode() -> None:
        for _ in decode_pieces(dataset, runs, batch_size, pin=False):
            pass

    pieces = decode_pieces(dataset, runs, batch_size, pin=False)
    batches = [group for _, _, images, _ in pieces for group in images]

    def prepare() -> None:
        for images in batches:
            transform(images.to(device))

    # Few prepared batches, used again and again: all of them wouldn't fit.
    prepared = [
        transform(images.to(device)).to(DTYPES[options.precision]) for images in batches[:4]
    ]
    lengths = [len(images) for images in batches]
    plain = detached(taps.model)

    def forward() -> None:
        with torch.inference_mode():
            for i, length in enumerate(lengths):
                plain(prepared[i % len(prepared)][:length])

    parts: dict[str, Callable[[], None]] = {
        "extract": extract_all,
        "forward": forward,
        "decode": decode,
        "transform": prepare,
    }
    rates: Measured = {name: [] for name in parts}
    busy: Measured = {name: [] for name in parts}
    for round_ in range(options.rounds + 1):
        # Every other round backwards, so that warming up and throttling favour nobody.
        for name in list(parts)[:: 1 if round_ % 2 else -1]:
            synchronise(device)
            started, worked = time.perf_counter(), time.process_time()
            parts[name]()
            synchronise(device)
            if round_:  # the first round only warms up
                rates[name].append(options.n / (time.perf_counter() - started))
                busy[name].append(time.process_time() - worked)
        print(f"round {round_} of {options.rounds}", file=sys.stderr)
    return rates, busy


def detached(model: torch.nn.Module) -> torch.nn.Module:
    """The same weights in a model without hooks."""
    hooks = [module._forward_hooks for module in model.modules()]
    kept = [dict(h) for h in hooks]
    for h in hooks:
        h.clear()
    try:
        return copy.deepcopy(model)
    finally:
        for h, entries in zip(hooks, kept, strict=True):
            h.update(entries)


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="test_vit")
    parser.add_argument("--size", type=int, default=None)
    parser.add_argument("--source-size", type=int, default=224, help="of the generated images")
    parser.add_argument("--n", type=int, default=1024, help="images")
    parser.add_argument("--batch-size", type=int, default=None)
    parser.add_argument("--precision", default="fp32", choices=tuple(DTYPES))
    parser.add_argument("--tokens", default=None, help="as extract's, with pictures")
    parser.add_argument("--store", default="float16", choices=STORES)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rates, busy = measure(Path(folder), options)
    median = {name: float(np.median(values)) for name, values in rates.items()}
    for name, values in rates.items():
        print(f"{name:<10} {median[name]:10.1f} images/s   ({min(values):.1f}..{max(values):.1f})")
    # Ratios within a round first: what disturbs a round disturbs both.
    over = [
        e / min(f, d)
        for e, f, d in zip(*(rates[name] for name in ("extract", "forward", "decode")), strict=True)
    ]
    plain = [e / f for e, f in zip(rates["extract"], rates["forward"], strict=True)]
    for name, ratios in [("forward", plain), ("min(forward, decode)", over)]:
        spread = f"{min(ratios):.3f}..{max(ratios):.3f}"
        print(f"extract / {name:<20} {np.median(ratios):.3f}   ({spread})")
    least = {name: min(values) for name, values in busy.items()}
    share = {name: seconds / least["extract"] for name, seconds in least.items()}
    rest = share["extract"] - share["forward"] - share["decode"] - share["transform"]
    print(
        f"of extract's seconds on the processor: forward {share['forward']:.1%}, decode "
        f"{share['decode']:.1%}, transform {share['transform']:.1%}, all else {rest:.1%}"
    )
    print(f"transform takes {median['forward'] / median['transform']:.1%} of a forward pass's time")


if __name__ == "__main__":
    main()
