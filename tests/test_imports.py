"""Who may import whom, and what a command may load: each in a fresh interpreter."""

import ast
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

OURS = {"cache", "extract", "probe", "finetune"}


def loaded_by(code):
    """Top-level modules that are loaded after running code."""
    code += "\nimport sys; print(' '.join({name.partition('.')[0] for name in sys.modules}))"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    return set(result.stdout.splitlines()[-1].split())


def submodules(package):
    import importlib
    import pkgutil

    path = importlib.import_module(package).__path__
    names = [m.name for m in pkgutil.walk_packages(path, f"{package}.")]
    return [name for name in names if not name.endswith("__main__")]


@pytest.mark.parametrize(
    ("package", "allowed"),
    [("cache", set()), ("probe", {"cache"}), ("extract", {"cache"}), ("finetune", OURS)],
)
def test_imports_flow_one_way(package, allowed):
    code = f"import {', '.join([package, *submodules(package)])}"
    assert loaded_by(code) & OURS <= allowed | {package}


# What finetune takes of probe: what asks, measures and writes rows, and what a head learns.
FROM_PROBE = {
    "answer", "encoded", "results", "row", "report.table",
    "metrics.classification", "metrics.measure", "metrics.patients",
    "questions.describe", "questions.leaks", "questions.overlay", "questions.question",
    "questions.samples", "episodes.draw", "episodes.prior", "solvers.epochs", "solvers.outputs",
    "paper_encoders", "kinds.protocols",
}  # fmt: skip
# A head that begins with a probe's weights: the probe is fitted again.
OF_FIRST_HEADS = {"kinds.adamw", "kinds.heads", "kinds.linear", "kinds.head_answers", "places"}


def imported_from(package, path):
    """The modules of a package that a file imports, wherever in it."""
    known = set(submodules(package))
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            assert not {alias.name for alias in node.names} & known
        elif isinstance(node, ast.ImportFrom) and node.module in {*known, package}:
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            yield from (n.removeprefix(f"{package}.") for n in names & known or {node.module})


def test_finetune_takes_of_probe_what_measures_and_writes_rows():
    root = Path(importlib.util.find_spec("finetune").origin).parent
    found = {path: {*imported_from("probe", path)} for path in root.rglob("*.py")}
    of_head = found.pop(root / "start" / "head.py")
    assert OF_FIRST_HEADS <= of_head <= FROM_PROBE | OF_FIRST_HEADS
    assert {name for names in found.values() for name in names} == FROM_PROBE


def test_probe_loads_no_model_code():
    heavy = {"torch", "timm", "open_clip", "torchvision", "medmnist", "sklearn", "pandas", "scipy"}
    assert not loaded_by(f"import {', '.join(submodules('probe'))}") & heavy


@pytest.mark.parametrize("command", ["probe", "cache", "extract"])
def test_help_is_quick_because_it_loads_little(command):
    code = (
        f"from {command}.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit as end: assert not end.code"
    )
    heavy = {"torch", "timm", "h5py", "faiss", "sklearn", "pandas", "scipy", "medmnist", "rich"}
    assert not loaded_by(code) & heavy


def test_processes_that_decode_files_load_no_torch():
    modules = "extract.datasets.files.images, extract.datasets.files.index, extract.machine.workers"
    assert not loaded_by(f"import {modules}") & {"torch", "timm", "medmnist", "rich"}


def test_extract_loads_only_the_library_of_its_encoder(tmp_path, write_npz):
    images = write_npz(tmp_path / "x.npz", side=8)
    arguments = ["--model", "test_vit", "--weights", "random", "--data", f"npz:{images}"]
    code = f"from extract.cli import main\nassert main({arguments}) == 0"
    assert not loaded_by(code) & {"open_clip", "transformers"}


@pytest.mark.parametrize("command", ["probe", "cache", "extract"])
def test_python_m_is_the_command(command):
    result = subprocess.run(
        [sys.executable, "-m", command, "--help"], capture_output=True, text=True, check=True
    )
    assert result.stdout.startswith(f"usage: {command} ")
