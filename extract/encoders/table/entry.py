"""One encoder of the table, and the words that several entries share."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from extract.encoders.anatomy import Statistics
from extract.encoders.weights.published import Place

ENTRY_POINTS = "medprobe.encoders"  # the group under which packages offer encoders
LIBRARIES = ("timm", "open_clip", "transformers", "user")

IMAGENET = Statistics((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALF = Statistics((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
CLIP = Statistics((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))


class Pretraining(NamedTuple):
    """What is known of how weights came about."""

    licence: str = ""  # of the weights; "" where the library says it
    objective: str = ""
    images: str = ""  # and how many
    # Known data sets that it saw; () if its closed list has none of them, None if nobody outside
    # can tell. Names as in ``Recipe.origins``.
    seen: tuple[str, ...] | None = None


UNKNOWN = Pretraining()


@dataclass(frozen=True)
class Entry:
    """One encoder: how it is built, where its weights are, and what is known of them."""

    name: str  # what a user types, and what rows are called
    encoder: str  # full name, which rows carry: "architecture.tag", "open_clip:MODEL/TAG", ...
    title: str = ""
    pretraining: Pretraining = UNKNOWN
    papers: tuple[str, ...] = ()  # that use it

    library: str = "timm"  # one of LIBRARIES
    network: str = ""  # the architecture's name in the library, where ``encoder`` isn't that
    arguments: Mapping[str, Any] = field(default_factory=dict)  # of the architecture
    config: Mapping[str, Any] = field(default_factory=dict)  # transformers, open_clip: as published
    size: int | None = None  # its own, pixels, where the library doesn't know it
    statistics: Statistics | None = None  # where the library doesn't know them, or is wrong
    weights: Place | None = None  # where the library doesn't know it
    layout: str | None = None  # how the published file names its tensors: tensor_names.LAYOUTS

    @property
    def packages(self) -> tuple[str, ...]:
        """Packages it needs that medprobe doesn't bring by itself."""
        return ("transformers",) if self.library == "transformers" else ()


# Objectives, sets of images and whole pretrainings that several entries share.
SUPERVISED = "supervised classification"
CONTRASTIVE = "image-text contrastive"
EVA_MIM = "masked image modelling of EVA-CLIP features"
DINOV2 = "self-distillation (DINO + iBOT)"
IN1K = "ImageNet-1k, 1.28 M images"
IN21K = "ImageNet-21k, 14 M images"
LVD142M = "LVD-142M, 142 M images"
NONE: tuple[str, ...] = ()  # a closed list of training sets without any of the known ones
SUPERVISED_1K = Pretraining("apache-2.0", SUPERVISED, IN1K, NONE)
DINOV2_LVD = Pretraining("apache-2.0", DINOV2, LVD142M, NONE)

# Of transformers' configurations.
BASE = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12}
LARGE = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16}
VIT_L = {**LARGE, "intermediate_size": 4096, "image_size": 224, "patch_size": 16}
