"""The papers' data sets, laid out as their owners publish them.

A set under its plain name is read as its owner means it; ``NAME-PAPER`` is the same set with the
labels, views and split of that paper's released code, where those differ.
"""

from cache import RequestError
from extract.datasets.recipes.aptos2019 import APTOS2019
from extract.datasets.recipes.brain_tumor import BRAIN_TUMOR
from extract.datasets.recipes.cbis_ddsm import CBIS_DDSM
from extract.datasets.recipes.chestxray14 import CHESTXRAY14, CHESTXRAY14_BAHAROON2023
from extract.datasets.recipes.chexpert import (
    CHEXPERT,
    CHEXPERT_BAHAROON2023_AP,
    CHEXPERT_BAHAROON2023_FRONTAL,
    CHEXPERT_HUIX2024,
    CHEXPERT_RETIRED,
)
from extract.datasets.recipes.ddsm import DDSM_HUIX2024
from extract.datasets.recipes.isic2019 import ISIC2019
from extract.datasets.recipes.montgomery import MONTGOMERY
from extract.datasets.recipes.msd_amos import VOLUMES_WITH_MASKS
from extract.datasets.recipes.recipe import Recipe, open_recipe, recipe_root
from extract.datasets.recipes.sars_cov_2_ct import SARS_COV_2_CT, SARS_COV_2_CT_SLICES

__all__ = ["RECIPES", "Recipe", "find_recipe", "open_recipe", "recipe_root"]

RECIPES: tuple[Recipe, ...] = (
    APTOS2019,
    BRAIN_TUMOR,
    CBIS_DDSM,
    DDSM_HUIX2024,
    CHESTXRAY14,
    CHESTXRAY14_BAHAROON2023,
    CHEXPERT,
    CHEXPERT_HUIX2024,
    CHEXPERT_BAHAROON2023_AP,
    CHEXPERT_BAHAROON2023_FRONTAL,
    ISIC2019,
    SARS_COV_2_CT,
    SARS_COV_2_CT_SLICES,
    MONTGOMERY,
    *VOLUMES_WITH_MASKS,
)


def find_recipe(name: str) -> Recipe | None:
    """The recipe of a name, if there is one.

    Raises:
        RequestError: a name that once meant something else than what it would mean now.
    """
    if name in CHEXPERT_RETIRED:
        raise RequestError(CHEXPERT_RETIRED[name])
    return next((recipe for recipe in RECIPES if recipe.name == name), None)
