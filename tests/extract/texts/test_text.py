"""Text towers against the whole model's own, and the way from prompts to zero-shot answers.

Models are tiny and random, of the very classes that published ones have; nothing is downloaded.
"""

import dataclasses
import json
import math
import shlex
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from looking import some
from networks import assert_close
from numpy.testing import assert_allclose
from open_clip.coca_model import CoCa
from open_clip.model import CLIP, CustomTextCLIP
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import extract.texts.run
from cache import RequestError, open_features
from cache.format.key import canonical_json
from cache.store import FeatureWriter
from extract.cli import main
from extract.config import ExtractConfig
from extract.encoders.encoder import describe, read_weights
from extract.encoders.resolve import find_entry
from extract.encoders.table.entries import ENTRIES
from extract.texts import tower as text_tower
from extract.texts.prompts import TEMPLATES, make_prompts, prompt_classes, read_prompts
from extract.texts.tower import TextTower, load_text_tower, make_tokenizer, outline_text
from probe.cli import main as probe

EMBED = 24
VIT = {"image_size": 32, "patch_size": 8, "width": 32, "layers": 2, "head_width": 16}
TEXT = {"context_length": 20, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 3}
COCA = {**TEXT, "embed_cls": True, "output_tokens": True}
CAPTIONS = {"context_length": 20, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}
SIGLIP = {
    **TEXT,
    "no_causal_mask": True,
    "proj_bias": True,
    "pool_type": "last",
    "norm_kwargs": {"eps": 1e-6},
    "act_kwargs": {"approximate": "tanh"},
    "tokenizer_kwargs": {"clean": "canonicalize"},
}
CONFIG: dict[str, Any] = {"embed_dim": EMBED, "vision_cfg": VIT, "text_cfg": TEXT}
CUSTOM = {**CONFIG, "custom_text": True}
KINDS = {
    "at the root": CONFIG,
    "under text.": CUSTOM,
    "quick gelu": {**CONFIG, "quick_gelu": True},
    "coca": {**CUSTOM, "text_cfg": COCA, "multimodal_cfg": CAPTIONS},
    "siglip's": {**CUSTOM, "text_cfg": SIGLIP, "init_logit_bias": -10, "init_logit_scale": 2.3},
    "no projection": {**CUSTOM, "text_cfg": {**TEXT, "width": EMBED, "proj_type": "none"}},
    "long texts": {**CONFIG, "text_cfg": {**TEXT, "context_length": 77}},
}
PROMPTS = ["a photo of a cat.", "CHEST X-ray, no  finding", "naïve façade &amp; co", "x " * 100]


def make_whole(config: dict[str, Any]) -> Any:
    """A whole model of open_clip's as its factory would build it, every weight moved."""
    arguments = {n: v for n, v in config.items() if n != "custom_text"}
    custom = config.get("custom_text") or "hf_model_name" in config["text_cfg"]
    model_class = CustomTextCLIP if custom else CLIP
    model_class = CoCa if "multimodal_cfg" in config else model_class
    if "hf_model_name" in config["text_cfg"]:
        arguments["text_cfg"] = {**config["text_cfg"], "hf_model_pretrained": False}
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(3)
        whole = model_class(**arguments).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in whole.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
    return whole


def write_folder(folder: Path, config: dict[str, Any], **changed: Tensor | None) -> Any:
    """A model as open_clip saves it; gives the whole model."""
    folder.mkdir(exist_ok=True)
    whole = make_whole(config)
    published = {"model_cfg": config, "preprocess_cfg": {"mean": [0.5] * 3, "std": [0.5] * 3}}
    (folder / "open_clip_config.json").write_text(json.dumps(published))
    tensors = {**whole.state_dict(), **changed}
    kept = {n: t.clone().contiguous() for n, t in tensors.items() if t is not None}
    save_file(kept, folder / "open_clip_model.safetensors")
    return whole


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """``models(kind)`` -> folder and whole model, made once."""
    made = {}

    def make(kind):
        if kind not in made:
            folder = tmp_path_factory.mktemp("models") / "clip"
            made[kind] = folder, write_folder(folder, KINDS[kind])
        return made[kind]

    return make


def read_tensors(folder: Path) -> dict[str, Tensor]:
    return load_file(folder / "open_clip_model.safetensors")


def outline_of(folder: Path) -> Any:
    return outline_text(find_entry(f"local-dir:{folder}"))


def publish(folder: Path, **config: Any) -> Path:
    """A configuration alone, as hubs have it beside weights."""
    text = json.dumps({"model_cfg": {**CONFIG, **config}})
    (folder / "open_clip_config.json").write_text(text)
    return folder


def load(folder: Path) -> TextTower:
    return load_text_tower(outline_of(folder), read_tensors(folder), "w.safetensors")


@torch.inference_mode()
def encode_text(whole: Any, tokens: Tensor) -> Tensor:
    return whole.encode_text(tokens, normalize=False)


# ---------------------------------------------------------------------------- the tower


@pytest.mark.parametrize("kind", list(KINDS))
def test_texts_are_encoded_as_by_the_whole_model(kind, models):
    folder, whole = models(kind)
    outline = outline_of(folder)
    tokens = make_tokenizer(outline)(PROMPTS)
    own = open_clip.get_tokenizer(f"local-dir:{folder}")
    torch.testing.assert_close(tokens, own(PROMPTS), rtol=0, atol=0)
    tower = load(folder)
    found = tower(tokens)
    assert_close(found, encode_text(whole, tokens))
    assert (outline.width, outline.n_layers) == (found.shape[1], 3)
    assert tower.logit_scale == pytest.approx(float(whole.logit_scale.detach().exp()))
    bias = None if whole.logit_bias is None else float(whole.logit_bias.detach())
    assert tower.logit_bias == pytest.approx(bias)


def test_many_texts_go_in_batches(models, monkeypatch):
    folder, _ = models("at the root")
    tokens = make_tokenizer(outline_of(folder))(PROMPTS)
    whole = load(folder)(tokens)
    monkeypatch.setattr(text_tower, "BATCH", 3)
    assert_close(load(folder)(tokens), whole)


def test_a_scale_in_a_list_of_one_is_a_scale(tmp_path):
    write_folder(tmp_path / "m", CONFIG, logit_scale=torch.tensor([math.log(50)]))
    assert load(tmp_path / "m").logit_scale == pytest.approx(50)


def test_random_weights_come_from_the_seed(models):
    folder, _ = models("siglip's")
    outline = outline_of(folder)
    tokens = make_tokenizer(outline)(PROMPTS)
    before = torch.random.get_rng_state()
    towers = [load_text_tower(outline, None, "", seed) for seed in (0, 0, 1)]
    assert torch.equal(torch.random.get_rng_state(), before)
    vectors = [tower(tokens) for tower in towers]
    assert torch.equal(vectors[0], vectors[1])
    assert not torch.equal(vectors[0], vectors[2])
    assert towers[0].logit_scale == pytest.approx(math.exp(2.3))
    assert towers[0].logit_bias == -10


@pytest.mark.parametrize("kind", ["at the root", "under text."])
@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"ln_final.bias": None}, "1 of 41 tensors are missing (ln_final.bias)"),
        ({"ln_extra": torch.ones(2)}, "1 don't belong (ln_extra)"),
        (
            {"positional_embedding": torch.ones(21, 16)},
            "positional_embedding is (21, 16) instead of (20, 16)",
        ),
        ({"logit_scale": None}, "w.pt holds no logit_scale, so it isn't an open_clip checkpoint"),
    ],
)
def test_what_does_not_fit_is_refused(kind, changed, message, models):
    folder, _ = models(kind)
    prefix = "text." if kind == "under text." else ""
    tensors = read_tensors(folder)
    for name, value in changed.items():
        name = name if name == "logit_scale" else prefix + name
        tensors.pop(name, None)
        tensors |= {} if value is None else {name: value}
    with pytest.raises(RequestError) as refusal:
        load_text_tower(outline_of(folder), tensors, "w.pt")
    assert message in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_an_image_tower_alone_has_no_texts(models):
    folder, _ = models("at the root")
    kept = {n: t for n, t in read_tensors(folder).items() if n.startswith(("visual.", "logit"))}
    with pytest.raises(RequestError, match="41 of 41 tensors are missing .*text tower and all"):
        load_text_tower(outline_of(folder), kept, "w.pt")


@pytest.mark.parametrize("kind", ["at the root", "under text."])
def test_a_trainers_names_and_openais_numbers_are_known(kind, models):
    folder, whole = models(kind)
    tensors = {**read_tensors(folder), "context_length": torch.tensor(20)}
    outline = outline_of(folder)
    tokens = make_tokenizer(outline)(PROMPTS)
    in_module = {f"module.{name}": value for name, value in tensors.items()}
    found = load_text_tower(outline, in_module, "w.pt")(tokens)
    assert_close(found, encode_text(whole, tokens))


def test_the_key_of_a_tower_can_be_written(models):
    folder, _ = models("siglip's")
    arguments = outline_of(folder).arguments
    assert json.loads(canonical_json(arguments)) == {
        "text": SIGLIP,
        "embed_dim": EMBED,
        "quick_gelu": False,
    }


def test_encoders_without_a_text_tower_are_refused():
    with pytest.raises(RequestError) as refusal:
        outline_text(find_entry("dinov2"))
    named = ["biomedclip", "openclip", "open_clip:MODEL/TAG"]
    assert all(name in str(refusal.value) for name in some(named))
    assert "has no text tower that medprobe can run" in str(refusal.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ({}, "its configuration describes no text tower"),
        ({**TEXT, "verses": 3}, "can't be built .*unexpected keyword argument 'verses'"),
        ({**TEXT, "hf_model_name": "org/bert"}, "names no tokenizer for org/bert"),
        (
            {**TEXT, "vocab_size": 40_000},
            "gives token 49407, and the text tower knows 40000",
        ),
        (
            {**TEXT, "vocab_size": 200_000},
            "knows 49408 tokens and the text tower 200000",
        ),
    ],
)
def test_a_text_tower_that_cannot_be_built_or_read_for(tmp_path, text, message):
    with pytest.raises(RequestError, match=message):
        make_tokenizer(outline_of(publish(tmp_path, text_cfg=text)))(["a cat"])


# ---------------------------------------------------------------------------- of transformers

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"a an image of medical no . 0 1 2".split()]


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    """A repository of transformers': configuration and tokenizer, without weights."""
    from transformers import BertConfig

    folder = tmp_path_factory.mktemp("hub") / "bert"
    folder.mkdir()
    (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizer"}))
    BertConfig(
        vocab_size=len(WORDS),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=100,
        layer_norm_eps=1e-6,
    ).save_pretrained(folder)
    return folder


def bert_config(name: str, **changes: Any) -> dict[str, Any]:
    """As BiomedCLIP's."""
    text = {
        "hf_model_name": name,
        "hf_tokenizer_name": name,
        "hf_proj_type": "mlp",
        "hf_pooler_type": "cls_last_hidden_state_pooler",
        "context_length": 32,
    }
    return {**CONFIG, "text_cfg": {**text, **changes}}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"hf_pooler_type": "mean_pooler", "hf_proj_type": "linear"},
        {"hf_pooler_type": "cls_pooler", "output_tokens": True},
    ],
)
def test_a_tower_of_transformers_from_a_folder(tmp_path, bert, changes):
    whole = write_folder(tmp_path / "m", bert_config(str(bert), **changes))
    outline = outline_of(tmp_path / "m")
    tokens = make_tokenizer(outline)(["a medical image of 0.", "no image"])
    assert tokens.shape == (2, 32)
    assert tokens[0, :9].tolist() == [2, 5, 9, 7, 8, 12, 11, 3, 0]
    found = load(tmp_path / "m")(tokens)
    expected = encode_text(whole, tokens)
    assert_close(found, expected[0] if isinstance(expected, tuple) else expected)
    assert (outline.n_layers, outline.width) == (2, EMBED)


def test_the_key_holds_what_builds_it_and_no_path(tmp_path, bert):
    config = bert_config(str(bert))
    write_folder(tmp_path / "m", config)
    arguments = outline_of(tmp_path / "m").arguments
    text = canonical_json(arguments)
    assert str(tmp_path) not in text
    assert "bert" not in canonical_json(arguments["text"])
    assert arguments["hf"]["model_type"] == "bert"
    assert arguments["hf"]["layer_norm_eps"] == 1e-6
    assert arguments["text"]["hf_pooler_type"] == "cls_last_hidden_state_pooler"
    del config["text_cfg"]["context_length"]
    publish(tmp_path / "m", **config)
    assert make_tokenizer(outline_of(tmp_path / "m"))(["a"]).shape == (1, 77)  # open_clip's own


def test_numbers_of_positions_in_old_files_do_no_harm(tmp_path, bert):
    old = {"text.transformer.embeddings.position_ids": torch.arange(100)[None]}
    whole = write_folder(tmp_path / "m", bert_config(str(bert)), **old)
    tokens = torch.tensor([[2, 5, 6, 3]])
    assert_close(load(tmp_path / "m")(tokens), encode_text(whole, tokens))
    # A tokenizer beside the weights is taken.
    publish(tmp_path / "m", **bert_config(str(bert), hf_tokenizer_name="org/elsewhere"))
    for file in ("vocab.txt", "tokenizer_config.json"):
        (tmp_path / "m" / file).write_bytes((bert / file).read_bytes())
    tokenize = make_tokenizer(outline_of(tmp_path / "m"))
    assert tokenize(["a medical image"])[0, :5].tolist() == [2, 5, 9, 7, 3]


def test_the_hubs_files_are_read_from_its_cache(tmp_path, bert, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(text_tower, "config_file", lambda name, file: bert / file)
    whole = write_folder(tmp_path / "m", bert_config(str(bert)))
    publish(tmp_path / "m", **bert_config("org/bert"))
    outline = outline_of(tmp_path / "m")
    tokens = make_tokenizer(outline)(["a medical image of 1."])
    assert_close(load(tmp_path / "m")(tokens), encode_text(whole, tokens))


def test_offline_what_is_missing_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(RequestError) as refusal:
        outline_of(publish(tmp_path, **bert_config("org/no-such-bert")))
    assert "its text tower needs org/no-such-bert/config.json" in str(refusal.value)
    assert "the network is not to be used" in str(refusal.value)
    assert "\n" not in str(refusal.value)
    publish(tmp_path, text_cfg={**TEXT, "hf_tokenizer_name": "org/no-such-tokenizer"})
    with pytest.raises(RequestError, match="needs org/no-such-tokenizer/tokenizer_config.json"):
        make_tokenizer(outline_of(tmp_path))


@pytest.mark.parametrize("answer", ["can't reach the hub", "repository has no"])
def test_a_hub_that_does_not_answer_is_said_in_one_line(tmp_path, monkeypatch, answer):
    def say(name, file):
        if "reach" in answer:
            raise RequestError("can't reach the hub (timed out)")

    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(text_tower, "config_file", say)
    with pytest.raises(RequestError, match=f"needs org/bert/config.json.*{answer}"):
        outline_of(publish(tmp_path, **bert_config("org/bert")))


def test_an_old_repository_has_a_tokenizer_without_a_configuration(tmp_path, bert, monkeypatch):
    def have(name, file):
        return bert / file if file in ("config.json", "vocab.txt") else None

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(text_tower, "config_file", have)
    publish(tmp_path, **bert_config("org/bert"))
    tokenize = make_tokenizer(outline_of(tmp_path))
    assert tokenize(["a medical image"])[0, :5].tolist() == [2, 5, 9, 7, 3]


def test_half_a_tokenizer_is_refused(tmp_path, bert):
    """transformers makes one of five tokens out of it, and every word becomes [UNK]."""
    half = tmp_path / "half"
    half.mkdir()
    (half / "tokenizer_config.json").write_bytes((bert / "tokenizer_config.json").read_bytes())
    write_folder(tmp_path / "m", bert_config(str(bert), hf_tokenizer_name=str(half)))
    with pytest.raises(RequestError, match="knows 5 tokens and the text tower 15: a file of it"):
        make_tokenizer(outline_of(tmp_path / "m"))


def test_code_of_a_repository_is_never_run(tmp_path, bert):
    (tmp_path / "evil").mkdir()
    content = {"model_type": "mine", "auto_map": {"AutoConfig": "code.Config"}}
    (tmp_path / "evil" / "config.json").write_text(json.dumps(content))
    (tmp_path / "evil" / "code.py").write_text("raise SystemExit('run')")
    publish(tmp_path, **bert_config(str(tmp_path / "evil")))
    with pytest.raises(RequestError, match="its text tower can't be built"):
        outline_of(tmp_path)


def test_without_transformers_the_package_is_named(tmp_path, bert, monkeypatch):
    publish(tmp_path, **bert_config(str(bert)))
    entry = find_entry(f"local-dir:{tmp_path}")
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(RequestError, match=r"pip install 'medprobe\[transformers\]'"):
        outline_text(entry)


# ---------------------------------------------------------------------------- prompts


def test_every_official_set_has_a_template():
    from medmnist import INFO

    from extract.datasets.arrays.medmnist import FLAGS_2D

    assert {*FLAGS_2D, "demo"} <= TEMPLATES.keys()
    for flag in FLAGS_2D:
        names = prompt_classes(INFO[flag]["task"], tuple(INFO[flag]["label"].values()))
        prompts = make_prompts(flag, names, ())
        assert list(prompts) == list(names)
        for name, texts in prompts.items():
            assert texts
            assert all(name in text and "{" not in text for text in some(texts))


def test_templates_name_the_class_and_several_labels_their_negatives():
    found = make_prompts("breastmnist", ["a {b}", "c"], ["one {}", "two {}."])
    assert found == {"a {b}": ["one a {b}", "two a {b}."], "c": ["one c", "two c."]}
    assert make_prompts("mine", ["a"], ()) == {"a": ["a medical image of a."]}
    assert prompt_classes("multi-label, binary-class", ["a", "b"]) == ("a", "b", "no a", "no b")
    for task in ("binary-class", "multi-class", "ordinal-regression"):
        assert prompt_classes(task, ["a", "b"]) == ("a", "b")


def test_a_users_prompts_are_put_in_order(tmp_path):
    path = tmp_path / "p.json"
    path.write_text('\ufeff{"b": "one", "a": ["two", "three"]}', encoding="utf-8")
    found = read_prompts(path, ["a", "b"])
    assert list(found.items()) == [("a", ["two", "three"]), ("b", ["one"])]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "isn't JSON: Expecting property name"),
        ("[" * 100_000, "isn't JSON"),
        ("[]", 'must hold {"class name": ["prompt", ...], ...}'),
        ('{"a": "x"}', "lacks 'b'; the classes are a, b"),
        ('{"a": "x", "b": "y", "c": "z"}', "has 'c', which is no class; the classes are a, b"),
        ('{"a": "x", "c": "z"}', "lacks 'b' and has 'c', which is no class"),
        ('{"a": "x", "b": []}', "'b' needs one or more non-empty texts"),
        ('{"a": "x", "b": ["y", " "]}', "'b' needs one or more non-empty texts"),
        ('{"a": "x", "b": [3]}', "'b' needs one or more non-empty texts"),
        ('{"a": "x", "b": {"c": "d"}}', "'b' needs one or more non-empty texts"),
        ('{"a": "x", "b": "y", "a": "z"}', "'a' stands there twice"),
    ],
)
def test_prompts_that_do_not_fit_are_refused(tmp_path, content, message):
    path = tmp_path / "p.json"
    path.write_text(content)
    with pytest.raises(RequestError) as refusal:
        read_prompts(path, ["a", "b"])
    assert message in str(refusal.value)
    assert str(refusal.value).startswith(f"--prompts: {path}")
    assert "\n" not in str(refusal.value)


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(RequestError, match=r"can't read .*p\.json: No such file"):
        read_prompts(tmp_path / "p.json", ["a"])
    (tmp_path / "latin").write_bytes(b'{"a": "\xe9"}')
    with pytest.raises(RequestError, match="latin isn't JSON"):
        read_prompts(tmp_path / "latin", ["a"])


# ---------------------------------------------------------------------------- as a command


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    status = main(list(words))
    said = capsys.readouterr()
    assert "Traceback" not in said.err
    return status, said.out, said.err


def write_prompts(path: Path, prompts: dict[str, Any]) -> str:
    path.write_text(json.dumps(prompts))
    return str(path)


def slow_zeroshot(whole: Any, pixels: Any, prompts: Sequence[Sequence[str]], own: Any) -> Any:
    """Scores by the whole model in plain steps: (n, C) cosines times the scale."""
    with torch.inference_mode():
        images = torch.from_numpy(pixels).float()
        images = (
            images[:, None].expand(-1, 3, -1, -1)
            if images.ndim == 3
            else images.permute(0, 3, 1, 2)
        )
        vectors = whole.encode_image((images / 255 - 0.5) / 0.5, normalize=True).double()
        classes = []
        for texts in prompts:
            each = whole.encode_text(own(list(texts)), normalize=True).double()
            classes.append(nn.functional.normalize(each.mean(dim=0), dim=0))
        return whole.logit_scale.exp().double() * vectors @ torch.stack(classes).T


def probe_scores(results: Path) -> dict[str, Any]:
    (path,) = results.glob("*/*.npz")
    with np.load(path) as stored:
        return dict(stored)


TASKS = {
    "multi-class": {"classes": 3},
    "binary": {"classes": 2, "channels": 3},
    "multi-label": {"n_labels": 3},
}


@pytest.mark.parametrize("kind", ["at the root", "under text."])
@pytest.mark.parametrize("task", list(TASKS))
def test_zeroshot_from_end_to_end(tmp_path, write_npz, models, task, kind, capsys):
    folder, whole = models(kind)
    data = write_npz(tmp_path / "x.npz", counts=(4, 30, 40), side=32, **TASKS[task])
    names = ["0", "1"] if task == "binary" else ["0", "1", "2"]
    names += ["no 0", "no 1", "no 2"] if task == "multi-label" else []
    asked = {
        name: [f"a photo of {name}", f"{name} " * 3][: 1 + i % 2] for i, name in enumerate(names)
    }
    prompts = write_prompts(tmp_path / "p.json", asked)
    common = ["--model", f"local-dir:{folder}", "--data", f"npz:{data}", "--store", "float32"]
    assert run(capsys, *common, "--layers", "-1")[0] == 0
    status, out, err = run(capsys, *common, "--text", "--prompts", prompts)
    assert (status, err) == (0, "")
    n_texts = sum(map(len, asked.values()))
    assert f"local-dir:clip on x: {n_texts} prompts of {len(names)} classes · " in out
    assert probe(["--kind", "zeroshot"]) == 0
    found = probe_scores(tmp_path / "results")
    with np.load(data) as file:
        logits = slow_zeroshot(
            whole, file["test_images"], list(asked.values()),
            open_clip.get_tokenizer(f"local-dir:{folder}"),
        )  # fmt: skip
    if task == "multi-label":
        expected = torch.sigmoid(logits[:, :3] - logits[:, 3:])
    else:
        expected = logits.softmax(dim=1)
    assert_allclose(found["test_scores"], expected.numpy(), rtol=1e-4, atol=1e-7)


@pytest.fixture
def images(tmp_path, write_npz):
    """What --data takes."""
    return f"npz:{write_npz(tmp_path / 'x.npz', counts=(4, 3, 5), side=32, classes=3)}"


@pytest.fixture
def words(tmp_path, images, models):
    """A command that makes texts."""
    prompts = {"0": ["zero", "nought"], "1": ["one"], "2": ["two"]}
    path = write_prompts(tmp_path / "p.json", prompts)
    model = f"local-dir:{models('at the root')[0]}"
    return ["--model", model, "--data", images, "--text", "--prompts", path]


def text_files(root: Path) -> list[Path]:
    """All but lock files, which are hidden."""
    found = root.glob("features/*/*_text_*")
    return sorted(path for path in found if not path.name.startswith("."))


def test_what_a_text_file_says_of_itself(tmp_path, words, models, capsys):
    assert run(capsys, *words, "--store", "float32")[0] == 0
    (path,) = text_files(tmp_path)
    text = open_features(path)
    assert (text.size, text.dataset, text.task) == (0, "x", "multi-class")
    assert (text.model, text.encoder) == ("local-dir:clip", "local-dir:clip")
    assert list(text.class_names) == ["0", "1", "2"]
    assert text.ids.tolist() == ["0/0", "0/1", "1/0", "2/0"]
    assert text.labels.tolist() == [0, 0, 1, 2]
    assert set(text.split) == {"train"}
    made_by = shlex.split(text.header.attributes["command"])
    assert made_by == ["extract", *words, "--store", "float32"]
    assert text.key["text"]["prompts"] == {"0": ["zero", "nought"], "1": ["one"], "2": ["two"]}
    assert text.key["text"]["tokens"].startswith("sha256:")
    assert text.key["layers"] == {"of": 3}
    assert text.key["arguments"] == {"text": TEXT, "embed_dim": EMBED, "quick_gelu": False}
    folder, whole = models("at the root")
    assert text.notes["logit_scale"] == pytest.approx(float(whole.logit_scale.detach().exp()))
    assert text.notes["weights"] == "open_clip_model.safetensors"
    tokens = open_clip.get_tokenizer(f"local-dir:{folder}")(["zero", "nought", "one", "two"])
    assert_close(torch.tensor(text.array(-1, "proj")), encode_text(whole, tokens))


def test_the_stored_command_makes_the_file_again(tmp_path, words, capsys):
    words = [*words[:5], "--template=-{} at the end", "--template", "my {}", "--weights", "random"]
    assert run(capsys, *words, "--seed", "3", "--precision", "bf16")[0] == 0
    (path,) = text_files(tmp_path)
    features = open_features(path)
    command, before = features.header.attributes["command"], features.array(-1, "proj").tobytes()
    del features
    path.unlink()
    assert run(capsys, *shlex.split(command)[1:])[0] == 0
    assert text_files(tmp_path) == [path]
    assert open_features(path).array(-1, "proj").tobytes() == before


def test_a_second_run_reads_no_weights(tmp_path, words, monkeypatch, capsys):
    assert run(capsys, *words)[0] == 0
    (path,) = text_files(tmp_path)
    before = path.stat()

    def refuse(*_):
        raise AssertionError("the weights were read")

    monkeypatch.setattr(extract.texts.run, "read_weights", refuse)
    status, out, err = run(capsys, *words)
    assert (status, err) == (0, "")
    assert "local-dir:clip on x, texts: complete already, every checksum right" in out
    assert (path.stat().st_mtime_ns, path.stat().st_ino) == (before.st_mtime_ns, before.st_ino)


def test_other_prompts_are_another_file(tmp_path, words, capsys):
    assert run(capsys, *words)[0] == 0
    assert run(capsys, *words[:5], "--template", "this is {}")[0] == 0
    assert run(capsys, *words[:5], "--template", "this is {}", "--template", "a {}")[0] == 0
    assert len(text_files(tmp_path)) == 3


def test_a_damaged_file_is_mended_or_made_anew(tmp_path, words, capsys):
    assert run(capsys, *words)[0] == 0
    (path,) = text_files(tmp_path)
    features = open_features(path)
    before, place = features.array(-1, "proj").tobytes(), features.header.arrays["proj"].offset
    with path.open("r+b") as file:
        file.seek(place)
        file.write(b"\x55\x55")
    assert run(capsys, *words)[0] == 0
    assert open_features(path).array(-1, "proj").tobytes() == before
    with path.open("r+b") as file:
        file.truncate(2000)
    assert run(capsys, *words)[0] == 1
    assert run(capsys, *words, "--overwrite")[0] == 0
    assert open_features(path).array(-1, "proj").tobytes() == before
    assert open_features(path).notes["logit_scale"] > 1


@pytest.mark.parametrize("n_before", [0, 1])
def test_a_killed_run_is_resumed(tmp_path, words, n_before, monkeypatch, capsys):
    many = [
        word for i in range(100) for word in ("--template", f"{i} of {{}}")
    ]  # 300 rows: 2 units
    assert run(capsys, *words[:5], *many, "--features", str(tmp_path / "whole"))[0] == 0
    (whole,) = (tmp_path / "whole").glob("*/*.h5")
    write_unit = FeatureWriter.write_unit

    def fail_later(self, unit, arrays):
        if unit >= n_before:
            raise OSError(5, "the disk is gone")
        write_unit(self, unit, arrays)

    monkeypatch.setattr(FeatureWriter, "write_unit", fail_later)
    status, _, err = run(capsys, *words[:5], *many)
    assert (status, "the disk is gone" in err) == (1, True)
    assert [path.suffix for path in text_files(tmp_path)] == [".partial"] * n_before
    monkeypatch.undo()
    assert run(capsys, *words[:5], *many, "--features", str(tmp_path / "features"))[0] == 0
    (path,) = text_files(tmp_path)
    a, b = open_features(path), open_features(whole)
    assert a.array(-1, "proj").tobytes() == b.array(-1, "proj").tobytes()
    assert a.notes == b.notes


def test_a_dry_run_writes_nothing(tmp_path, words, models, capsys):
    status, out, err = run(capsys, *words, "--dry-run")
    assert (status, err) == (0, "")
    weights = models("at the root")[0] / "open_clip_model.safetensors"
    assert out.splitlines() == [
        f"local-dir:clip = local-dir:clip · texts · weights: {weights}",
        "local-dir:clip on x: 4 prompts of 3 classes",
    ]
    assert not (tmp_path / "features").exists()


def test_a_dry_run_refuses_what_a_run_would(tmp_path, words, capsys):
    write_prompts(tmp_path / "p.json", {"0": ["zero"]})
    status, _, err = run(capsys, *words, "--dry-run")
    assert status == 1
    assert "lacks '1'; the classes are 0, 1, 2" in err
    assert err.count("\n") == 1
    status, _, err = run(capsys, *words[:5], "--weights", "none.pt", "--dry-run")
    assert "no weight file at none.pt" in err


@pytest.mark.parametrize(
    ("flags", "weights"),
    [
        ("--weights random --seed 2", "RANDOM (seed 2)"),
        ("", "download laion/CLIP-ViT-B-16-laion2B-s34B-b88K/open_clip_model.safetensors first"),
        (
            "--offline",
            "laion/CLIP-ViT-B-16-laion2B-s34B-b88K/open_clip_model.safetensors isn't here",
        ),
    ],
)
def test_a_dry_run_says_where_weights_come_from(flags, weights, monkeypatch, capsys):
    monkeypatch.setenv("HF_HUB_OFFLINE", "")  # --offline sets it; put back after the test
    monkeypatch.setattr("extract.encoders.weights.published.find", lambda place: None)
    words = ["--model", "openclip", "--data", "breastmnist", "--text", "--dry-run", *flags.split()]
    status, out, err = run(capsys, *words)
    assert (status, err) == (0, "")
    assert out.splitlines() == [
        f"openclip = open_clip:ViT-B-16/laion2b_s34b_b88k · texts · weights: {weights}".replace(
            "/laion2b_s34b_b88k", "" if "random" in flags else "/laion2b_s34b_b88k"
        ),
        "openclip on breastmnist: 2 prompts of 2 classes",
    ]


def test_official_sets_need_no_images(tmp_path, words, capsys):
    words = [*words[:2], "--text", "--data", "pathmnist,chestmnist,retinamnist,demo"]
    status, out, err = run(capsys, *words, "--data-root", str(tmp_path / "nowhere"))
    assert (status, err) == (0, "")
    assert "pathmnist: 9 prompts of 9 classes" in out
    assert "chestmnist: 28 prompts of 28 classes" in out
    chest = open_features(next(tmp_path.glob("features/chestmnist/*.h5")))
    assert chest.key["text"]["prompts"]["no hernia"] == ["a chest X-ray with no hernia."]
    assert chest.class_names[14] == f"no {chest.class_names[0]}"
    retina = open_features(next(tmp_path.glob("features/retinamnist/*.h5")))
    assert retina.key["text"]["prompts"]["4"][0].endswith("diabetic retinopathy grade 4.")


def test_numbers_as_names_are_asked_about(tmp_path, words, capsys):
    status, _, err = run(capsys, *words[:5])
    assert status == 1
    assert "the classes of x are numbers (0, 1, 2...), which say nothing to a text tower" in err
    assert err.count("\n") == 1
    assert run(capsys, *words[:5], "--template", "an image of grade {}")[0] == 0


def test_one_set_that_fails_does_not_stop_the_others(tmp_path, words, capsys):
    words = [*words[:2], "--text", "--data", f"npz:none.npz,breastmnistt,{words[3]},demo"]
    status, out, err = run(capsys, *words)
    assert status == 1
    assert "local-dir:clip on demo: 3 prompts of 3 classes" in out
    assert "no file at none.npz" in err
    assert "no data set 'breastmnistt'" in err
    assert "the classes of x are numbers" in err
    assert err.count("\n") == 3


def test_weights_that_do_not_fit_are_read_and_said_once(tmp_path, models, monkeypatch, capsys):
    folder, _ = models("at the root")
    tensors = read_tensors(folder)
    del tensors["ln_final.bias"]
    save_file(tensors, tmp_path / "w.safetensors")
    read = []

    def read_and_count(weights):
        assert weights.path
        read.append(weights.path)
        return read_weights(weights)

    monkeypatch.setattr(extract.texts.run, "read_weights", read_and_count)
    status, _, err = run(
        capsys, "--model", f"local-dir:{folder}", "--data", "demo,breastmnist", "--text",
        "--weights", str(tmp_path / "w.safetensors"),
    )  # fmt: skip
    assert status == 1
    assert "w.safetensors doesn't fit the text tower: 1 of 41 tensors are missing" in err
    assert err.count("\n") == 1
    assert read == [tmp_path / "w.safetensors"]
    assert not text_files(tmp_path)


def vectors_of(tmp_path, capsys, words, *more: str) -> Any:
    """The texts' vectors, and what their key says of the weights."""
    root = tmp_path / "-".join(more)
    assert run(capsys, *words, *more, "--features", str(root))[0] == 0
    (path,) = root.glob("*/*.h5")
    features = open_features(path)
    return features.array(-1, "proj").astype(np.float32), features.key["weights"]


def test_another_seed_makes_other_texts(tmp_path, words, capsys):
    found = []
    for seed in ("0", "7"):
        x, weights = vectors_of(tmp_path, capsys, words, "--weights", "random", "--seed", seed)
        assert weights.startswith(f"random, seed {seed}, sha256:")
        found.append(x)
    assert not np.array_equal(*found)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_other_precisions_are_close(tmp_path, words, precision, capsys):
    exact, rough = (
        vectors_of(tmp_path, capsys, words, "--precision", wish)[0] for wish in ("fp32", precision)
    )
    assert not np.array_equal(exact, rough)
    assert np.abs(exact - rough).max() < 0.05 * np.abs(exact).max()


@pytest.mark.parametrize("name", ["dinov2", "siglip2-b16", "clip", "medsiglip"])
def test_models_without_a_text_tower_name_those_that_have(name, capsys):
    status, _, err = run(capsys, "--model", name, "--data", "breastmnist", "--text")
    assert status == 1
    assert "has no text tower that medprobe can run; those of open_clip have: " in err
    for entry in ENTRIES:
        assert (f" {entry.name}," in err) == (entry.library == "open_clip"), entry.name
    assert err.count("\n") == 1


def test_siglip_compares_its_pooled_vector_as_it_is():
    d = describe("open_clip:ViT-B-16-SigLIP2/webli", None, "-1")
    assert d.arrays["proj"] == d.arrays["head"] == 768


def test_a_sigmoids_bias_is_noted(tmp_path, words, models, capsys):
    folder, whole = models("siglip's")
    assert run(capsys, "--model", f"local-dir:{folder}", *words[2:])[0] == 0
    (path,) = text_files(tmp_path)
    assert open_features(path).notes["logit_bias"] == pytest.approx(
        float(whole.logit_bias.detach())
    )


def test_random_weights_match_by_their_digest(tmp_path, words, images, capsys):
    random = [*words[:2], "--data", images, "--weights", "random", "--layers", "-1"]
    assert run(capsys, *random)[0] == 0
    assert run(capsys, *words, "--weights", "random", "--seed", "1")[0] == 0
    assert probe(["--kind", "zeroshot"]) == 1
    err = capsys.readouterr().err
    assert "no text features of local-dir:clip on x" in err
    command = shlex.split(err.strip().partition("make them with: ")[2])
    assert command[:5] == ["extract", "--text", "--model", words[1], "--data"]
    assert run(capsys, *command[1:], "--prompts", words[-1])[0] == 0
    assert probe(["--kind", "zeroshot"]) == 0
    (row,) = (json.loads(path.read_text()) for path in tmp_path.glob("results/x/*.json"))
    assert row["probe"]["text"]["logit_scale"] == pytest.approx(1 / 0.07)


def test_zeroshot_on_the_demo(tmp_path, words, capsys):
    pytest.importorskip("nilearn")
    words = [*words[:2], "--data", "demo"]
    assert run(capsys, *words, "--layers", "-1")[0] == 0
    assert run(capsys, *words, "--text")[0] == 0
    assert probe(["--kind", "zeroshot"]) == 0
    (row,) = (json.loads(path.read_text()) for path in tmp_path.glob("results/demo/*.json"))
    assert row["probe"]["text"]["n_prompts"] == 3
    assert 0 <= row["metrics"]["acc"]["value"] <= 1


IMAGE_FLAGS = [
    "--size 224", "--size native", "--source-size 64", "--layers last4", "--layer-norm none",
    "--protocol wu2025", "--resize pad", "--interpolation bilinear", "--no-antialias",
    "--resize-backend pil", "--mean 0.5", "--std 0.5", "--intensity min-max",
    "--channels first-filter", "--batch-size 4", "--shard 0/2",
]  # fmt: skip


@pytest.mark.parametrize("flags", IMAGE_FLAGS)
def test_what_is_about_images_is_refused_with_texts(flags, capsys):
    with pytest.raises(SystemExit) as end:
        main(["--model", "openclip", "--text", *flags.split()])
    err = capsys.readouterr().err
    assert end.value.code == 2
    assert f"{flags.split()[0]} is about images; " in err
    assert err.count("\n") == 1


def test_torchrun_is_refused_with_texts(monkeypatch, capsys):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(SystemExit):
        main(["--model", "openclip", "--text"])
    assert "run --text in one process, without torchrun" in capsys.readouterr().err
    names = extract.config.OF_TEXTS
    assert set(some(names)) <= {field.name for field in dataclasses.fields(ExtractConfig)}
    with pytest.raises(RequestError, match="--channels is about images"):
        ExtractConfig(("openclip",), text=True, channels="rgb")
