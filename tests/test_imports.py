"""Who may import whom, and what a command may load: each in a fresh interpreter."""

import subprocess
import sys

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
