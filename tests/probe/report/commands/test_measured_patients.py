"""Where patients are measured, commands count them, and say how many samples they have."""

import re

import pytest
from golden import make_toy
from probing import answered as probed
from reporting import answered

PATIENTS, SAMPLES = 40, 80


@pytest.fixture
def toys(places, capsys):
    for encoder in ("toy.full", "wide.full"):
        facts = {"encoder": encoder, "n": (80, 40, SAMPLES), "patients": True}
        make_toy(places[0], "toys", "binary-class", seed=1, **facts)
    probed(capsys, "--kind linear --data toys --aggregate patient")


@pytest.mark.parametrize(
    ("words", "pattern"),
    [
        ("table --metric acc", r"test samples +80\s+patients +40\s"),
        ("compare toy wide", r"p +samples +patients\n.*\n.* auc .* 80 +40\n"),
        ("compare toy wide", r"Who answers what\ndata +patients +differ .*\n.*\ntoys.* 40 "),
        ("compare toy wide", r"Which class moves\ndata +class +patients "),
        ("decide", r"patients needed for[\s\S]*samples +patients[\s\S]*\n.* 80 +40 "),
        ("checklist claim2024", r"test \| 80 \| 80 \| 40 \| 0 \| "),
        ("checklist claim2024", r"unit of analysis: 40 patients, whose samples' scores"),
    ],
)
def test_patients_are_counted(toys, capsys, words, pattern):
    assert re.search(pattern, answered(capsys, *words.split()))
