"""Class prompts for zero-shot: what a text tower is asked, per data set, and a user's own."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from cache import RequestError
from cache.labels.target import UNLABELLED
from cache.task import MULTI_LABEL
from extract.datasets.recipes import RECIPES

# One or more templates a data set; {} is the class. Plain words for what the picture is, in the
# manner of Radford et al. 2021, section 3.1.4 ("a satellite photo of a {}").
TEMPLATES: dict[str, tuple[str, ...]] = {
    "pathmnist": ("a histopathology image of {}.",),
    "chestmnist": ("a chest X-ray with {}.",),
    "dermamnist": ("a dermatoscopic image of {}.",),
    "octmnist": ("a retinal OCT image of {}.",),
    "pneumoniamnist": ("a chest X-ray of a child, {}.",),
    "retinamnist": ("a fundus photograph, diabetic retinopathy grade {}.",),
    "breastmnist": ("a breast ultrasound image, {}.",),
    "bloodmnist": ("a microscopic image of a blood cell, {}.",),
    "tissuemnist": ("a microscopic image of kidney cortex tissue, {}.",),
    "organamnist": ("an axial abdominal CT image of the {}.",),
    "organcmnist": ("a coronal abdominal CT image of the {}.",),
    "organsmnist": ("a sagittal abdominal CT image of the {}.",),
    "demo": ("an MRI image of the brain, {}.",),
    **{recipe.name: recipe.templates for recipe in RECIPES if recipe.templates},
}
ANY: tuple[str, ...] = ("a medical image of {}.",)
NEGATIVE = "no {}"  # a label's absence, as a class of its own


def prompt_classes(task: str, class_names: Sequence[str]) -> tuple[str, ...]:
    """The classes that are prompted: those of the images, and of several labels their absence.

    Raises:
        RequestError: the images have no labels.
    """
    if task == MULTI_LABEL and tuple(class_names) == (UNLABELLED,):
        raise RequestError("images that are --unlabelled have no classes to prompt")
    if task != MULTI_LABEL:
        return tuple(class_names)
    return (*class_names, *(NEGATIVE.format(name) for name in class_names))


def make_prompts(
    dataset: str, classes: Sequence[str], templates: Sequence[str]
) -> dict[str, list[str]]:
    """Prompts by template.

    Args:
        dataset: its name, for its own templates.
        classes: as ``prompt_classes`` gives them.
        templates: a user's; empty: the data set's.
    """
    chosen = tuple(templates) or TEMPLATES.get(dataset, ANY)
    return {name: [template.replace("{}", name) for template in chosen] for name in classes}


def read_prompts(path: Path, classes: Sequence[str]) -> dict[str, list[str]]:
    """A user's prompts, in the order of the classes.

    Args:
        path: JSON, class name -> a prompt or a list of them.
        classes: that must all be there, and no others.

    Raises:
        RequestError: the file can't be read, or its classes aren't these.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=_once_each)
    except OSError as error:
        raise RequestError(f"--prompts: can't read {path}: {error.strerror}") from error
    except RequestError as error:
        raise RequestError(f"--prompts: {path}: {error}") from error
    except (ValueError, RecursionError) as error:
        raise RequestError(f"--prompts: {path} isn't JSON: {error}") from error
    if not isinstance(content, Mapping):
        raise RequestError(f'--prompts: {path} must hold {{"class name": ["prompt", ...], ...}}')
    missing = [name for name in classes if name not in content]
    extra = [name for name in content if name not in classes]
    if missing or extra:
        faults = [f"lacks {missing[0]!r}"] if missing else []
        faults += [f"has {extra[0]!r}, which is no class"] if extra else []
        raise RequestError(
            f"--prompts: {path} {' and '.join(faults)}; the classes are {', '.join(classes)}"
        )
    prompts = {}
    for name in classes:
        given = content[name]
        texts = [given] if isinstance(given, str) else given
        if not (isinstance(texts, list) and texts and all(_is_text(text) for text in texts)):
            raise RequestError(f"--prompts: {path}: {name!r} needs one or more non-empty texts")
        prompts[name] = texts
    return prompts


def _once_each(pairs: Sequence[tuple[str, object]]) -> dict[str, object]:
    """A JSON object; of a name that stands there twice, Python would take the last."""
    content = dict(pairs)
    if len(content) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise RequestError(f"{twice!r} stands there twice; give all its prompts in one list")
    return content


def _is_text(value: object) -> bool:
    return isinstance(value, str) and value.strip() != ""
