"""Made-up files in the places and layouts in which encoders' weights are published.

``Shelf.keep`` puts them where a download would: into the cache of the hub's client, or torch.hub's.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.models import densenet, efficientnet, vgg
from torch import Tensor, nn

from extract.encoders.libraries import architectures
from extract.encoders.weights.published import ByHand, Hub, Local, Place, Url, url_path

Tensors = dict[str, Tensor]
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass(frozen=True)
class Shelf:
    """Caches of this test's own."""

    folder: Path

    def keep(self, place: Place, content: Any) -> Path:
        """Write a file of a place where its download would be."""
        path = self._path(place)
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".safetensors":
            save_file({name: t.contiguous().clone() for name, t in content.items()}, path)
        else:
            torch.save(content, path)
        return path

    def _path(self, place: Place) -> Path:
        if isinstance(place, Url):
            return url_path(place)
        if isinstance(place, ByHand | Local):
            return self.folder / Path(getattr(place, "file", "w.pt")).name
        assert isinstance(place, Hub)
        kept = self.folder / "hub" / f"models--{place.repository.replace('/', '--')}"
        (kept / "refs").mkdir(parents=True, exist_ok=True)
        (kept / "refs" / "main").write_text(COMMIT)
        return kept / "snapshots" / COMMIT / place.files[0]


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shelf:
    """Empty caches, and no network."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return Shelf(tmp_path)


@pytest.fixture
def small_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Networks whose size no argument sets, made small: their names and filters stay."""
    for name in ("vgg11", "vgg16", "vgg19"):
        kept = [v if v == "M" else 8 for v in vgg.cfgs[name]]
        kept[len(kept) - 2] = 512  # what the filter for torchvision's files counts on
        monkeypatch.setitem(vgg.cfgs, name, kept)
    make_densenet: Callable[..., Any] = densenet._create_densenet
    monkeypatch.setattr(
        densenet,
        "_create_densenet",
        lambda variant, growth_rate, block_config, pretrained, **kwargs: make_densenet(
            variant, 8, (2, 2, 2, 2), pretrained, **kwargs
        ),
    )
    make_efficientnet: Callable[..., Any] = efficientnet._gen_efficientnet
    monkeypatch.setattr(
        efficientnet,
        "_gen_efficientnet",
        lambda variant, channel_multiplier=1.0, depth_multiplier=1.0, **kwargs: make_efficientnet(
            variant, 0.2, 0.2, **kwargs
        ),
    )
    trunks = {name: (1, 1, 1) for name in architectures.ARCHITECTURES if "resnet" in name}
    for name, depths in trunks.items():
        monkeypatch.setitem(
            architectures.ARCHITECTURES,
            name,
            lambda size=None, depths=depths: architectures.ResNetTrunk(depths, (8, 8, 8)),
        )
    monkeypatch.setitem(
        architectures.ARCHITECTURES,
        "seem_focalnet_tiny",
        lambda size=None: architectures.SeemFocalNet(8, (1, 1, 1, 1)),
    )


def small_arguments(network: str) -> dict[str, Any]:
    """What makes a timm architecture small, and lets everything else about it be."""
    if network.startswith("samvit"):
        return {"depth": 2, "embed_dim": 32, "num_heads": 2, "global_attn_indexes": [1]}
    if network.startswith(("vit_", "deit", "eva02_", "beit")):
        return {"depth": 2, "embed_dim": 96, "num_heads": 2}
    if network.startswith(("resnet", "seresnet")):
        return {"layers": [1, 1, 1, 1], "channels": [8, 16, 24, 32]}
    if network.startswith("convnext"):
        return {"depths": [1, 1, 1, 1], "dims": [8, 16, 24, 32]}
    if network.startswith("swin"):
        return {"depths": [1, 1, 1, 1], "embed_dim": 32}
    return {"mlp_ratio": 1 / 64} if network.startswith("vgg") else {}


def trained(model: nn.Module, seed: int = 0) -> Any:
    """A model as if it had been trained: no tensor is left at what it began with."""
    generator = torch.Generator().manual_seed(seed)

    def noise(tensor: Tensor) -> Tensor:
        return torch.randn(tensor.shape, generator=generator)

    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if name.endswith("running_var"):
                tensor.copy_(1 + 0.3 * noise(tensor).tanh())
            elif tensor.is_floating_point():
                tensor.add_(0.05 * noise(tensor))
    return model.eval()


def classes_of(config: Any) -> int:
    """How many a published file has."""
    return config.num_classes or 0


def whole_timm(name: str, arguments: dict[str, Any]) -> Any:
    """A timm model as its weights are published: at its own size, with its classifier."""
    torch.manual_seed(0)
    config: Any = timm.get_pretrained_cfg(name)
    return trained(timm.create_model(name, num_classes=classes_of(config), **arguments))
