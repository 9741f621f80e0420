"""Published numbers: that they are as printed, in one unit, with their footnotes."""

import pytest

from cache.errors import RequestError
from extract.encoders.table.entries import ENTRIES
from probe.metrics.classification import METRICS
from probe.report.published.figures import COMPLEXITY
from probe.report.published.names import DATASETS, ENCODERS
from probe.report.published.notes import NOTES
from probe.report.published.numbers import PAPERS, published


@pytest.mark.parametrize(
    ("paper", "n"),
    [("wu2025", 885), ("doerrich2024", 2400), ("huix2024", 124), ("baharoon2023", 227)],
)
def test_numbers_of_each_paper(paper, n):
    numbers = published(paper)
    assert len(numbers) == n
    assert all(0 < number.value <= 1 for number in numbers)
    asked = {
        (n.table, n.quoting, n.model, n.dataset, n.size, n.resize, n.mode, n.metric)
        for n in numbers
    }
    assert len(asked) == n


def one(paper, **which):
    [number] = published(paper, **which)
    return number


def test_a_number_is_as_printed():
    breast = one(
        "wu2025", table="results1", model="ViT-B/16", dataset="breastmnist", mode="finetune", metric="ACC"
    )  # fmt: skip
    assert (breast.printed, breast.value, breast.half_digit) == ("91.67", 0.9167, 0.00005)
    assert breast.is_mean
    kappa = one("huix2024", table="table1", model="DINOv1", dataset="aptos2019")
    assert (kappa.value, kappa.std, kappa.half_digit) == (0.878, 0.004, 0.0005)
    assert kappa.source == "huix2024, table 1 (https://arxiv.org/abs/2310.19522)"
    assert one("huix2024", table="table3", model="SAM", dataset="ddsm").is_mean
    assert not published("doerrich2024", mode="knn")[0].is_mean


def test_quotations_are_told_apart():
    gpt = one("wu2025", quoting="zhang2024", model="BiomedGPT", dataset="chestmnist")
    assert "PneumoniaMNIST" in gpt.notes[0]
    assert gpt.encoder == "biomedgpt_resnet101.base"
    assert gpt.source.startswith("wu2025, results2 of appendix C, quoting zhang2024 (")


def test_every_footnote_is_under_a_number():
    for note in NOTES:
        numbers = published(note.paper)
        assert any(note.text in n.notes for n in numbers), note.text


def test_names_are_those_of_encoders_that_there_are():
    ours = {entry.encoder for entry in ENTRIES}
    assert {name for names in ENCODERS.values() for name in names.values()} <= ours
    for paper in PAPERS:
        printed = {(n.quoting or paper, n.model) for n in published(paper)}
        if paper == "huix2024":
            printed |= {(paper, model) for model in COMPLEXITY}  # in a picture alone
        for of in {paper, *(of for of, _ in printed)}:
            assert ENCODERS[of].keys() <= {model for by, model in printed if by == of}
    unnamed = {n.model for n in published() if n.encoder is None}
    assert unnamed == {"AlexNet", "Scratch TransUnet", "Scratch U-Net", "TransUnet", "U-Net"}


def test_data_sets_are_those_that_there_are():
    from extract.datasets.origins import ORIGINS

    names = {name for of in DATASETS.values() for name in of.values()}
    names |= {n.our_dataset for n in published("wu2025")}
    assert names <= ORIGINS.keys()


def test_numbers_beside_ours():
    dino = published(
        "wu2025", encoder="vit_base_patch16_224.dino", our_dataset="retinamnist", mode="linear"
    )
    assert [n.our_metric for n in dino] == ["acc", "auc"]
    known = {m.name for m in METRICS}
    assert {n.our_metric for n in published()} - {None} <= known
    assert {n.metric for n in published() if n.our_metric is None} == {"mean(dice,jaccard)"}


def test_unknown_paper():
    with pytest.raises(RequestError, match="wu2025, doerrich2024"):
        published("wu2024")
