"""Encoders of medical images, of today."""

from dataclasses import replace

from extract.encoders.anatomy import Statistics
from extract.encoders.table.entry import (
    BASE,
    CLIP,
    CONTRASTIVE,
    DINOV2,
    HALF,
    IMAGENET,
    LARGE,
    NONE,
    VIT_L,
    Entry,
    Pretraining,
)
from extract.encoders.weights.published import Hub

CLIP_B32 = {
    **BASE,
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

MEDICAL = (
    Entry(
        "rad-dino",
        "transformers:microsoft/rad-dino",
        "RAD-DINO B/14, chest X-rays",
        pretraining=Pretraining(
            "mit",
            DINOV2,
            "882 775 chest X-rays of five public sets",
            ("NIH ChestX-ray14", "CheXpert", "MIMIC-CXR"),
        ),
        library="transformers",
        config={
            "model_type": "dinov2",
            **BASE,
            "image_size": 518,
            "patch_size": 14,
            "mlp_ratio": 4,
            "layer_norm_eps": 1e-6,
        },
        statistics=Statistics((0.5307,) * 3, (0.2583,) * 3),
        weights=Hub("microsoft/rad-dino"),
    ),
    Entry(
        "medsiglip",
        "transformers:google/medsiglip-448",
        "MedSigLIP So400m/14",
        pretraining=Pretraining(
            "health-ai-developer-foundations",
            "image-text sigmoid",
            "medical image-text pairs and 2 % of WebLI, partly undisclosed",
        ),
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
        pretraining=Pretraining(
            "cc-by-nc-4.0",
            "masked autoencoding, from ImageNet's MAE",
            "904 170 fundus photographs (MEH-MIDAS, EyePACS)",
            NONE,
        ),
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
        pretraining=Pretraining(
            "non-commercial", CONTRASTIVE, "OpenPath, 208 414 pairs, from OpenAI's CLIP"
        ),
        library="transformers",
        config={"model_type": "clip_vision_model", **CLIP_B32},
        statistics=CLIP,
        weights=Hub("vinid/plip"),
    ),
    Entry(
        "pubmedclip",
        "transformers:flaviagiammarino/pubmed-clip-vit-base-patch32",
        "PubMedCLIP B/32",
        pretraining=Pretraining(
            "mit", CONTRASTIVE, "ROCO, 80 k radiology figures, from OpenAI's CLIP"
        ),
        library="transformers",
        config={"model_type": "clip_vision_model", **CLIP_B32},
        statistics=CLIP,
        weights=Hub("flaviagiammarino/pubmed-clip-vit-base-patch32"),
    ),
    Entry(
        "monet",
        "transformers:suinleelab/monet",
        "MONET L/14, dermatology",
        pretraining=Pretraining(
            "", CONTRASTIVE, "105 k pairs of PubMed and textbooks, from OpenAI's CLIP"
        ),
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
        pretraining=Pretraining(
            "cc-by-nc-nd-4.0", DINOV2, "Mass-100K, 100 M tiles of 100 k slides", NONE
        ),
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
        pretraining=Pretraining("cc-by-nc-nd-4.0", DINOV2, "200 M tiles of 350 k slides", NONE),
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
        pretraining=Pretraining("apache-2.0", DINOV2, "1.5 M slides of MSKCC", NONE),
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
        pretraining=Pretraining(
            "cc-by-nc-nd-4.0", DINOV2, "3.1 M slides of MSKCC and others", NONE
        ),
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
        pretraining=Pretraining("apache-2.0", DINOV2, "500 k slides", NONE),
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
        pretraining=Pretraining("cc-by-nc-nd-4.0", DINOV2, "1 M slides", NONE),
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
        pretraining=Pretraining(
            "apache-2.0 with conditions", DINOV2, "1.38 G tiles of 171 189 slides", NONE
        ),
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
        pretraining=Pretraining("owkin non-commercial", "iBOT", "40 M tiles of TCGA", NONE),
        library="transformers",
        config={
            "model_type": "vit",
            **BASE,
            "image_size": 224,
            "patch_size": 16,
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
        pretraining=Pretraining(
            "owkin non-commercial", DINOV2, "PANCAN-XL, 450 M tiles of 60 k slides", NONE
        ),
        library="transformers",
        config={
            "model_type": "dinov2",
            **LARGE,
            "image_size": 224,
            "patch_size": 16,
            "mlp_ratio": 4,
            "layer_norm_eps": 1e-6,
        },
        statistics=IMAGENET,
        weights=Hub("owkin/phikon-v2"),
    ),
)
