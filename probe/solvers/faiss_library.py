"""faiss, loaded once, late, and with a matrix kernel that fits the processor.

faiss's wheels carry an OpenBLAS of their own. That of 1.15 is 0.3.15, of May 2021: it doesn't know
the processors that came later and takes its oldest kernel for them ("Prescott", 2004), at which exact
search takes four times as long. numpy's OpenBLAS is newer and has found out what the processor can do, so
faiss's is given the same kernel by name.
"""

import functools
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from cache.commands.names import version_of
from cache.errors import RequestError

# Distributions that hold the import package `faiss`; two of them overwrite each other's files.
DISTRIBUTIONS = (
    "faiss-cpu",
    "faiss-cuda",
    "faiss-gpu",
    "faiss-gpu-cu11",
    "faiss-gpu-cu12",
    "faiss-gpu-cu12-cuvs",
    "faiss-gpu-cu13-cuvs",
    "faiss-gpu-cuvs",
)

KERNEL = "OPENBLAS_CORETYPE"  # what OpenBLAS reads once, while it is loaded
# Kernels of numpy's OpenBLAS that 0.3.15 doesn't take by name -> the next older one. In float32 their products
# are those of SkylakeX: what they add is for bfloat16 (driver/others/dynamic.c, kernel/x86_64/KERNEL.*).
OLDER = {"Cooperlake": "SkylakeX", "SapphireRapids": "SkylakeX"}


def load_faiss() -> ModuleType:
    """Import faiss late: half a second of loading that only a kNN probe should pay for.

    Raises:
        RequestError: two distributions of faiss in one environment; products that are wrong.
    """
    if len(installed := _installed()) > 1:
        raise RequestError(
            f"{' and '.join(installed)} are installed side by side and have overwritten each "
            "other's files; keep one of them:\n"
            f"  pip uninstall -y {' '.join(installed)} && pip install {installed[-1]}"
        )
    return _loaded()


@functools.cache
def _loaded() -> ModuleType:
    with _kernel_of_numpy():
        import faiss
    _check_products(faiss)
    return faiss


def faiss_versions() -> dict[str, str]:
    """Name -> version of faiss, and of the BLAS that it has loaded with the kernel that this one runs."""
    found = {name: version_of(name) for name in _installed()}
    if blas := _blas_of("faiss"):
        found["faiss BLAS"] = " ".join(
            str(blas[part])
            for part in ("internal_api", "version", "architecture")
            if blas.get(part)
        )
    return found


@contextmanager
def _kernel_of_numpy() -> Iterator[None]:
    """Name numpy's kernel to libraries that are loaded meanwhile; never over a user's own choice.

    An OpenBLAS that knows the processor would take this kernel by itself; one that doesn't know
    the name takes what it would have taken.
    """
    kernel = ""
    if KERNEL not in os.environ and "faiss" not in sys.modules:
        if blas := _blas_of("numpy"):
            kernel = str(blas.get("architecture") or "")
    if not kernel:
        yield
        return
    os.environ[KERNEL] = OLDER.get(kernel, kernel)
    try:
        yield
    finally:
        del os.environ[KERNEL]


def _blas_of(package: str) -> dict[str, Any] | None:
    """What threadpoolctl tells of the OpenBLAS that lies among a package's own files, if one does."""
    import threadpoolctl

    for library in threadpoolctl.threadpool_info():
        folders = Path(library["filepath"]).parts[-3:-1]  # numpy.libs, or numpy/.dylibs
        if library["internal_api"] == "openblas" and any(f.startswith(package) for f in folders):
            return library
    return None


def _check_products(faiss: ModuleType) -> None:
    """Compare one search with numpy's products, of whole numbers, which both must give exactly.

    OpenBLAS cuts matrices by the sizes of caches, which it misreads on some virtual machines.
    """
    rng = np.random.default_rng(0)
    points, queries = (rng.integers(-3, 4, (n, 768)).astype(np.float32) for n in (2048, 64))
    found, _ = faiss.knn(queries, points, 1, metric=faiss.METRIC_INNER_PRODUCT)
    if not np.array_equal(found[:, 0], (queries @ points.T).max(axis=1)):
        raise RequestError(
            f"faiss's matrix products are wrong on this processor, by {faiss_versions()}; name another kernel, such "
            f"as {KERNEL}=Haswell, in the environment and run again"
        )


def _installed() -> list[str]:
    return [name for name in DISTRIBUTIONS if _is_installed(name)]


def _is_installed(distribution: str) -> bool:
    return version_of(distribution) != "not installed"
