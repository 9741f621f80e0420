"""``extract models``: what it lists, and that "ready" is true of exactly what is on this machine."""

import importlib.util
import json
import os
import subprocess
import sys

import pytest
from here import REPOSITORY

from extract.cli import main
from extract.encoders.table.entries import ENTRIES
from extract.show import models
from extract.show.models import format_table

NAMES = [entry.name for entry in ENTRIES]
DEMO = "efficientnet-lite0"  # its weights come by pip


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """An empty hub's cache and torch folder; ``cache(repository, file)`` puts a file there."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hf" / "hub"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))  # of other processes
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")

    def put(repository, file):
        kept = tmp_path / "hf" / "hub" / f"models--{repository.replace('/', '--')}"
        (kept / "snapshots" / "abc").mkdir(parents=True, exist_ok=True)
        (kept / "snapshots" / "abc" / file).touch()
        (kept / "refs").mkdir(exist_ok=True)
        (kept / "refs" / "main").write_text("abc")

    return put


@pytest.fixture
def entry_point(tmp_path, monkeypatch):
    """An installed distribution that offers an encoder; importing its package fails the test."""
    site = tmp_path / "site"
    info = site / "my_lab-1.2.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-lab\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text(
        "[medprobe.encoders]\nlab-vit = my_lab:make_encoder\ndinov2 = my_lab:make_encoder\n"
    )
    (site / "my_lab.py").write_text("raise SystemExit('this code ran')")
    monkeypatch.syspath_prepend(str(site))
    return site


def facts(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, dict]:
    """What ``extract models --json`` says, by name."""
    assert main(["models", *arguments, "--json"]) == 0
    return {one["name"]: one for one in json.loads(capsys.readouterr().out)}


# ---------------------------------------------------------------------------- readiness


def test_exactly_what_is_cached_is_ready(cache, capsys, tmp_path):
    before = set(facts(capsys, "--ready"))
    assert before <= {DEMO}
    cache("timm/vit_base_patch16_224.dino", "model.safetensors")
    cache("timm/resnet18.a1_in1k", "pytorch_model.bin")
    cache("timm/vgg16.tv_in1k", "config.json")  # without its weights
    cache("MahmoodLab/UNI", "pytorch_model.bin")  # gated, but its owners let somebody in
    cache("microsoft/rad-dino", "model.safetensors")
    blip = tmp_path / "torch" / "hub" / "checkpoints" / "model_base.pth"
    blip.parent.mkdir(parents=True)
    blip.touch()
    ready = facts(capsys, "--ready")
    assert set(ready) - before == {"dino", "resnet18", "uni", "rad-dino", "blip"}
    assert ready["blip"]["file"] == str(blip)
    assert ready["resnet18"]["file"].endswith("/abc/pytorch_model.bin")
    others = {name: one for name, one in facts(capsys).items() if name not in ready}
    assert {one["file"] for one in others.values()} == {None}
    assert others["vgg16"]["state"] == "needs download"
    assert others["uni2-h"]["state"] == "gated"
    assert others["biomedgpt"]["state"] == "needs a file"


def test_a_fresh_process_reads_the_usual_cache(cache):
    """Through HF_HOME, as a user has it, and without a library of models."""
    cache("timm/vit_base_patch16_224.dino", "model.safetensors")
    code = (
        "import sys; from extract.cli import main; status = main(['models', '--ready']);"
        "print(*sorted({name.partition('.')[0] for name in sys.modules})); sys.exit(status)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    *table, modules = result.stdout.splitlines()
    assert {line.split()[0] for line in table[1:-1]} - {DEMO} == {"dino"}
    heavy = {"torch", "timm", "open_clip", "transformers", "torchvision", "numpy", "h5py"}
    assert not heavy & set(modules.split())


def test_a_missing_package_is_named(monkeypatch, capsys):
    found = importlib.util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name: None if name == "transformers" else found(name)
    )
    assert facts(capsys)["rad-dino"]["state"] == "missing package transformers"
    main(["models"])
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert "  missing package  RAD-DINO" in lines["rad-dino"]  # the column stays narrow


def test_nothing_ready_is_said(monkeypatch, capsys):
    monkeypatch.setattr(models, "ENTRIES", [e for e in ENTRIES if e.name != DEMO])
    assert main(["models", "--ready"]) == 0
    assert "none is ready here" in capsys.readouterr().out
    assert facts(capsys, "--ready") == {}


# ---------------------------------------------------------------------------- choosing


def test_the_whole_table_in_its_order(capsys):
    assert main(["models"]) == 0
    head, *rows, last = capsys.readouterr().out.splitlines()
    assert head.split() == ["name", "state", "what", "it", "is", "licence", "papers"]
    assert [row.split()[0] for row in rows] == NAMES
    assert last.startswith(f"{len(NAMES)} encoders, ")


def test_the_encoders_of_a_paper(capsys):
    chosen = facts(capsys, "--paper", "huix2024")
    assert list(chosen) == [e.name for e in ENTRIES if "huix2024" in e.papers]
    assert {"dinov2", "seem", "blip"} <= set(chosen)
    assert set(facts(capsys, "--paper", "huix2024", "--ready")) == set()


def test_all_about_one(capsys):
    assert main(["models", "rad-dino", "dino", "rad-dino"]) == 0
    text = capsys.readouterr().out
    assert [line for line in text.splitlines() if not line.startswith(" ")] == ["rad-dino", "dino"]
    for part in (
        "  state       needs download\n",
        "  full name   transformers:microsoft/rad-dino\n",
        "  weights     microsoft/rad-dino/model.safetensors\n",
        "  has seen    NIH ChestX-ray14, CheXpert, MIMIC-CXR\n",
        "  has seen    none of the known medical sets\n",
    ):
        assert part in text


def test_what_nobody_knows_is_said(capsys):
    main(["models", "openai", "monet"])
    text = capsys.readouterr().out
    assert "  has seen    unknown: nobody outside can tell\n" in text
    assert "  licence     unknown\n" in text


def test_a_full_name_is_understood(capsys):
    assert list(facts(capsys, "vit_base_patch16_224.dino")) == ["dino"]


def test_bad_names_list_near_ones(capsys):
    assert main(["models", "rad-dion"]) == 1
    text = capsys.readouterr().err
    assert text.startswith("extract models: no short name 'rad-dion'; near names: rad-dino")
    assert "`extract --model rad-dion --dry-run` tells" in text
    assert text.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--redy"], "unrecognized arguments: --redy"),
        (["--paper", "smith2024"], "invalid choice: 'smith2024'"),
        (["--paper"], "expected one argument"),
        (["dino", "--ready"], "leave the names out"),
    ],
)
def test_flags_that_cannot_be(arguments, message, capsys):
    with pytest.raises(SystemExit) as end:
        main(["models", *arguments])
    assert end.value.code == 2
    text = capsys.readouterr().err
    assert text.startswith("extract models: ")
    assert message in text
    assert text.count("\n") == 1


# ---------------------------------------------------------------------------- entry points


def test_encoders_of_packages_are_listed_without_running_them(entry_point, capsys):
    sys.modules.pop("my_lab", None)  # other tests run it
    every = facts(capsys, "--ready")
    assert every["lab-vit"]["state"] == "installed"
    assert every["lab-vit"]["title"] == "of the package my-lab 1.2"
    # A short name is the table's, whatever a package says.
    assert facts(capsys)["dinov2"]["library"] == "timm"
    assert "my_lab" not in sys.modules
    assert main(["models", "lab-vit"]) == 0
    assert "  library     my_lab:make_encoder\n" in capsys.readouterr().out
    assert "lab-vit" not in facts(capsys, "--paper", "wu2025")


# ---------------------------------------------------------------------------- terminals


def one(name: str) -> models.Facts:
    facts = {"name": name, "state": "ready", "title": "t" * 50}
    return {**facts, "licence": "l" * 20, "papers": ["p" * 20]}


@pytest.mark.parametrize(
    ("width", "columns", "cut"),
    [
        (0, "name state what it is licence papers", False),
        (107, "name state what it is licence papers", False),
        (106, "name state what it is licence papers", True),  # what it is gives way first
        (93, "name state what it is licence papers", True),  # ... down to 36 characters
        (92, "name state what it is licence", False),
        (84, "name state what it is licence", True),
        (70, "name state what it is", False),
        (62, "name state what it is", True),
        (20, "name state what i…", True),
    ],
)
def test_a_narrow_terminal_gets_fewer_columns(width, columns, cut):
    head, *rows, _ = format_table([one("abcd"), one("abc")], width)
    assert " ".join(head.split()) == columns
    assert max(map(len, [head, *rows])) <= (width or 107)
    for row in rows:
        assert ("t…" in row) == cut


def test_lines_of_a_real_table_fit_the_usual_terminals(capsys):
    chosen = list(facts(capsys).values())
    for width in (60, 80, 120):
        assert max(map(len, format_table(chosen, width))) <= max(width, 67)


def test_a_reader_that_has_seen_enough_gets_no_traceback():
    result = subprocess.run(
        f"{sys.executable} -m extract models | head -n 1",
        shell=True,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
        cwd=REPOSITORY,
    )
    assert result.stdout.startswith("name ")
    assert result.stderr == ""
