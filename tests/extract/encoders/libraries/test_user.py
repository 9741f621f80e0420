"""Encoders of the user's own: the documented example, every mistake in one line, and the key."""

import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import timm
import torch
from here import REPOSITORY
from torch import Tensor, nn

from cache import RequestError, open_features
from cache.format.key import key_digest
from extract.cli import main
from extract.config import ExtractConfig
from extract.datasets.origins import describe_seen
from extract.encoders.anatomy import Statistics
from extract.encoders.encoder import describe, find_weights, load_encoder
from extract.encoders.libraries import user as from_user
from extract.encoders.libraries.user import UserEncoder
from extract.job import Job
from extract.key import feature_key, make_transform, weights_words
from extract.plan import make_plan
from extract.prepare.protocols import preprocess

# A plain ViT, as a user would have it beside the file that medprobe is given.
NETWORKS = """
import torch
from torch import nn


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.dense = nn.Linear(width, width)

    def forward(self, x):
        return x + torch.tanh(self.dense(self.norm(x)))


class VisionTransformer(nn.Module):
    def __init__(self, image_size, width=8, depth=12, patch=16):
        super().__init__()
        self.embed = nn.Conv2d(3, width, patch, patch)
        self.token = nn.Parameter(torch.randn(1, 1, width))
        self.positions = nn.Parameter(torch.randn(1, 1 + (image_size // patch) ** 2, width))
        self.blocks = nn.ModuleList(Block(width) for _ in range(depth))
        self.norm = nn.LayerNorm(width)

    def forward(self, x):
        x = self.embed(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(len(x), -1, -1), x], dim=1) + self.positions
        for block in self.blocks:
            x = block(x)
        return self.norm(x)[:, 0]
"""

# One file with everything in it. Tests change single words of it.
SMALL = """
import torch
from torch import nn
from extract import UserEncoder

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Conv2d(3, 4, 16, 16)
        self.block = nn.Linear(4, 4)
        self.norm = nn.LayerNorm(4)
        self.idle = nn.Linear(4, 4)

    def forward(self, x):
        x = self.embed(x).flatten(2).transpose(1, 2)
        x = self.block(x)
        return self.norm(x).mean(dim=1)

def make_encoder(size=32):
    net = Net()
    return UserEncoder(
        net, size=size, mean=(0.5, 0.4, 0.3), std=(0.2, 0.2, 0.2), layers=["block"],
        n_prefix=0, has_cls=False, norm="norm", licence="mit",
    )
"""

NAMED = """class Named(nn.Module):
    def forward(self, x):
        return {"x": x}

"""


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "home" / "some where"
    path.mkdir(parents=True)
    return path


@pytest.fixture
def data(tmp_path, write_npz):
    return f"npz:{write_npz(tmp_path / 'x.npz', counts=(5, 2, 2), side=20, channels=3)}"


def write(folder: Path, text: str, name: str = "mine.py") -> str:
    """Write a file; give what --model takes."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)
    return f"{folder / name}:make_encoder"


def edit(text: str, *changes: tuple[str, str]) -> str:
    for old, new in changes:
        assert old in text, old
        text = text.replace(old, new)
    return text


def example() -> str:
    """The code in the module's docstring, as it stands there."""
    document = from_user.__doc__ or ""
    (indented,) = re.findall(r"\n\n((?: {4}[^\n]*\n|\n)+)", document)
    return textwrap.dedent(indented).strip() + "\n"


def features_by(model: str, data: str, root: Path, *arguments: str) -> Any:
    """Extract, expect success, and open the one file."""
    command = ["--model", model, "--data", data, "--store", "float32", "--features", str(root)]
    assert main([*command, *arguments]) == 0
    (path,) = root.rglob("*.h5")
    return open_features(path)


def pixels_of(data: str) -> Tensor:
    with np.load(data.removeprefix("npz:")) as file:
        return torch.from_numpy(
            np.concatenate([file[f"{split}_images"] for split in ("train", "val", "test")])
        )


def inputs_of(model: str, data: str, **options: Any) -> Tensor:
    (job,) = make_plan(ExtractConfig(models=(model,), data=(data,), **options)).jobs
    return make_transform(job.description.size, job.preprocessing, 3)(pixels_of(data))


def key_of(model: str, size: int | None = None) -> dict[str, Any]:
    """The key that features by this encoder would have."""
    d = describe(model, size)
    config = ExtractConfig(models=(model,))
    found = find_weights(d, "pretrained", 0, download=False)
    digest = load_encoder(d, found)[1]
    preprocessing = preprocess(config, d.entry, d.statistics)
    transform = make_transform(d.size, preprocessing, 3)
    source: Any = SimpleNamespace(name="x", source_size=28, slicing=None, reading=None)
    job = Job(d, source, preprocessing)
    return feature_key(job, config, transform, weights=weights_words(found, digest), images="y")


# ---------------------------------------------------------------------------- the example


@pytest.fixture
def documented(folder):
    """The docstring's example, with the network and the weights it speaks of."""
    model = write(folder, example(), "my_encoder.py")
    write(folder, NETWORKS, "my_networks.py")
    torch.manual_seed(1)
    torch.save(plain_network(folder).state_dict(), folder / "my_weights.pt")
    return model


def plain_network(folder: Path, size: int = 64) -> Any:
    """The user's network, without medprobe."""
    names: dict[str, Any] = {}
    exec((folder / "my_networks.py").read_text(), names)
    return names["VisionTransformer"](size)


def test_the_documented_example_runs_as_it_stands(documented, folder, data):
    """In a process of its own, from the user's folder."""
    command = ["--model", "my_encoder.py:make_encoder", "--data", data, "--size", "64"]
    result = subprocess.run(
        [sys.executable, "-m", "extract", *command, "--store", "float32", "--features", "out"],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    assert "weights    made by the encoder's own code" in result.stdout
    assert "layers     12 of 12 x (cls + mean) of 8 + head of 8 · norm: tokens" in result.stdout
    (path,) = (folder / "out").rglob("*.h5")
    features = open_features(path)

    net = plain_network(folder)
    net.load_state_dict(torch.load(folder / "my_weights.pt", weights_only=True))
    pixels = pixels_of(data).permute(0, 3, 1, 2).float()
    images = nn.functional.interpolate(pixels, (64, 64), mode="bicubic", antialias=True)
    images = (images.clamp(0, 255) / 255 - 0.5) / 0.5
    with torch.inference_mode():
        x = net.embed(images).flatten(2).transpose(1, 2)
        x = torch.cat([net.token.expand(len(x), -1, -1), x], dim=1) + net.positions
        for i, block in enumerate(net.blocks):
            x = block(x)
            normed = net.norm(x)
            close(features.array(i, "cls"), normed[:, 0])
            close(features.array(i, "mean"), normed[:, 1:].mean(dim=1))
        close(features.array(-1, "head"), net.norm(x)[:, 0])
        close(features.array(-1, "head"), net(images))


def close(found: Any, expected: Tensor) -> None:
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-4, atol=1e-5)


def test_rows_and_files_are_named_without_the_path(documented, data, tmp_path):
    features = features_by(documented, data, tmp_path / "f", "--size", "64")
    assert features.model == "my_encoder:make_encoder"
    assert features.header.attributes["encoder"] == "my_encoder.py:make_encoder"
    assert "some where" not in str(features.key)
    assert (tmp_path / "f" / "x").is_dir()
    assert features.notes["weights"] == "made by the encoder's own code"
    assert features.notes["seen"] == describe_seen(None, "x")  # nobody knows


def test_the_function_runs_once_a_run(folder, tmp_path, write_npz, capsys):
    """The plan and the run share one network, for all data sets; a second run finds them."""
    model = write(folder, edit(SMALL, ("    net = Net()", "    net = Net(); print('MADE')")))
    sets = [f"npz:{write_npz(tmp_path / f'{n}.npz', counts=(3, 1, 1))}" for n in "ab"]
    for said in ("made by the encoder's own code", "complete already"):
        assert main(["--model", model, "--data", ",".join(sets)]) == 0
        out = capsys.readouterr().out
        assert out.count("MADE") == 1
        assert said in out


def test_probing_runs_no_code_of_the_user(documented, data, folder, tmp_path):
    from cache.cli import main as cache_main
    from probe.cli import main as probe_main

    features = features_by(documented, data, tmp_path / "f", "--size", "64")
    for file in ("my_encoder.py", "my_networks.py"):
        (folder / file).write_text("raise SystemExit('this code ran')")
    del features
    probe = ["--kind", "knn", "--k", "3", "--features", str(tmp_path / "f")]
    assert probe_main([*probe, "--results", str(tmp_path / "r")]) == 0
    assert cache_main(["ls", "--features", str(tmp_path / "f")]) == 0


def test_a_file_that_nobody_named_is_not_run(folder, monkeypatch):
    (folder / "resnet18.py").write_text("raise SystemExit('this code ran')")
    (folder / "timm.py").write_text("raise SystemExit('this code ran')")
    monkeypatch.chdir(folder)
    assert describe("resnet18", 32).entry.library == "timm"


# ---------------------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        # the file
        (
            [("class Net(nn.Module):", "class Net(nn.Module)")],
            r"mine\.py fails: SyntaxError: .*6\)",
        ),
        ([("import torch\n", "import no_such\n")], r"No module named 'no_such' \(mine\.py, line 2"),
        ([("import torch\n", "x = 1 / 0\n")], r"ZeroDivisionError: .* \(mine\.py, line 2\)"),
        ([("import torch\n", "exit(3)\n")], r"mine\.py fails: SystemExit: 3 \(mine\.py, line 2\)"),
        ([("def make_encoder", "def make")], r"no function 'make_encoder' .*; it has Net, make$"),
        ([("def make_encoder(size=32):", "make_encoder = 3\ndef f(size=32):")], "no function"),
        # the function
        ([("net = Net()", "net = 1 / 0")], r"fails: ZeroDivisionError: .* \(mine\.py, line 20\)"),
        ([("net = Net()", "raise SystemExit")], r"fails: SystemExit: SystemExit \(mine\.py, line"),
        ([("(size=32)", "(size)")], "has no size of its own; give --size, or write size=224 there"),
        ([("(size=32)", "(path, size=32)")], "asks for 'path'; it is called with size, or with"),
        ([("return UserEncoder(", "return dict(model=")], "returned a dict; expected an extract.U"),
        ([("    return UserEncoder", "    UserEncoder")], "returned a NoneType; expected"),
        ([("mean=(0.5, 0.4, 0.3), ", "")], r"missing .* argument: 'mean' \(mine\.py, line 21\)"),
        ([("layers=[", "layer=[")], "unexpected keyword argument 'layer'"),
        # what it returns
        ([("        net, size", "        torch.relu, size")], "model must be a torch module"),
        ([("        net, size", "        nn.Identity(), size")], "module with parameters"),
        ([("size=size", "size='32'")], "size is the input's side in pixels, not '32'"),
        ([("size=size", "size=0")], "size is the input's side in pixels, not 0"),
        ([("(0.5, 0.4, 0.3)", "0.5")], r"three numbers each, std above 0; not 0\.5, \(0\.2"),
        ([("(0.5, 0.4, 0.3)", "None")], "three numbers each"),
        ([("(0.5, 0.4, 0.3)", "(0.5, 0.5)")], "three numbers each"),
        ([("(0.2, 0.2, 0.2)", "(0.2, 0.0, 0.2)")], "std above 0"),
        ([("(0.2, 0.2, 0.2)", "(0.2, float('nan'), 0.2)")], "three numbers each"),
        ([('["block"]', "[]")], "layers is a list of one or more names"),
        ([('["block"]', '"block"')], "layers is a list of one or more names"),
        ([('["block"]', '["blocks"]')], "no module 'blocks'; near names: block"),
        ([('["block"]', '["xyz"]')], "no module 'xyz'; its outermost are embed, block, norm, idle"),
        ([('["block"]', '["block", "block"]')], "layers has 'block' twice"),
        ([('["block"]', '["norm"]')], "norm is applied to each layer, so 'norm' can't be a layer"),
        ([('norm="norm"', 'norm="nrm"')], "no module 'nrm'; near names: norm"),
        ([('norm="norm"', 'layout="NLC"')], "layout is one of tokens, BTD, BDHW, BHWD, not 'NLC'"),
        ([("has_cls=False", "has_cls=True")], "has_cls means that n_prefix is 1 or more"),
        ([('norm="norm"', 'norm="norm", layout="BDHW"')], "norm is for tokens, and layout 'BDHW'"),
        ([('norm="norm"', 'interpolation="lanczos"')], "interpolation is one of .* not 'lanczos'"),
        # the network
        ([('["block"]', '["idle"]')], "the forward pass doesn't run its layer 'idle'"),
        ([("x = self.block(x)", "x = self.block(self.block(x))")], "its layer 'block' 2 times"),
        ([("x = self.block(x)", "x = 1 / 0")], r"fails on pictures of 32 px: Zero.*\(mine\.py, li"),
        ([("Conv2d(3", "Conv2d(1")], "fails on pictures of 32 px: RuntimeError: .*channels"),
        ([("n_prefix=0", "n_prefix=4")], "gives 4 tokens, and n_prefix says that 4 aren't patches"),
        ([('["block"]', '["embed"]')], r"'embed' gives \(2, 4, 2, 2\) for 2 pictures; layout 'tok"),
        (
            [('["block"]', '["embed"]'), ('norm="norm"', 'layout="BHWD"')],
            r"'embed' gives \(2, 4, 2, 2\) for 2 pictures; layout 'BHWD' means \(B, H, W, D\) with",
        ),
        ([("LayerNorm(4)", "LayerNorm(2)"), ("self.norm(x)", "x")], "can't be normed by 'norm': "),
        (
            [("self.norm = nn.LayerNorm(4)", "self.norm = nn.Linear(4, 2)")],
            r"is \(2, 4, 4\), and \(2, 4, 2\) after 'norm'",
        ),
        (
            [("x = self.block(x)", "x = self.block(x / 0)")],
            "'block' should give finite numbers, found inf or nan",
        ),
        (
            [("x = self.block(x)", "x = self.block(nn.functional.dropout(x))")],
            "'block' differs between a picture and its copy: something random",
        ),
        (
            [
                ("self.norm = nn.LayerNorm(4)", "self.norm = Named()"),
                ("class Net", f"{NAMED}class Net"),
                ('["block"]', '["norm"]'),
                ('norm="norm"', "norm=None"),
                ("self.norm(x).mean", "self.norm(x)['x'].mean"),
            ],
            "'norm' gives a dict, not a tensor of real numbers",
        ),
        ([("transpose(1, 2)", "permute(2, 0, 1)"), ("dim=1)", "dim=0)")], r"gives \(4, 2, 4\) for"),
    ],
)
def test_every_mistake_is_one_line(folder, data, changes, message, capsys):
    model = write(folder, edit(SMALL, *changes))
    assert main(["--model", model, "--data", data]) == 1
    text = capsys.readouterr().err.strip()
    assert text.startswith("extract: ")
    assert "mine.py:make_encoder" in text
    assert re.search(message, text), text
    assert "\n" not in text


def test_the_unchanged_file_has_no_mistake(folder, data, tmp_path, capsys):
    features = features_by(write(folder, SMALL), data, tmp_path / "f")
    assert features.notes["weights_licence"] == "mit"
    assert features.key["layers"] == {"of": 1, "stored": [0], "norm": "tokens"}
    assert main(["--model", "/nowhere/mine.py:make_encoder", "--data", data]) == 1
    assert "no file at /nowhere/mine.py; --model takes FILE.py:FUNCTION" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--weights", "random"], "--weights random: mine.py:make_encoder makes its own weights"),
        (["--weights", "w.pt"], "--weights w.pt: mine.py:make_encoder makes its own weights"),
        (["--text"], "mine.py:make_encoder has no text tower"),
        (["--layers", "1"], "no layer 1: the encoder has layers 0..0"),
    ],
)
def test_flags_that_do_not_fit(folder, data, arguments, message, capsys):
    assert main(["--model", write(folder, SMALL), "--data", data, *arguments]) == 1
    text = capsys.readouterr().err
    assert message in text
    assert text.count("\n") == 1


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("x = 1\ny = (\n", r"SyntaxError: .*\(my_networks\.py, line 2\)$"),
        ("\n\nx = undefined\n", r"NameError: .*\(my_networks\.py, line 3\)$"),
    ],
)
def test_a_mistake_in_a_module_beside_it_is_found_there(folder, code, message):
    model = write(folder, "import my_networks\n" + SMALL)
    write(folder, code, "my_networks.py")
    with pytest.raises(RequestError, match=message):
        describe(model, None)


# ---------------------------------------------------------------------------- what it may do


def test_size_is_passed_if_the_function_takes_it(folder):
    model = write(folder, SMALL)
    assert describe(model, None).size == 32
    assert describe(model, 64).size == 64
    fixed = write(folder, edit(SMALL, ("(size=32)", "(**other)"), ("size=size", "size=48")))
    assert describe(fixed, None).size == 48
    assert describe(fixed, 48).size == 48
    with pytest.raises(RequestError, match="--size is 64, but it was built for 48: let the"):
        describe(fixed, 64)
    needed = write(folder, edit(SMALL, ("(size=32)", "(*, size)")))
    assert describe(needed, 16).size == 16


def test_mode_and_precision_are_medprobes_to_choose(folder, data, tmp_path):
    """A model in train mode and half precision gives what it gives in eval mode and float32."""
    batch_norm = ("self.idle = nn.Linear(4, 4)", "self.idle = nn.BatchNorm2d(3)")
    runs_it = ("self.embed(x)", "self.embed(self.idle(x))")
    plain = edit(SMALL, batch_norm, runs_it, ("net = Net()", "net = Net().half().float().eval()"))
    half = edit(SMALL, batch_norm, runs_it, ("net = Net()", "net = Net().half().train()"))
    a = features_by(write(folder, plain), data, tmp_path / "a")
    b = features_by(write(folder, half), data, tmp_path / "b")
    np.testing.assert_array_equal(a.array(0, "mean"), b.array(0, "mean"))
    assert a.key["weights"] == b.key["weights"]


def test_of_a_tuple_the_first_part_is_the_layer(folder, data, tmp_path):
    pair = edit(
        SMALL,
        ("nn.Linear(4, 4)\n        self.norm", "Pair(4, 4)\n        self.norm"),
        ("class Net", "class Pair(nn.Linear):\n    def forward(self, x):\n"
         "        return super().forward(x), None\nclass Net"),
        ("x = self.block(x)", "x, _ = self.block(x)"),
    )  # fmt: skip
    a = features_by(write(folder, SMALL), data, tmp_path / "a")
    b = features_by(write(folder, pair), data, tmp_path / "b")
    np.testing.assert_array_equal(a.array(0, "mean"), b.array(0, "mean"))


@pytest.mark.parametrize("output", ["x", "{'x': x}", "(x.mean(dim=1), x)", "None", "x.mean()"])
def test_only_a_vector_an_image_is_a_head(folder, output):
    returns = ("return self.norm(x).mean(dim=1)", f"return {output}")
    assert "head" not in describe(write(folder, edit(SMALL, returns)), None).arrays
    assert describe(write(folder, SMALL), None).arrays == {"layers/00/mean": 4, "head": 4}


@pytest.mark.parametrize(
    ("layout", "shape"),
    [("BTD", "x.flatten(2).transpose(1, 2)"), ("BDHW", "x"), ("BHWD", "x.permute(0, 2, 3, 1)")],
)
def test_other_layouts_are_pooled_over_all_positions(folder, data, tmp_path, layout, shape):
    text = f"""
import torch
from torch import nn
from extract import UserEncoder

class Shape(nn.Module):
    def forward(self, x):
        return {shape}

def make_encoder():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 5, 8, 8), Shape())
    return UserEncoder(net, 32, (0.5,) * 3, (0.5,) * 3, layers=["1"], layout={layout!r})
"""
    model = write(folder, text)
    features = features_by(model, data, tmp_path / "f")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Conv2d(3, 5, 8, 8)
    with torch.inference_mode():
        expected = net(inputs_of(model, data)).mean(dim=(2, 3))
    close(features.array(0, "mean"), expected)
    assert describe(model, None).arrays == {"layers/00/mean": 5}  # no cls, no head


def test_tokens_without_a_prefix_are_normed_too(folder, data, tmp_path):
    tokens = features_by(write(folder, SMALL), data, tmp_path / "a")
    same = edit(SMALL, ("n_prefix=0, has_cls=False,", 'layout="BTD",'))
    btd = features_by(write(folder, same), data, tmp_path / "b")
    np.testing.assert_array_equal(tokens.array(0, "mean"), btd.array(0, "mean"))
    raw = features_by(
        write(folder, edit(SMALL, ('norm="norm"', "norm=None"))), data, tmp_path / "c"
    )
    assert not np.allclose(tokens.array(0, "mean"), raw.array(0, "mean"), atol=1e-2)


def test_random_parts_are_the_same_in_every_run(folder):
    model = write(folder, SMALL)
    torch.manual_seed(5)
    first = key_of(model)
    torch.rand(3)
    before = torch.get_rng_state()
    assert key_of(model) == first
    assert torch.equal(torch.get_rng_state(), before)  # the caller's own stay as they were


def test_imports_beside_the_file_work_whenever_they_happen(folder, tmp_path):
    late = edit(SMALL, ("    net = Net()", "    import late_call\n    net = Net()"))
    late = edit(
        late, ("        x = self.block(x)", "        import late_run\n        x = self.block(x)")
    )
    model = write(folder, late)
    write(folder, "", "late_call.py")
    write(folder, "", "late_run.py")
    before = list(sys.path)
    d = describe(model, None)
    assert sys.path == before
    d.outline.build()(torch.zeros(1, 3, 32, 32))  # and is still known when it runs


def test_two_folders_may_have_modules_of_one_name(folder, data, tmp_path):
    """Else the second encoder would be the first one's network under its own name."""
    models = []
    for name, factor in (("a", 2), ("b", 3)):
        text = edit(
            "import factors\n" + SMALL,
            ("self.block = nn.Linear(4, 4)", "self.block = Scaled(4, 4)"),
            (
                "class Net",
                "class Scaled(nn.Linear):\n    def forward(self, x):\n"
                "        return super().forward(x) * factors.FACTOR\n\nclass Net",
            ),
        )
        models.append(write(folder / name, edit(text, ('norm="norm"', "norm=None")), "mine.py"))
        write(folder / name, f"FACTOR = {factor}\n", "factors.py")
    command = ["--model", ",".join(models), "--data", data, "--store", "float32"]
    assert main([*command, "--features", str(tmp_path / "f")]) == 0
    found = [open_features(p).array(0, "mean") for p in (tmp_path / "f").rglob("*.h5")]
    a, b = sorted(found, key=lambda vectors: np.abs(vectors).sum())
    np.testing.assert_allclose(b, a * 1.5, rtol=1e-5)


def test_dataclasses_and_postponed_annotations_work(folder):
    settings = (
        "from dataclasses import dataclass\n\n@dataclass\nclass Settings:\n    width: int = 4\n\n"
    )
    text = SMALL.replace("class Net", f"{settings}class Net")
    assert describe(write(folder, "from __future__ import annotations\n" + text), None)


def test_a_network_that_is_only_named_like_timms(folder):
    method = "    def forward_intermediates(self): pass\n\n    def forward(self, x)"
    text = edit(
        SMALL,
        ("    return UserEncoder(", "    return net\n    return UserEncoder("),
        ("    def forward(self, x)", method),
    )
    with pytest.raises(RequestError, match=r"a Net that isn't timm's own .*an extract\.User"):
        describe(write(folder, text), None)


# ---------------------------------------------------------------------------- the key


def test_the_same_code_elsewhere_has_the_same_key(folder, tmp_path):
    here = key_of(write(folder, SMALL))
    there = key_of(write(tmp_path / "else where", SMALL))
    assert here == there
    assert here["encoder"] == "mine.py:make_encoder"
    assert here["arguments"]["function"] == "make_encoder"
    assert re.fullmatch("sha256:[0-9a-f]{64}", here["arguments"]["code"])
    assert here["weights"].startswith("made by code, sha256:")


def test_an_edit_of_the_file_makes_another_key(folder):
    """Also one of the same length within the same second, which compiled copies miss."""
    keys = [
        key_of(write(folder, edit(SMALL, ("x = self.block(x)", f"x = self.block(x) * {factor}"))))
        for factor in (1, 2, 1)
    ]
    assert keys[0] == keys[2]
    assert keys[0]["arguments"]["code"] != keys[1]["arguments"]["code"]
    assert keys[0]["weights"] == keys[1]["weights"]


@pytest.mark.parametrize("where", ["helper.py", "helper/__init__.py", "helper/deep.py"])
def test_an_edit_of_a_module_beside_it_makes_another_key(folder, where):
    path = folder / where
    path.parent.mkdir(exist_ok=True)
    name = ".".join(Path(where).with_suffix("").parts).removesuffix(".__init__")
    model = write(folder, f"import {name}\n" + SMALL)
    path.write_text("x = 1\n")
    first = key_of(model)
    path.write_text("x = 12\n")
    assert key_of(model)["arguments"]["code"] != first["arguments"]["code"]
    path.write_text("x = 1\n")
    assert key_of(model) == first


def test_modules_that_it_does_not_import_do_not_count(folder):
    model = write(folder, SMALL)
    first = key_of(model)
    (folder / "other.py").write_text("x = 1\n")
    (folder / "notes.txt").write_text("x")
    # Another user's file in the same folder, in the same process, imports it.
    describe(write(folder, "import other\n" + SMALL, "second.py"), None)
    assert key_of(model) == first
    # And a module that it imports is read again.
    model = write(folder, "import helper\n" + edit(SMALL, ("size=size", "size=helper.SIDE")))
    for side, expected in (("32", 32), ("6400 // 100", 64)):
        write(folder, f"SIDE = {side}\n", "helper.py")
        assert describe(model, None).size == expected


def test_other_weights_make_another_key(documented, folder):
    with pytest.raises(RequestError, match=r"RuntimeError: .*size mismatch for positions.* line 1"):
        describe(documented, 32)
    first = key_of(documented, 64)
    torch.manual_seed(2)
    torch.save(plain_network(folder).state_dict(), folder / "my_weights.pt")
    second = key_of(documented, 64)
    assert first["weights"] != second["weights"]
    assert first["arguments"] == second["arguments"]
    (folder / "elsewhere.pt").write_bytes((folder / "my_weights.pt").read_bytes())
    path = folder / "my_encoder.py"
    path.write_text(path.read_text().replace("my_weights.pt", "elsewhere.pt"))
    moved = key_of(documented, 64)
    assert moved["weights"] == second["weights"]
    assert key_digest(moved) != key_digest(second)  # the code says another file


def test_what_is_read_of_the_network_is_in_the_key(folder):
    """A list of layers may come from a file that no digest covers."""
    read = 'layers=Path(__file__).with_suffix(".txt").read_text().split()'
    text = "from pathlib import Path\n" + edit(SMALL, ('layers=["block"]', read))
    model = write(folder, edit(text, ('norm="norm"', "norm=None")))
    keys = []
    for layers in ("block", "norm"):
        (folder / "mine.txt").write_text(layers)
        keys.append(key_of(model))
    assert keys[0] != keys[1]
    assert keys[0]["arguments"]["code"] == keys[1]["arguments"]["code"]
    assert keys[0]["arguments"]["read"]["layers"] == ["block"]


# ---------------------------------------------------------------------------- timm's models


TIMM_MODEL = """
import timm
import torch

def make_encoder(size=48):
    torch.manual_seed(1)
    return timm.create_model("test_vit", num_classes=9, img_size=size)
"""


def test_a_timm_model_is_taken_as_it_is(folder, data, tmp_path):
    model = write(folder, TIMM_MODEL)
    features = features_by(model, data, tmp_path / "f")
    with torch.random.fork_rng():
        torch.manual_seed(1)
        plain = timm.create_model("test_vit", num_classes=9, img_size=48).eval()
    with torch.inference_mode():
        images = inputs_of(model, data)
        final, layers = plain.forward_intermediates(images, norm=True, return_prefix_tokens=True)
        close(features.array(-1, "head"), plain.forward_head(final, pre_logits=True))
        for i, (patches, prefix) in enumerate(layers):
            close(features.array(i, "mean"), patches.mean(dim=(2, 3)))
            close(features.array(i, "cls"), prefix[:, 0])
    assert features.size == 48
    d = describe(model, None)
    assert d.statistics == Statistics((0.5, 0.5, 0.5), (0.5, 0.5, 0.5), "bicubic")
    assert describe(model, 64).size == 64


@pytest.mark.parametrize("name", ["resnet18", "swin_tiny_patch4_window7_224", "test_vit2"])
def test_other_families_of_timms_are_read_as_by_name(folder, name):
    text = f"import timm\n\ndef make_encoder():\n    return timm.create_model({name!r})\n"
    mine, theirs = describe(write(folder, text), None), describe(name, None)
    assert mine.anatomy == theirs.anatomy
    assert mine.size == theirs.size
    assert mine.arrays == theirs.arrays


def test_timms_default_mean_and_std_are_no_statement(folder, data, capsys):
    text = (
        TIMM_MODEL.replace("    return timm", "    net = timm").replace("\n)", ")")
        + "    net.pretrained_cfg = dict(net.pretrained_cfg, hf_hub_id=None, url=None)\n    return net\n"
    )
    model = write(folder, text)
    assert main(["--model", model, "--data", data]) == 1
    assert "nobody says which mean and std" in capsys.readouterr().err
    assert main(["--model", model, "--data", data, "--mean", "0.5", "--std", "0.5"]) == 0


@pytest.mark.parametrize(
    ("change", "size", "message"),
    [
        (("def make_encoder(size=48)", "def make_encoder(size=50)"), None, "fails|doesn't"),
        (('"test_vit", ', '"test_vit", in_chans=1, '), None, "fails on a picture of 48 px"),
        (
            ("img_size=size)", "img_size=48, dynamic_img_size=False)"),
            64,
            "fails on a picture of 64 px .*let the function take size",
        ),
        (("    return timm", "    return torch.nn.Sequential(timm"), None, "returned a Sequential"),
    ],
)
def test_timm_models_that_cannot_be_read(folder, change, size, message):
    text = edit(TIMM_MODEL, change)
    text = text.rstrip() + (")\n" if "Sequential" in text else "\n")
    with pytest.raises(RequestError, match=message):
        describe(write(folder, text), size)


# ---------------------------------------------------------------------------- entry points


@pytest.fixture
def install(tmp_path, monkeypatch):
    """``install(points, code, name=...)``: a distribution with entry points, as pip leaves it."""

    def put(points, code, name="my_lab"):
        site = tmp_path / f"site of {name}"
        info = site / f"{name}-1.2.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n")
        (info / "entry_points.txt").write_text(f"[medprobe.encoders]\n{points}\n")
        (site / f"{name}.py").write_text(code)
        monkeypatch.syspath_prepend(str(site))
        monkeypatch.delitem(sys.modules, name, raising=False)
        return site / f"{name}.py"

    return put


def test_an_entry_point_is_an_encoder(install, data, tmp_path):
    install("lab-vit = my_lab:make_encoder", SMALL)
    features = features_by("lab-vit", data, tmp_path / "f")
    assert features.model == "lab-vit"
    arguments = features.key["arguments"]
    assert arguments["function"] == "my_lab:make_encoder"
    assert arguments["distribution"] == "my_lab 1.2"
    assert arguments["code"].startswith("sha256:")


def test_an_entry_point_s_edited_code_makes_another_key(install, monkeypatch):
    file = install("lab-vit = my_lab:make_encoder", SMALL)
    first = key_of("lab-vit")
    file.write_text(edit(SMALL, ("x = self.block(x)", "x = self.block(x) * 2")))
    monkeypatch.delitem(sys.modules, "my_lab")
    assert key_of("lab-vit")["arguments"]["code"] != first["arguments"]["code"]


THIS_RAN = "raise SystemExit('this code ran')"


@pytest.mark.parametrize(
    ("points", "code", "message"),
    [
        ("lab = my_lab:nothing", SMALL, "entry point lab of my_lab 1.2 fails: AttributeError"),
        ("lab = no_such_lab:x", SMALL, "entry point lab of my_lab 1.2 fails: ModuleNotFoundError"),
        ("lab = my_lab:make_encoder", "raise SystemExit(3)", "of my_lab 1.2 fails: SystemExit: 3"),
        ("lab = my_lab:x", "x = 3", "the entry point lab of my_lab 1.2 is no function"),
        ("lab = my_lab:dict", "dict = dict", "lab returned a dict; expected an extract.User"),
        (
            "lab = my_lab:make_encoder",
            edit(SMALL, ("net = Net()", "net = 1 / 0")),
            r"lab fails: ZeroDivisionError: .* \(my_lab\.py, line 20\)",
        ),
        ("labs = my_lab:x", THIS_RAN, "no encoder 'lab'; near names: labs"),
    ],
)
def test_entry_points_that_fail(install, points, code, message):
    install(points, code)
    with pytest.raises(RequestError, match=message):
        describe("lab", None)


def test_two_packages_of_one_name_are_refused(install):
    for name in ("my_lab", "her_lab"):
        install(f"lab = {name}:make_encoder", SMALL, name=name)
    twice = "'lab' is offered more than once, by her_lab and my_lab"
    with pytest.raises(RequestError, match=twice):
        describe("lab", None)


def test_a_package_cannot_take_a_known_name(install):
    install("dinov2 = my_lab:x\nresnet50 = my_lab:x", THIS_RAN)
    assert describe("dinov2", None).entry.library == "timm"
    with pytest.raises(RequestError, match="'resnet50' is both a timm name and an entry point"):
        describe("resnet50", None)


def test_user_encoder_is_the_packages_own():
    import extract

    assert extract.UserEncoder is UserEncoder
    with pytest.raises(AttributeError, match="has no attribute 'UserEncoders'"):
        extract.UserEncoders  # noqa: B018
