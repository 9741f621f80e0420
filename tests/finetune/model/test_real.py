"""A real ViT-S on real BreastMNIST: one step in each mode changes what it should, and learns."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from extract.encoders.encoder import describe, find_weights, load_encoder
from finetune.config import LoraConfig, ModelConfig, TrainConfig
from finetune.model.classifier import (
    Classifier,
    build_classifier,
    check_gradients,
    export_encoder,
    parameter_groups,
)

pytestmark = pytest.mark.real
SIZE = 28
DESCRIPTION = ("vit_small_patch14_dinov2", SIZE)
MODES = {
    "full": (ModelConfig(pool="cls"), ""),
    "head": (ModelConfig(mode="head", pool="cls"), None),
    "partial": (
        ModelConfig(mode="partial", freeze_until=9, pool="cls"),
        "blocks.9. blocks.10. blocks.11. norm.",
    ),
    "as Huix et al. freeze": (
        ModelConfig(mode="partial", freeze_until=11, freeze_norm=True, pool="cls"),
        "blocks.11.",
    ),
    "lora": (ModelConfig(mode="lora", lora=LoraConfig(8), pool="cls"), "lora_"),
    "bitfit": (ModelConfig(mode="bitfit", pool="cls"), "bias"),
    "cut": (ModelConfig(cut_after=5, pool="cls"), ""),
}


@pytest.fixture(scope="module")
def batch(real_data):
    """32 images as the ViT wants them, and their labels."""
    with np.load(real_data / "breastmnist.npz") as content:
        pixels, labels = content["train_images"][:32], content["train_labels"][:32, 0]
    images = torch.from_numpy(pixels).float().div(255).sub(0.45).div(0.225)
    return images[:, None].repeat(1, 3, 1, 1), torch.from_numpy(labels).long()


def build(config: ModelConfig, weights: Path) -> Classifier:
    description = describe(*DESCRIPTION)
    found = find_weights(description, str(weights), 0, download=False)
    return build_classifier(description, found, config, 2, 0, say=lambda line: None)[0]


@pytest.mark.parametrize("mode", MODES)
def test_a_mode_trains_what_it_says(mode, batch, real_weights):
    config, said = MODES[mode]
    classifier, (images, labels) = build(config, real_weights), batch
    before = {name: tensor.clone() for name, tensor in classifier.state_dict().items()}
    train = TrainConfig(head_lr=1e-4, weight_decay=0.0)
    optimiser = torch.optim.AdamW(parameter_groups(classifier, train, 1e-5))
    classifier.set_training()
    losses = []
    for step in range(5):
        optimiser.zero_grad()
        loss = nn.functional.cross_entropy(classifier(images), labels)
        loss.backward()
        if step == 0:
            check_gradients(classifier)
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0]
    after = classifier.state_dict()
    changed = {n.removeprefix("encoder.") for n in after if not torch.equal(before[n], after[n])}
    expected = {n.removeprefix("encoder.") for n in before if n.startswith("encoder.")}
    marks = () if said is None else tuple(said.split())
    if said is None:
        expected = set()
    elif mode in ("lora", "bitfit"):
        expected = {n for n in expected if marks[0] in n}
    elif marks:
        expected = {n for n in expected if n.startswith(marks)}
    assert changed == expected | {"head.weight", "head.bias"}


def test_a_tuned_encoder_goes_back_into_extract(batch, real_weights, tmp_path):
    classifier, (images, labels) = build(MODES["lora"][0], real_weights), batch
    optimiser = torch.optim.AdamW((p for p in classifier.parameters() if p.requires_grad), lr=1e-3)
    for _ in range(3):
        optimiser.zero_grad()
        nn.functional.cross_entropy(classifier(images), labels).backward()
        optimiser.step()
    save_file(export_encoder(classifier), tmp_path / "tuned.safetensors")
    description = describe(*DESCRIPTION)
    stored = []
    for path in (tmp_path / "tuned.safetensors", real_weights):
        weights = find_weights(description, str(path), 0, download=False)
        stored.append(load_encoder(description, weights)[0](images)["layers/11/cls"])
    with torch.no_grad():
        live = classifier.eval().reader(images)
    torch.testing.assert_close(live, stored[0], rtol=1e-4, atol=1e-4)
    assert not torch.allclose(live, stored[1], rtol=1e-2, atol=1e-2)
