"""faiss is loaded once, from one distribution, with numpy's kernel, and its products are right."""

import json
import os
import platform
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from cache.errors import RequestError
from probe.solvers import faiss_library
from probe.solvers.faiss_library import KERNEL, OLDER, load_faiss
from probe.solvers.neighbours import neighbours

CORNERS = np.array([[1, 1], [-1, 1], [-1, -1], [1, -1]], dtype=np.float32)


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="of x86-64 wheels")
def test_faiss_runs_the_kernel_that_numpy_has_chosen():
    code = (
        "import json, os; from probe.solvers.faiss_library import load_faiss, faiss_versions, _blas_of\n"
        "load_faiss()\n"
        f"print(json.dumps([_blas_of('numpy'), _blas_of('faiss'), faiss_versions(), os.environ.get('{KERNEL}')]))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    of_numpy, of_faiss, versions, left = json.loads(done.stdout)
    chosen = of_numpy["architecture"]
    assert of_faiss["architecture"] == OLDER.get(chosen, chosen)
    assert versions["faiss BLAS"].endswith(f" {of_faiss['version']} {of_faiss['architecture']}")
    assert left == os.environ.get(KERNEL)


@pytest.mark.parametrize(
    ("own", "is_loaded", "chosen", "expected"),
    [
        (None, False, "Zen", "Zen"),
        (None, False, "SapphireRapids", "SkylakeX"),
        (None, False, None, None),  # numpy has another BLAS
        (None, True, "Zen", None),  # too late
        ("Haswell", False, "Zen", "Haswell"),
    ],
)
def test_a_kernel_is_named_while_faiss_is_loaded_only(
    monkeypatch, own, is_loaded, chosen, expected
):
    monkeypatch.setattr(
        faiss_library, "_blas_of", lambda package: {"architecture": chosen} if chosen else None
    )
    monkeypatch.delitem(sys.modules, "faiss", raising=False)
    if is_loaded:
        monkeypatch.setitem(sys.modules, "faiss", SimpleNamespace())
    monkeypatch.delenv(KERNEL, raising=False)
    if own:
        monkeypatch.setenv(KERNEL, own)
    with faiss_library._kernel_of_numpy():
        assert os.environ.get(KERNEL) == expected
    assert os.environ.get(KERNEL) == own


def test_wrong_products_are_refused():
    faiss = load_faiss()
    faiss_library._check_products(faiss)

    def off_by_one(queries, points, k, metric):
        distances, found = faiss.knn(queries, points, k, metric=metric)
        distances[-1] += 1
        return distances, found

    wrong = SimpleNamespace(knn=off_by_one, METRIC_INNER_PRODUCT=faiss.METRIC_INNER_PRODUCT)
    with pytest.raises(RequestError, match=f"{KERNEL}=Haswell"):
        faiss_library._check_products(wrong)


def test_two_faiss_distributions_are_refused(tmp_path, monkeypatch):
    for name in ("faiss-cpu", "faiss-gpu-cu12"):
        folder = tmp_path / f"{name.replace('-', '_')}-1.0.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    with pytest.raises(RequestError, match="pip uninstall -y faiss-cpu faiss-gpu-cu12"):
        neighbours(CORNERS, CORNERS, 1)
