"""How much memory one `probe` of a large file takes, by kind.

    python benchmarks/probe_memory.py DIR     # two minutes, and 1.2 GB in DIR

165,466 images (TissueMNIST's train) of width 768 in float16: class tokens of four layers and the
mean of the last. Features are synthetic, and so few steps are taken that the answers mean nothing:
memory doesn't depend on either.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import numpy as np

from cache.format.spec import FileSpec, Samples
from cache.format.units import unit_rows
from cache.store import FeatureWriter

N_IMAGES, WIDTH, N_CLASSES = 165_466, 768, 8
ARRAYS = {f"layers/{i:02d}/cls": WIDTH for i in range(4)} | {"layers/03/mean": WIDTH}
KINDS = {
    "starting": "",
    "knn": "--kind knn --k 20",
    "linear": "--kind linear --strengths 0.01",
    "ridge": "--kind ridge",
    "adamw, 3 seeds": "--kind adamw --iterations 2600",
    "heads": "--kind heads --epochs 1 --iterations 20",
}


def write_features(path: Path) -> None:
    """A feature file of noise around class means."""
    ids = np.array([f"{i:06d}" for i in range(N_IMAGES)])
    labels = np.arange(N_IMAGES) % N_CLASSES
    split = np.zeros(N_IMAGES, np.uint8)
    split[-4000:-2000], split[-2000:] = 1, 2
    spec = FileSpec(
        model="noise",
        encoder="noise",
        size=224,
        dataset="large",
        task="multi-class",
        class_names=tuple(f"class {i}" for i in range(N_CLASSES)),
        key={"layers": {"of": 4}},
        arrays=ARRAYS,
        dtype="float16",
        row_ids=ids,
        row_sample=np.arange(N_IMAGES),
        samples=Samples(ids, split, labels),
        command="python benchmarks/probe_memory.py",
    )
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(N_CLASSES, WIDTH)).astype(np.float32)
    with FeatureWriter(path, spec) as writer:
        for unit in writer.todo:
            rows = slice(*unit_rows(unit, N_IMAGES))
            noise = 4 * rng.standard_normal((rows.stop - rows.start, WIDTH), dtype=np.float32)
            rows_of = noise + centres[labels[rows]]
            writer.write_unit(unit, dict.fromkeys(ARRAYS, rows_of))
        assert writer.finish({})


def peak_of(code: str, words: list[str]) -> float:
    """The peak of memory of a fresh Python, MB."""
    end = "import resource; print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    run = subprocess.run(
        [sys.executable, "-c", f"import sys\n{code}\n{end}", *words],
        capture_output=True,
        text=True,
        check=True,
    )
    return int(run.stdout.split()[-1]) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the memory of probes of a large file.")
    parser.add_argument("folder", type=Path, help="for the feature file and results")
    given = parser.parse_args()
    path = given.folder / "noise_224_000000000000.h5"
    if not path.exists():
        given.folder.mkdir(parents=True, exist_ok=True)
        write_features(path)
    matrix = N_IMAGES * WIDTH * 2 / 2**20
    print(f"{N_IMAGES:_} x {WIDTH}, float16: {matrix:.0f} MB a matrix, 5 matrices in the file")
    for name, flags in KINDS.items():
        code, words = "import probe.run", []
        if flags:
            code = "from probe.cli import main\nassert main(sys.argv[1:]) == 0"
            words = [str(path), *flags.split(), "--resamples", "20"]
            words += ["--results", str(given.folder / "results")]
        print(f"  {name}: {peak_of(code, words):.0f} MB", flush=True)


if __name__ == "__main__":
    main()
