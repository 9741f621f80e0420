"""The encoders of four papers, with those that the papers quote."""

from dataclasses import replace

from extract.encoders.anatomy import Statistics
from extract.encoders.table.entry import (
    CLIP,
    CONTRASTIVE,
    DINOV2_LVD,
    EVA_MIM,
    HALF,
    IMAGENET,
    IN1K,
    IN21K,
    NONE,
    SUPERVISED,
    SUPERVISED_1K,
    VIT_L,
    Entry,
    Pretraining,
)
from extract.encoders.weights.published import OPEN_CLIP, ByHand, Hub, Url

SEGMENTATION = "promptable segmentation"
LAION2B = "LAION-2B, 2.3 G web pairs"
TORCHVISION = SUPERVISED_1K._replace(licence="bsd-3-clause")
SUPERVISED_21K = Pretraining("apache-2.0", SUPERVISED, f"{IN21K}, then {IN1K}", NONE)
OPENAI = Pretraining("mit", CONTRASTIVE, "WebImageText, 400 M web pairs, undisclosed")
LAION = Pretraining("mit", CONTRASTIVE, LAION2B)
SAM = Pretraining("apache-2.0", SEGMENTATION, "SA-1B, 11 M images", NONE)
WU, DOERRICH, HUIX, BAHAROON = "wu2025", "doerrich2024", "huix2024", "baharoon2023"
BLIP = "https://storage.googleapis.com/sfr-vision-language-research/BLIP/models"
# MedSAM has no mean and std: each image is stretched to 0..1 (MedSAM_Inference.py).
STRETCHED = Statistics((0.0, 0.0, 0.0), (1.0, 1.0, 1.0), "bicubic", "min-max")

PAPERS = (
    # ------------------------------------------------------------------ the twelve of Wu & Papiez 2025
    Entry(
        "eva02",
        "eva02_base_patch14_224.mim_in22k",
        "EVA-02 B/14",
        papers=(WU,),
        pretraining=Pretraining("mit", EVA_MIM, IN21K, NONE),
    ),
    Entry(
        "dinov2", "vit_base_patch14_dinov2.lvd142m", "DINOv2 B/14", DINOV2_LVD, (WU, HUIX, BAHAROON)
    ),
    Entry(
        "dino",
        "vit_base_patch16_224.dino",
        "DINO B/16",
        papers=(WU, DOERRICH, HUIX),
        pretraining=Pretraining("apache-2.0", "self-distillation", IN1K, NONE),
    ),
    Entry(
        "vit",
        "vit_base_patch16_224.augreg2_in21k_ft_in1k",
        "ViT B/16",
        SUPERVISED_21K,
        (WU, DOERRICH),
    ),
    Entry(
        "clip",
        "vit_base_patch16_clip_224.laion2b_ft_in12k_in1k",
        "CLIP B/16 of LAION-2B, fine-tuned on ImageNet",
        papers=(WU, DOERRICH),
        pretraining=Pretraining(
            "apache-2.0", f"{CONTRASTIVE}, then supervised", f"{LAION2B}, then ImageNet-12k, {IN1K}"
        ),
    ),
    # The name without "quickgelu" loads the same weights under another activation, which changes
    # every feature (timm #2031); the paper used that one.
    Entry(
        "openai",
        "vit_base_patch16_clip_quickgelu_224.openai",
        "OpenAI's CLIP B/16",
        papers=(WU,),
        pretraining=OPENAI,
        weights=Hub("timm/vit_base_patch16_clip_224.openai"),
    ),
    Entry("sam", "samvit_base_patch16.sa1b", "Segment Anything B/16", SAM, (WU, DOERRICH, HUIX)),
    # SAM in its name is Sharpness-Aware Minimisation, an optimiser; not Segment Anything.
    Entry(
        "sam-c",
        "vit_base_patch16_224.sam_in1k",
        "ViT B/16, Sharpness-Aware Minimisation",
        SUPERVISED_1K,
        (WU,),
    ),
    Entry("vgg16", "vgg16.tv_in1k", "VGG-16", TORCHVISION, (WU, DOERRICH)),
    Entry("densenet121", "densenet121.ra_in1k", "DenseNet-121", SUPERVISED_1K, (WU, DOERRICH)),
    Entry("resnet18", "resnet18.a1_in1k", "ResNet-18", SUPERVISED_1K, (WU, DOERRICH)),
    Entry(
        "efficientnet-b4",
        "efficientnet_b4.ra2_in1k",
        "EfficientNet-B4",
        SUPERVISED_1K,
        (WU, DOERRICH),
    ),
    # ------------------------------------------------------------------ medical, quoted by Wu & Papiez 2025
    # The file that its README names. The hub's wanglab/medsam-vit-base is older: its image encoder is
    # still the one of Segment Anything. LiTS, HAM10000 and BUSI may be among its training sets.
    Entry(
        "medsam",
        "samvit_base_patch16.medsam",
        "MedSAM B/16",
        papers=(WU,),
        pretraining=Pretraining("apache-2.0", SEGMENTATION, "1.57 M medical image-mask pairs"),
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
        papers=(WU, BAHAROON),
        pretraining=Pretraining("mit", CONTRASTIVE, "PMC-15M, 15 M figure-caption pairs"),
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
        pretraining=Pretraining(
            "research only", "generative, of many tasks", "14 medical sets, and texts"
        ),
        # CheXpert, ISIC 2020, DeepLesion...; but MedICaT's figures and CytoImageNet's microscopy were
        # gathered from elsewhere, as ROCO's and PMC-15M's were.
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
        pretraining=Pretraining("afl-3.0", SEGMENTATION, "COCO 2017, after image-text pairs"),
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
        pretraining=Pretraining(
            "bsd-3-clause", "contrastive, matching and captioning", "129 M web pairs"
        ),
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
        pretraining=LAION,
        library="open_clip",
        network="ViT-B-16/laion2b_s34b_b88k",
        weights=Hub("laion/CLIP-ViT-B-16-laion2B-s34B-b88K", OPEN_CLIP),
    ),
    Entry("deit", "deit_base_patch16_224.fb_in1k", "DeiT B/16", SUPERVISED_1K, (HUIX,)),
    Entry(
        "resnet152",
        "resnet152.tv_in1k",
        "ResNet-152, torchvision's first weights",
        TORCHVISION,
        (HUIX,),
    ),
    # ------------------------------------------------------------------ Baharoon et al. 2023
    Entry(
        "resnet152-v2",
        "resnet152.tv2_in1k",
        "ResNet-152, torchvision's second weights",
        TORCHVISION,
        (BAHAROON,),
    ),
    Entry("densenet201", "densenet201.tv_in1k", "DenseNet-201", TORCHVISION, (BAHAROON,)),
    Entry("vgg19", "vgg19.tv_in1k", "VGG-19", TORCHVISION, (BAHAROON,)),
    # timm has no tag for these very weights; its ViT has another epsilon (1e-6).
    Entry(
        "vit-l",
        "transformers:google/vit-large-patch16-224",
        "ViT L/16",
        papers=(BAHAROON,),
        pretraining=SUPERVISED_21K,
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
        pretraining=Pretraining("cc-by-nc-4.0", "masked autoencoding", IN1K, NONE),
    ),
    # Facebook's own vitl16_600ep.pth.tar is read too: --weights FILE.
    Entry(
        "msn-l",
        "vit_large_patch16_224.msn",
        "MSN L/16",
        papers=(BAHAROON,),
        pretraining=Pretraining("cc-by-nc-4.0", "masked siamese networks", IN1K, NONE),
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
        pretraining=OPENAI,
        weights=Hub("timm/vit_large_patch14_clip_224.openai"),
    ),
    Entry("openclip-h14", "vit_huge_patch14_clip_224.laion2b", "OpenCLIP H/14", LAION, (BAHAROON,)),
    Entry("sam-l", "samvit_large_patch16.sa1b", "Segment Anything L/16", SAM, (BAHAROON,)),
    Entry("dinov2-s", "vit_small_patch14_dinov2.lvd142m", "DINOv2 S/14", DINOV2_LVD, (BAHAROON,)),
    Entry("dinov2-l", "vit_large_patch14_dinov2.lvd142m", "DINOv2 L/14", DINOV2_LVD, (BAHAROON,)),
    Entry("dinov2-g", "vit_giant_patch14_dinov2.lvd142m", "DINOv2 g/14", DINOV2_LVD, (BAHAROON,)),
    # ------------------------------------------------------------------ Doerrich et al. 2024
    Entry(
        "eva02-clip",
        "eva02_base_patch16_clip_224.merged2b",
        "EVA-02 CLIP B/16",
        papers=(DOERRICH,),
        pretraining=Pretraining("mit", CONTRASTIVE, "Merged-2B, 2 G web pairs"),
    ),
)
