"""What is known to be wrong with published numbers, or unknown: the footnotes under them.

Found in the papers' released code, unless a note says otherwise. A number stays as it was printed.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Note:
    """A footnote, and the numbers that it is under."""

    paper: str
    text: str
    # Fields of ``numbers.Number`` -> values, one of which they have; none named: every number.
    where: Mapping[str, Collection[Any]] = field(default_factory=dict)


_CNNS = ("ResNet-18", "DenseNet-121", "EfficientNet-B4")
_CHEST_ACC = (
    "accuracy is the mean over 14 labels at a threshold of 0.5, which an empty answer reaches with "
    "about 94.7 %"
)

NOTES = (
    Note(
        "wu2025",
        "the encoder stayed in training mode: BatchNorm used each batch's statistics, which cached "
        "features can't repeat",
        {"mode": ("linear",), "model": _CNNS},
    ),
    Note(
        "wu2025",
        "the encoder stayed in training mode: dropout was on, which cached features can't repeat",
        {"mode": ("linear",), "model": ("VGG16",)},
    ),
    Note(
        "wu2025",
        "unknown whether at 224 pixels, as its script has it, or at 1024, as a comment does",
        {"model": ("SAM ViT-B/16",)},
    ),
    Note("wu2025", "images were enlarged to 518 pixels", {"model": ("DINOv2 ViT-B/14",)}),
    Note(
        "wu2025",
        "OpenAI's weights ran with GELU, where they were trained with QuickGELU",
        {"model": ("OpenAI ViT-B/16",)},
    ),
    Note("wu2025", "at 224 pixels, made for 320", {"model": ("EfficientNet-B4",), "size": (224,)}),
    Note(
        "wu2025",
        "the encoder's learning rates, and which of them won, are unknown",
        {"mode": ("finetune",), "quoting": ("",)},
    ),
    Note("wu2025", "the code that pads isn't released", {"resize": ("pad",)}),
    Note(
        "wu2025",
        "sizes aren't printed in the table; 28, 64 and 128 are inferred from a figure's labels",
        {"table": ("results_sizes_pad", "results_sizes_scale")},
    ),
    Note(
        "wu2025",
        "the share of the largest class, 1341 of 2005: the probe learnt nothing",
        {"printed": ("66.88",), "dataset": ("dermamnist",), "metric": ("ACC",)},
    ),
    Note(
        "wu2025",
        _CHEST_ACC,
        {"dataset": ("chestmnist",), "metric": ("ACC",), "quoting": ("",)},
    ),
    Note(
        "wu2025",
        "printed under ChestMNIST; the quoted paper has no ChestMNIST, so likely PneumoniaMNIST",
        {"quoting": ("zhang2024",), "dataset": ("chestmnist",)},
    ),
    Note(
        "doerrich2024",
        "11 nearest by Euclidean distance of raw features, one vote each, the smallest label of "
        "those that tie; one run",
        {"mode": ("knn",)},
    ),
    Note(
        "doerrich2024",
        "the encoder stayed in training mode: BatchNorm used each batch's statistics, which cached "
        "features can't repeat",
        {"mode": ("linear",), "model": _CNNS},
    ),
    Note(
        "doerrich2024",
        "the encoder stayed in training mode: dropout was on, which cached features can't repeat",
        {"mode": ("linear",), "model": ("VGG16", "AlexNet")},
    ),
    Note("doerrich2024", "padded to 224 with 0 after normalising", {"resize": ("pad",)}),
    Note(
        "doerrich2024",
        "standard deviations were read from pictures; unlike means, nothing checks them",
        {"mode": ("linear", "finetune")},
    ),
    Note(
        "doerrich2024",
        "at 224 pixels (made for 1024), the neck's 256 numbers pooled",
        {"model": ("SAM ViT-B/16",)},
    ),
    Note("doerrich2024", _CHEST_ACC, {"dataset": ("chestmnist",), "metric": ("ACC",)}),
    Note(
        "huix2024",
        "the feature is the first patch's token in the place of CLS, and weights of the momentum "
        "encoder may have replaced the encoder's",
        {"model": ("BLIP",)},
    ),
    Note(
        "huix2024",
        "one gray channel, seen by the first layer's filters of red alone",
        {"dataset": ("chexpert", "ddsm")},
    ),
    Note("huix2024", "the projected output of 512 numbers", {"model": ("OPENCLIP",)}),
    Note("huix2024", "the mean of the last block's tokens, without the neck", {"model": ("SAM",)}),
    Note("huix2024", "a label without positives counts 0.5", {"dataset": ("chexpert",)}),
    Note(
        "huix2024",
        "8 classes in the code, 9 in the text",
        {"dataset": ("isic2019",)},
    ),
    Note(
        "huix2024",
        "validation left out up to 63 images; the four learning rates, and how standard deviations "
        "were divided, are unknown",
        {"table": ("table1", "table2")},
    ),
    Note(
        "huix2024",
        "the head is inferred: gains in brackets fit table 2's DeiT-B, not its linear head",
        {"table": ("table3",), "model": ("BLIP",)},
    ),
    Note(
        "huix2024",
        "its bracket prints a gain of 0.2 points, where 0.9 follows from table 2",
        {"table": ("table3",), "model": ("SEEM",), "dataset": ("ddsm",)},
    ),
    Note(
        "baharoon2023",
        "the best checkpoint was chosen on test",
        {"mode": ("linear", "finetune", "lora", "bitfit")},
    ),
    Note(
        "baharoon2023",
        "the best of five k was chosen on test; each training image is its own neighbour in the "
        "counts, and train holds val",
        {"mode": ("knn",)},
    ),
    Note(
        "baharoon2023",
        "the mean over 15 labels, No Finding among them; the text says 14",
        {"dataset": ("nih_chestxray", "nih_chestxray_subset")},
    ),
    Note(
        "baharoon2023",
        "the mean over 6 labels, Uncertain among them; the text says 5, and its numbers of images "
        "fit no state of the code",
        {"dataset": ("chexpert", "chexpert_subset")},
    ),
    Note(
        "baharoon2023",
        "features of before the last LayerNorm, unlike DINOv2's",
        {
            "model": (
                "Supervised ViT-L/16",
                "MAE ViT-L/16",
                "MSN ViT-L/16",
                "CLIP ViT-L/14",
                "OpenCLIP ViT-H/14",
            )
        },
    ),
    Note(
        "baharoon2023",
        "nobody has listed which images the subset is of",
        {"dataset": ("nih_chestxray_subset", "chexpert_subset")},
    ),
    Note(
        "baharoon2023",
        "as released adapters get no gradient; 0.7 % of parameters are of rank 32, the code says 48",
        {"mode": ("lora",)},
    ),
    Note("baharoon2023", "as released biases get no gradient", {"mode": ("bitfit",)}),
    Note(
        "baharoon2023",
        "the mean of Dice and Jaccard, without background",
        {"metric": ("mean(dice,jaccard)",)},
    ),
    Note(
        "baharoon2023",
        "the notebook says .752, table 3 .751",
        {"model": ("Supervised ViT-L/16",), "printed": ("0.752", "0.751")},
    ),
)
