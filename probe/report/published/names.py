"""What papers call encoders, data sets and metrics, and what we call them.

Encoders by the full name that rows carry. What has no entry here can't stand beside a row of ours:
baharoon2023's subsets, say, whose images nobody has listed.
"""

from collections.abc import Mapping

_SHARED = {  # by wu2025 and doerrich2024
    "VGG16": "vgg16.tv_in1k",
    "ResNet-18": "resnet18.a1_in1k",
    "DenseNet-121": "densenet121.ra_in1k",
    "EfficientNet-B4": "efficientnet_b4.ra2_in1k",
    "ViT-B/16": "vit_base_patch16_224.augreg2_in21k_ft_in1k",
    "CLIP ViT-B/16": "vit_base_patch16_clip_224.laion2b_ft_in12k_in1k",
    "DINO ViT-B/16": "vit_base_patch16_224.dino",
    "SAM ViT-B/16": "samvit_base_patch16.sa1b",
}
ENCODERS: Mapping[str, Mapping[str, str]] = {
    "wu2025": _SHARED
    | {
        "EVA-02 ViT-B/14": "eva02_base_patch14_224.mim_in22k",
        "OpenAI ViT-B/16": "vit_base_patch16_clip_quickgelu_224.openai",
        "SAM-C ViT-B/16": "vit_base_patch16_224.sam_in1k",
        "DINOv2 ViT-B/14": "vit_base_patch14_dinov2.lvd142m",
    },
    "doerrich2024": _SHARED | {"EVA-02 ViT-B/16": "eva02_base_patch16_clip_224.merged2b"},
    "zhang2024": {
        "BiomedGPT": "biomedgpt_resnet101.base",
        "BiomedCLIP": "hf-hub:microsoft/BiomedCLIP-PubMedBERT_256-vit_base_patch16_224",
        "MedSAM": "samvit_base_patch16.medsam",
    },
    "huix2024": {
        "DINOv1": "vit_base_patch16_224.dino",
        "ImNet-1k-Sup": "deit_base_patch16_224.fb_in1k",
        "ResNet152": "resnet152.tv_in1k",
        "SAM": "samvit_base_patch16.sa1b",
        "SEEM": "seem_focalnet_tiny.v0",
        "BLIP": "vit_base_patch16_224.blip",
        "OPENCLIP": "open_clip:ViT-B-16/laion2b_s34b_b88k",
        "DINOv2": "vit_base_patch14_dinov2.lvd142m",
        "DINOv2 small": "vit_small_patch14_dinov2.lvd142m",
        "DINOv2 large": "vit_large_patch14_dinov2.lvd142m",
        "DINOv2 giant": "vit_giant_patch14_dinov2.lvd142m",
    },
    "baharoon2023": {
        "DenseNet201": "densenet201.tv_in1k",
        "ResNet152": "resnet152.tv2_in1k",
        "VGG19": "vgg19.tv_in1k",
        "Supervised ViT-L/16": "transformers:google/vit-large-patch16-224",
        "MAE ViT-L/16": "vit_large_patch16_224.mae",
        "MSN ViT-L/16": "vit_large_patch16_224.msn",
        "CLIP ViT-L/14": "vit_large_patch14_clip_quickgelu_224.openai",
        "OpenCLIP ViT-H/14": "vit_huge_patch14_clip_224.laion2b",
        "SAM ViT-L/16": "samvit_large_patch16.sa1b",
        "DINOv2 ViT-S/14": "vit_small_patch14_dinov2.lvd142m",
        "DINOv2 ViT-B/14": "vit_base_patch14_dinov2.lvd142m",
        "DINOv2 ViT-L/14": "vit_large_patch14_dinov2.lvd142m",
        "DINOv2 ViT-g/14": "vit_giant_patch14_dinov2.lvd142m",
    },
}
SHORT_NAMES: Mapping[str, str] = {  # of encoders above, as commands take them
    "biomedgpt_resnet101.base": "biomedgpt",
    "deit_base_patch16_224.fb_in1k": "deit",
    "densenet121.ra_in1k": "densenet121",
    "densenet201.tv_in1k": "densenet201",
    "efficientnet_b4.ra2_in1k": "efficientnet-b4",
    "eva02_base_patch14_224.mim_in22k": "eva02",
    "eva02_base_patch16_clip_224.merged2b": "eva02-clip",
    "hf-hub:microsoft/BiomedCLIP-PubMedBERT_256-vit_base_patch16_224": "biomedclip",
    "open_clip:ViT-B-16/laion2b_s34b_b88k": "openclip",
    "resnet152.tv2_in1k": "resnet152-v2",
    "resnet152.tv_in1k": "resnet152",
    "resnet18.a1_in1k": "resnet18",
    "samvit_base_patch16.medsam": "medsam",
    "samvit_base_patch16.sa1b": "sam",
    "samvit_large_patch16.sa1b": "sam-l",
    "seem_focalnet_tiny.v0": "seem",
    "transformers:google/vit-large-patch16-224": "vit-l",
    "vgg16.tv_in1k": "vgg16",
    "vgg19.tv_in1k": "vgg19",
    "vit_base_patch14_dinov2.lvd142m": "dinov2",
    "vit_base_patch16_224.augreg2_in21k_ft_in1k": "vit",
    "vit_base_patch16_224.blip": "blip",
    "vit_base_patch16_224.dino": "dino",
    "vit_base_patch16_224.sam_in1k": "sam-c",
    "vit_base_patch16_clip_224.laion2b_ft_in12k_in1k": "clip",
    "vit_base_patch16_clip_quickgelu_224.openai": "openai",
    "vit_giant_patch14_dinov2.lvd142m": "dinov2-g",
    "vit_huge_patch14_clip_224.laion2b": "openclip-h14",
    "vit_large_patch14_clip_quickgelu_224.openai": "clip-l14",
    "vit_large_patch14_dinov2.lvd142m": "dinov2-l",
    "vit_large_patch16_224.mae": "mae-l",
    "vit_large_patch16_224.msn": "msn-l",
    "vit_small_patch14_dinov2.lvd142m": "dinov2-s",
}
DATASETS: Mapping[str, Mapping[str, str]] = {  # MedMNIST's are called alike everywhere
    "huix2024": {
        "aptos2019": "aptos2019",
        "chexpert": "chexpert-huix2024",
        "ddsm": "ddsm-huix2024",
        "isic2019": "isic2019",
    },
    "baharoon2023": {
        "nih_chestxray": "chestxray14-baharoon2023",
        "chexpert": "chexpert-baharoon2023-ap",
        "braintumor": "brain-tumor",
        "sarscov2ct": "sars-cov-2-ct",
    },
}
METRICS: Mapping[str, str] = {
    "ACC": "acc",
    "AUC": "auc",
    "AUROC": "auc",
    "quadratic_kappa": "kappa",
    "recall": "balanced_accuracy",
}


def encoder_of(paper: str, printed: str) -> str | None:
    """Our full name of an encoder; None: none of ours has its weights."""
    return ENCODERS[paper].get(printed)


def dataset_of(paper: str, printed: str) -> str | None:
    """Our name of a data set; None: we have none that is split so."""
    return DATASETS.get(paper, {}).get(printed, None if paper in DATASETS else printed)
