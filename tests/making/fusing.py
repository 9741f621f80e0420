"""Rows of fused probes, with the attention that they hold."""

import dataclasses

import numpy as np
from contending import answer, labels_of, scores_of

from probe.places import Place, settings_of
from probe.report.rows.stored import StoredRow
from probe.results import Part


def places_of(n_layers, pools=("cls", "mean"), file=0):
    """Layer by layer, of each its pools."""
    return [Place(layer, pool, file=file) for layer in range(n_layers) for pool in pools]


def attention_of(n_places, seed=0, n_classes=2, peak=6.0):
    """Of C classes to T places, most of it to one, which moves with the seed."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 0.5, (n_classes, n_places))
    logits[:, seed % n_places] += np.log(peak)
    powers = np.exp(logits)
    return (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32)


def fused(
    model="vit", places=None, seed=0, dataset="toys", n=120, n_classes=2, encoders=(), **fields
):
    """A row of one training, as ``probe --kind fusion`` writes it.

    Args:
        model: name.
        places: that are looked at.
        seed: of its attention, and of the training.
        dataset: name.
        n: test samples.
        n_classes: how many.
        encoders: side by side, by their names.
        fields: of ``contending.answer``; ``attention`` (C, T) in place of ``attention_of``.
    """
    places = places or places_of(12)
    attention = fields.pop("attention", None)
    attention = attention_of(len(places), seed, n_classes) if attention is None else attention
    labels = labels_of(n, n_classes)
    settings = settings_of(places) | {"training_seed": seed} | fields
    scores = scores_of(labels, 1, seed, n_classes)
    row = answer(model, scores, labels, kind="fusion", dataset=dataset, **settings).row
    shares = np.bincount(labels, minlength=n_classes) / n
    extras = {"attention": shares @ attention, "attention_of_classes": attention}
    joined = tuple(Part(name, name, f"{name}.full", 224, f"{name:0<64}", {}) for name in encoders)
    digest = f"{model} {dataset}"  # other features, other questions
    encoded = dataclasses.replace(row.encoded, joined=joined, digest=digest)
    return StoredRow(dataclasses.replace(row, encoded=encoded, scores={**row.scores, **extras}))
