"""Where data sets' images come from, and whether an encoder's pretraining saw them.

MedMNIST's sets are made of older ones (Yang et al. 2023, https://doi.org/10.1038/s41597-022-01721-8,
table 2), so an encoder that was trained on NIH's chest X-rays has seen ChestMNIST. So is ISIC 2019.
"""

from extract.datasets.recipes import RECIPES

ORIGINS: dict[str, tuple[str, ...]] = {
    "pathmnist": ("NCT-CRC-HE-100K", "CRC-VAL-HE-7K"),
    "chestmnist": ("NIH ChestX-ray14",),
    "dermamnist": ("HAM10000",),
    "octmnist": ("Kermany 2018 OCT",),
    "pneumoniamnist": ("Kermany 2018 chest X-rays",),
    "retinamnist": ("DeepDRiD",),
    "breastmnist": ("BUSI",),
    "bloodmnist": ("Acevedo 2020 blood cells",),
    "tissuemnist": ("BBBC051",),
    "organamnist": ("LiTS",),
    "organcmnist": ("LiTS",),
    "organsmnist": ("LiTS",),
    "organmnist3d": ("LiTS",),
    "nodulemnist3d": ("LIDC-IDRI",),
    "adrenalmnist3d": ("Zhongshan adrenal CT",),
    "fracturemnist3d": ("RibFrac",),
    "vesselmnist3d": ("IntrA",),
    "synapsemnist3d": ("MitoEM",),
    **dict.fromkeys(("demo", "demo-masks"), ("MNI152",)),
    **{recipe.name: recipe.origins for recipe in RECIPES},
}


def describe_seen(seen: tuple[str, ...] | None, dataset: str) -> str:
    """Whether pretraining saw a data set's images.

    Args:
        seen: the known sets that pretraining saw; None where nobody outside can tell.
        dataset: its name.

    Returns:
        "yes: WHAT", "no" or "unknown".
    """
    origins = ORIGINS.get(dataset)
    if seen is None or origins is None:
        return "unknown"
    common = [origin for origin in origins if origin in seen]
    return f"yes: {', '.join(common)}" if common else "no"
