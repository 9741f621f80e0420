"""How fast files of images are decoded, beside Pillow in a plain loop, in one run.

    python benchmarks/decode_files.py --n 2000 --side 224

Each round times every part once, and ratios are of the same round: "loop" is ``Image.open`` and
``np.asarray`` of every file, nothing else; "N workers" is what ``extract`` does with the same files
(decode, hash, thumbnail, pass on) in N processes, without the time they take to start.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from extract.datasets.dataset import Dataset, as_stored
from extract.datasets.files.folders import list_folder
from extract.datasets.files.images import Reading, open_dataset, open_files

BATCH = 16


def write_images(root: Path, n: int, side: int, suffix: str) -> None:
    """Smooth colour images with some grain: they compress about as photographs do."""
    numbers = np.random.default_rng(0)
    for i in range(n):
        coarse = numbers.integers(0, 256, (8, 8, 3), np.uint8)
        smooth = np.asarray(Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC))
        grain = numbers.normal(0, 6, (side, side, 1))
        image = np.clip(smooth + grain, 0, 255).astype(np.uint8)
        folder = root / ("ab"[i % 2])
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{i:06d}{suffix}", quality=90)


def decode_loop(paths: list[Path]) -> None:
    """What anyone would write first."""
    for path in paths:
        with Image.open(path) as image:
            np.asarray(image)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--n", type=int, default=2000)
    parser.add_argument("--side", type=int, default=224)
    parser.add_argument("--suffix", default=".jpg")
    parser.add_argument("--workers", default="0,1,2", help="numbers of processes")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary) / "images"
        write_images(root, options.n, options.side, options.suffix)
        listing = list_folder(root)
        paths = [root / path for path in listing.paths]
        parts: dict[str, Callable[[], float]] = {"loop": lambda: _timed(decode_loop, paths)}
        for n_workers in map(int, options.workers.split(",")):
            reading = Reading(n_workers=n_workers)
            images = open_files(listing, reading, Path(temporary) / "index")
            dataset = open_dataset(images)
            parts[f"{n_workers} workers"] = lambda dataset=dataset: _timed_stream(dataset)
        rates: dict[str, list[float]] = {name: [] for name in parts}
        for round_ in range(options.rounds + 1):
            for name in list(parts)[:: 1 if round_ % 2 else -1]:
                rate = options.n / parts[name]()
                if round_:  # the first round only warms up
                    rates[name].append(rate)
    for name, of_rounds in rates.items():
        ratios = [rate / loop for rate, loop in zip(of_rounds, rates["loop"], strict=True)]
        print(
            f"{name:>10}: {statistics.median(of_rounds):7.0f} images/s, "
            f"{statistics.median(ratios):.2f} of the loop ({min(ratios):.2f}..{max(ratios):.2f})"
        )


def _timed(work: Callable[..., object], *arguments: object) -> float:
    started = time.perf_counter()
    work(*arguments)
    return time.perf_counter() - started


def _timed_stream(dataset: Dataset) -> float:
    """Seconds for all rows, from the first piece on: processes take a moment to start."""
    ranges = dataset.cut([(0, dataset.n_rows)], BATCH)
    pieces = dataset.pieces(ranges, as_stored)
    first = next(pieces)
    started = time.perf_counter()
    n = sum(len(piece) for piece in pieces)
    seconds = time.perf_counter() - started
    return seconds * dataset.n_rows / max(n, 1) if len(first) else seconds


if __name__ == "__main__":
    main()
