"""What is remembered of encoders is what their libraries say, and plans made of it load none."""

import dataclasses
import subprocess
import sys

import pytest
import torch

from extract.encoders import outline_memory
from extract.encoders.encoder import Weights, describe, load_encoder
from extract.encoders.outline_memory import OutlineMemory

USER = """
import torch
from extract import UserEncoder
def make_encoder():
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 8, 8))
    return UserEncoder(net, size=16, mean=(0.5,) * 3, std=(0.5,) * 3, layers=["0"], layout="BDHW", n_prefix=0, has_cls=False)
"""


@pytest.fixture
def memory(tmp_path):
    return OutlineMemory(tmp_path / "encoders.json")


def fields(outline):
    return {f.name: getattr(outline, f.name) for f in dataclasses.fields(outline)} | {
        "build": None,
        "load": outline.load is not None,
    }


@pytest.mark.parametrize(
    ("name", "size"), [("test_vit", 32), ("dinov2", None), ("rad-dino", None), ("clip", 224)]
)
def test_a_remembered_outline_is_that_of_the_library(memory, monkeypatch, name, size):
    made = describe(name, size)
    first = describe(name, size, memory=memory)
    monkeypatch.setattr("extract.encoders.encoder._library", None)  # nobody may be asked again
    again = describe(name, size, memory=memory)
    assert fields(first.outline) == fields(again.outline) == fields(made.outline)
    assert again.arrays == made.arrays


def test_a_network_is_built_of_a_remembered_outline(memory):
    seeded = Weights(None, seed=3)
    pictures = torch.rand(1, 3, 32, 32)
    made, digest = load_encoder(describe("test_vit", 32), seeded)
    describe("test_vit", 32, memory=memory)
    again, other = load_encoder(describe("test_vit", 32, memory=memory), seeded)
    assert digest == other
    for name, vectors in made(pictures).items():
        assert torch.equal(vectors, again(pictures)[name])


def edit(memory, monkeypatch):
    text = memory._path.read_text()
    memory._path.write_text(text.replace('"n_prefix": 1', '"n_prefix": 2'))


def forget(memory, monkeypatch):
    memory._path.unlink()


def update(memory, monkeypatch):
    monkeypatch.setattr(outline_memory, "LIBRARIES", ("timm",))
    outline_memory.surroundings.cache_clear()


@pytest.mark.parametrize("change", [edit, forget, update])
def test_what_may_be_out_of_date_is_asked_again(memory, monkeypatch, change):
    entry = describe("test_vit", 32, memory=memory).entry
    asked = []

    def make():
        asked.append(1)
        return describe("test_vit", 32).outline

    assert memory.get(entry, 32, make).anatomy.n_layers == 6
    assert not asked
    change(memory, monkeypatch)
    assert memory.get(entry, 32, make).anatomy.n_layers == 6
    assert asked == [1]
    outline_memory.surroundings.cache_clear()


def test_a_users_own_code_is_run_every_time(memory, tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(USER)
    describe(f"{path}:make_encoder", None, memory=memory)
    assert not memory._path.exists()


def test_a_plan_that_was_made_before_loads_no_library_of_models(tmp_path, write_npz):
    """finetune's plan holds all of extract's, and tries the network that will be trained."""
    words = "--model vit --size 224 --weights random --mode lora --dry-run --data".split()
    words.append(f"npz:{write_npz(tmp_path / 'a.npz')}")
    code = (
        "import sys; from finetune.cli import main; status = main(sys.argv[1:])\n"
        "loaded = {'timm', 'torchvision', 'transformers', 'open_clip', 'peft'} & set(sys.modules)\n"
        "print('LOADED', *sorted(loaded)); sys.exit(status)"
    )
    outs = [
        subprocess.run(
            [sys.executable, "-c", code, *words], check=True, capture_output=True, text=True
        ).stdout.splitlines()
        for _ in range(2)
    ]
    assert "timm" in outs[0][-1]
    assert outs[1][-1] == "LOADED"
    free = "free)"  # the disk's room may change between the two
    plans = [[line for line in out[:-1] if not line.endswith(free)] for out in outs]
    assert plans[0] == plans[1]
