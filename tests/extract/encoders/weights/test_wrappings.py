"""What training code puts around an encoder's names comes off by named rules, or nothing does."""

from functools import partial
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from cache import RequestError
from extract.encoders.encoder import Encoder, Weights, describe, load_encoder
from extract.encoders.weights.wrappings import unwrap

Tensors = dict[str, Tensor]


@pytest.fixture(scope="module")
def tensors():
    torch.manual_seed(7)
    return dict(timm.create_model("test_vit", num_classes=10).state_dict())


def load(tensors: Tensors, path: Path, name: str = "test_vit", part: str = "") -> Encoder:
    save_file({n: t.contiguous().clone() for n, t in tensors.items()}, path)
    return load_encoder(describe(name, None), Weights(path, part=part))[0]


def under(prefix: str, tensors: Tensors) -> Tensors:
    return {f"{prefix}{name}": tensor for name, tensor in tensors.items()}


def holds(encoder: Encoder, tensors: Tensors) -> bool:
    return all(torch.equal(t, tensors[n]) for n, t in encoder.model.state_dict().items())


def rule(*prefixes: str) -> list[str]:
    return [f"names mapped by the rule {f'strip {prefix!r}'!r}" for prefix in prefixes]


MODULE = "names mapped by the layout \"strip 'module.'\""


@pytest.mark.parametrize(
    ("prefix", "said"),
    [
        ("_orig_mod.", rule("_orig_mod.")),
        ("module._orig_mod.", [*rule("_orig_mod."), MODULE]),
        ("_orig_mod.module.", [*rule("_orig_mod."), MODULE]),
        ("_fsdp_wrapped_module.model.", [*rule("_fsdp_wrapped_module."), *rule("model.")]),
        ("model.", rule("model.")),
        ("backbone.", rule("backbone.")),
        ("encoder.", rule("encoder.")),
        ("net.", rule("net.")),
        ("base_model.model.", rule("base_model.model.")),
        ("module.backbone.", [*rule("module.backbone.")]),
        ("teacher.backbone.", [*rule("teacher.backbone.")]),
        ("model.encoder.", [*rule("model.encoder.")]),
    ],
)
def test_common_wrappings(tmp_path, tensors, prefix, said):
    encoder = load(under(prefix, tensors), tmp_path / "w.safetensors")
    assert holds(encoder, tensors)
    assert list(encoder.said) == [*said, "classifier dropped (head.bias, head.weight)"]


def test_wrappers_of_torch_s_own_stand_anywhere(tmp_path):
    """As torch writes them: compiled blocks, and blocks under activation checkpoints."""
    from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper

    model = timm.create_model("test_vit", num_classes=0)
    plain = dict(model.state_dict())
    model.blocks[0] = torch.compile(model.blocks[0])
    model.blocks[1].mlp = checkpoint_wrapper(model.blocks[1].mlp)
    file = dict(model.state_dict()) | {
        # checkpoint_wrapper takes its prefix off in state_dict(); FSDP's shards have it.
        f"blocks.1.mlp._checkpoint_wrapped_module.{name}": plain[f"blocks.1.mlp.{name}"]
        for name in ("fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias")
    }
    for name in ("fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias"):
        file.pop(f"blocks.1.mlp.{name}", None)
    assert any("._orig_mod." in name for name in file)
    encoder = load(file, tmp_path / "w.safetensors")
    assert holds(encoder, plain)
    assert list(encoder.said) == rule("_orig_mod.", "_checkpoint_wrapped_module.")


def test_what_lies_beside_is_named(tmp_path, tensors):
    beside = {"fc.weight": torch.ones(3, 64), "fc.bias": torch.ones(3), "loss.scale": torch.ones(1)}
    encoder = load(under("backbone.", tensors) | beside, tmp_path / "w.safetensors")
    assert holds(encoder, tensors)
    assert encoder.said[1] == "dropped: fc. (2 tensors), loss. (1 tensor)"


def test_blocks_in_chunks(tmp_path, tensors):
    chunked = {}
    for name, tensor in tensors.items():
        head, _, rest = name.partition("blocks.")
        number = rest.partition(".")[0]
        chunked[f"blocks.{int(number) // 3}.{rest}" if rest else head] = tensor
    assert "blocks.1.3.norm1.weight" in chunked
    encoder = load(chunked, tmp_path / "w.safetensors")
    assert holds(encoder, tensors)
    assert encoder.said[0] == "names mapped by the rule 'join chunks'"


def test_two_encoders_that_fit_are_not_guessed_between(tmp_path, tensors):
    other = {name: tensor + 1 for name, tensor in tensors.items()}
    both = under("model.", tensors) | under("teacher.", other)
    path = tmp_path / "w.safetensors"
    with pytest.raises(
        RequestError, match=r"holds 2 encoders that fit: model, teacher; .*--weights FILE:model$"
    ):
        load(both, path)
    assert holds(load(both, path, part="teacher"), other)
    assert holds(load(both, path, part="model"), tensors)


def test_an_averaged_copy_beside_is_named(tmp_path, tensors):
    both = under("model.", tensors) | under("ema_model.", tensors)
    encoder = load(both, tmp_path / "w.safetensors")
    assert encoder.said[1] == f"dropped: ema_model. ({len(tensors)} tensors)"


@pytest.mark.parametrize("prefix", ["model.", "module.backbone.", "_orig_mod."])
def test_a_rule_that_does_not_make_all_fit_does_nothing(tmp_path, tensors, prefix):
    path = tmp_path / "w.safetensors"
    short = {name: tensor for name, tensor in tensors.items() if name != "norm.weight"}
    with pytest.raises(RequestError, match=r"1 of 78 tensors are missing \(norm\.weight\)"):
        load(under(prefix, short), path)
    more = {**tensors, "blocks.6.norm1.weight": torch.ones(64)}
    with pytest.raises(RequestError, match=r"1 don't belong \(blocks\.6\.norm1\.weight\)"):
        load(under(prefix, more), path)
    adapted = {**tensors, "blocks.0.attn.qkv.lora_A.weight": torch.ones(4, 64)}
    with pytest.raises(RequestError, match=r"1 don't belong \(blocks\.0\.attn\.qkv\.lora_A"):
        load(under(prefix, adapted), path)


@pytest.mark.parametrize("prefix", ["my_tower.", "student.", "xmodel."])
def test_unknown_prefixes_are_refused_and_named(tmp_path, tensors, prefix):
    with pytest.raises(
        RequestError, match=rf"78 of 78 tensors are missing .*it holds {prefix} \(80 tensors\);"
    ):
        load(under(prefix, tensors), tmp_path / "w.safetensors")
    # What the message names can be given.
    path = tmp_path / "w.safetensors"
    assert holds(load(under(prefix, tensors), path, part=prefix[:-1]), tensors)


def test_another_architecture_in_a_wrapping_is_refused(tmp_path):
    file = under("model.", dict(timm.create_model("resnet10t").state_dict()))
    with pytest.raises(RequestError, match="doesn't fit VisionTransformer"):
        load(file, tmp_path / "w.safetensors")


def test_open_clip_and_transformers_take_wrapped_files_too(tmp_path):
    import open_clip
    import transformers

    from extract.encoders.libraries.transformers import MODEL_TYPES, VIT_PARTS, _fit
    from extract.encoders.weights.checkpoints import load_strictly

    vision = {"image_size": 32, "layers": 2, "width": 32, "head_width": 8, "patch_size": 8}
    text = {"context_length": 8, "vocab_size": 20, "width": 16, "heads": 2, "layers": 1}
    whole, tower = (open_clip.CLIP(16, vision, text) for _ in range(2))  # type: ignore
    said = load_strictly(
        tower.visual,
        under("_orig_mod.module.", dict(whole.state_dict())),
        source="w.pth",
        classifier=(),
        filter_fn=None,
        layout="open_clip",
    )
    assert said[:2] == [*rule("_orig_mod."), MODULE]
    assert torch.equal(tower.visual.ln_post.weight, whole.visual.ln_post.weight)

    config = transformers.ViTConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        image_size=32, patch_size=8,
    )  # fmt: skip
    kind = MODEL_TYPES["vit"]
    original = transformers.ViTModel(config, add_pooling_layer=False)
    original.save_pretrained(tmp_path / "vit")
    from safetensors.torch import load_file

    file = load_file(tmp_path / "vit" / "model.safetensors")
    assert all(name.startswith(VIT_PARTS) for name in file)
    fit = partial(_fit, transformers.ViTModel, config, kind, "w.pth")
    model, said = unwrap(under("model.", file), fit, "w.pth")
    assert said == rule("model.")
    for name, tensor in original.state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor), name
    whole_numbers = file | {"layernorm.weight": file["layernorm.weight"].long()}
    with pytest.raises(RequestError, match=r"layernorm\.weight is of int64 instead of float32"):
        unwrap(whole_numbers, fit, "w.pth")
    assert isinstance(model, nn.Module)
