"""Rows to draw, and what a picture holds after it was drawn."""

import dataclasses
import itertools
from contextlib import contextmanager
from unittest.mock import patch

import numpy as np
from contending import NOBODY, answer, labels_of, scores_of

from probe.cost import Cost
from probe.report.figures.frame import Asked
from probe.report.rows.contenders import contenders_of

LONG = "an_encoder_whose_name_is_longer_than_any_panel_is_wide_$x^2$"
NAMES = ("lite", "vit", LONG)


def asked_of(rows, metric="auc", by=None, people=NOBODY, across=""):
    """What a figure's ``make`` takes."""
    return Asked(rows, contenders_of(rows), people, metric, by, across)


def layered(layers=range(4), pools=("cls", "mean"), models=NAMES[:2], skill=0.6, **settings):
    """A row for each layer."""
    labels = labels_of()
    return [
        answer(model, scores_of(labels, skill + layer / 8, 7 * layer + len(pool)), labels, layer=layer, pool=pool, **settings)
        for model in models
        for layer in layers
        for pool in pools
    ]  # fmt: skip


def few_shot(shots=(1, 5, 10), models=NAMES):
    """A row for each number of shots."""
    labels = labels_of()
    rows = []
    for model in models:
        for n in shots:
            drawn = {"shots": n, "episodes": 3, "images": 10, "digest": f"d{n}"}
            scores = scores_of(labels, n / 10, n, episodes=3)
            rows.append(answer(model, scores[0], labels, few_shot=drawn))
    return rows


def tuned(name, values, models=NAMES[:2], protocol="", **settings):
    """A row of fine-tuning for each value of a setting, as ``--each`` makes them."""
    labels = labels_of()
    found = []
    for i, value in enumerate(values):
        for model in models:
            scores = scores_of(labels, 0.5 + i / 4, 7 * i + len(model))
            is_rate = name == "encoder_lr"
            asked = {name: [value] if is_rate else value, "layer": 11, **settings}
            of = answer(model, scores, labels, kind="finetune", **asked)
            changed = [f"{name.replace('_', ' ')} {value:g}", "epochs 2"]
            answered = dataclasses.replace(
                of.row.answered,
                chosen={"ddof": 1, **({name: value} if is_rate else {})},
                protocol={"name": protocol, "changed": changed} if protocol else {},
            )
            found.append(
                dataclasses.replace(of, row=dataclasses.replace(of.row, answered=answered))
            )
    return found


def kinds(
    kind_names=("knn", "ridge", "linear"),
    models=NAMES,
    n_classes=2,
    n=120,
    dataset="toys",
    **settings,
):
    """A row for each encoder and kind."""
    labels = labels_of(n, n_classes)
    return [
        answer(model, scores_of(labels, 0.5 + i / 4 + j / 3, 10 * i + j, n_classes), labels, kind=kind, dataset=dataset, **settings)
        for i, model in enumerate(models)
        for j, kind in enumerate(kind_names)
    ]  # fmt: skip


def priced(rows, device="cuda (one)"):
    """Rows that know what their encoders take."""
    found = []
    for i, of in enumerate(rows):
        cost = Cost(
            parameters=10**7 * (1 + 5 * i % 7),
            images_per_second=1000 / (1 + 3 * i % 5),
            inference_seconds_per_image=0.001 * (1 + 3 * i % 5),
            bytes_per_image=1000 + 400 * i,
            device=device,
        )
        found.append(dataclasses.replace(of, row=dataclasses.replace(of.row, cost=cost)))
    return found


def tempered(rows, temperature=1.3):
    """Rows with a temperature, measured as `probe` does."""
    from probe.metrics.prepared import prepare

    found = []
    for of in rows:
        row = of.row
        arrays = row.scores
        prepared = prepare(
            arrays["test_scores"],
            arrays["test_labels"],
            row.encoded.task,
            "probability",
            temperature,
        )
        test = dict(row.measured.test)
        from probe.metrics.intervals import Interval

        test["ece_tempered"] = Interval(prepared.evaluate()["ece_tempered"], np.nan, np.nan)
        measured = dataclasses.replace(row.measured, test=test, temperature=temperature)
        found.append(dataclasses.replace(of, row=dataclasses.replace(row, measured=measured)))
    return found


@contextmanager
def watched():
    """Lists the texts that are drawn in it, each with its box in pixels."""
    from matplotlib.text import Text

    found, drawn = [], Text.draw

    def draw(self, renderer, *args, **kwargs):
        drawn(self, renderer, *args, **kwargs)
        if self.get_visible() and self.get_text().strip():
            box = Text.get_window_extent(self, renderer)
            found.append((self.get_text(), box))

    with patch.object(Text, "draw", draw):
        yield found


def drawn_texts(figure):
    """The texts of a whole picture with their boxes, and the picture's own."""
    with watched() as found:
        figure.canvas.draw()
    return found, figure.bbox


def check_texts(figure):
    """That no text is cut, and none lies over another."""
    texts, whole = drawn_texts(figure)
    assert len(texts) > 5
    for text, box in texts:
        inside = (box.x0, box.y0) >= (-1, -1) and box.x1 <= whole.x1 + 1 and box.y1 <= whole.y1 + 1
        assert inside, f"{text!r} is cut: {box} of {whole}"
    for (one, a), (other, b) in itertools.combinations(texts, 2):
        wide = min(a.x1, b.x1) - max(a.x0, b.x0)
        high = min(a.y1, b.y1) - max(a.y0, b.y0)
        assert wide < 2 or high < 2, f"{one!r} lies over {other!r}"
