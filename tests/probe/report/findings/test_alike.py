"""Encoders beside each other, from feature files."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest
from features import make_features, make_text_spec, write_rows

from cache import store
from cache.errors import BrokenCache, RequestError
from cache.features import open_features
from probe.places import Place, find_places, last_place, read_place
from probe.report.findings import alike, matched
from probe.report.findings.alike import PCA, TSNE, UMAP, layers_alike, neighbours_alike, scatter
from probe.report.findings.matched import match_samples
from probe.report.statistics import projections
from probe.report.statistics.projections import pca
from probe.report.statistics.similarity import cka, nearest, shared

N = (30, 10, 20)


@pytest.fixture
def make(tmp_path):
    """Opens a new feature file of 60 samples."""

    def made(model="one", folder="features", **fields):
        fields = {"n": N, **fields}
        return open_features(make_features(tmp_path / folder, model=model, **fields))

    return made


def layers(features, pool="cls"):
    return find_places(features, "all", [pool])


def test_layers_of_two_files(make):
    one, two = make("one"), make("two", seed=8, n_layers=3)
    found = layers_alike(layers(one), layers(two, "mean"))
    assert found.cka.shape == found.trimmed.shape == (2, 3)
    for i in range(2):
        for j in range(3):
            expected = cka(one.array(i, "cls"), two.array(j, "mean"))
            assert found.cka[i, j] == pytest.approx(expected)
    assert [(seen.encoder, seen.layer, seen.pool, seen.width) for seen in found.left] == [
        ("one", 0, "cls", 8),
        ("one", 1, "cls", 8),
    ]
    assert found.right[2].place == "layer 2, mean"
    assert found.describe() == "linear CKA, debiased, all at once; D = 8"
    pairs = found.pairs()
    assert len(pairs) == 6
    assert (pairs[1].layer, pairs[1].other, pairs[1].other_layer) == (0, "two", 1)
    assert (pairs[1].cka, pairs[1].trimmed) == (found.cka[0, 1], found.trimmed[0, 1])
    assert (pairs[1].n, pairs[1].n_trimmed) == (60, found.n_trimmed[0, 1])
    assert found.n_trimmed[0, 1] in (58, 59)


def test_layers_of_one_file(make):
    one = make()
    found = layers_alike([*layers(one), last_place(one, ["head"])], is_debiased=False)
    assert found.left == found.right
    assert np.diag(found.cka) == pytest.approx(1)
    assert found.cka[1, 2] == pytest.approx(1)  # head is the last layer
    assert found.cka[0, 1] == pytest.approx(
        cka(one.array(0, "cls"), one.array(1, "cls"), is_debiased=False)
    )
    assert found.describe().endswith("biased, all at once; D = 8; of noise it is about D / (D + n)")


def test_minibatches_are_said(make):
    one = make()
    found = layers_alike(layers(one), batch=16, seed=4)
    assert "debiased, in 4 minibatches of at most 16 (seed 4)" in found.describe()
    assert np.diag(found.cka) == pytest.approx(1)


def test_samples_are_matched_by_id(make):
    ids = np.array([f"{i:03d}" for i in range(60)])
    one = make("one", ids=ids)
    order = np.random.default_rng(0).permutation(60)
    # The first ten of the other are samples that the first doesn't have.
    theirs = np.array([f"x{i}" for i in range(10)] + list(ids[order[10:]]))
    two = make("two", seed=8, ids=theirs)
    found = layers_alike(layers(one), layers(two))
    kept = np.sort(order[10:])
    assert found.samples.ids.tolist() == ids[kept].tolist()
    place = {name: i for i, name in enumerate(theirs)}
    rows = [place[name] for name in ids[kept]]
    expected = cka(one.array(1, "cls")[kept], two.array(1, "cls")[rows])
    assert found.cka[1, 1] == pytest.approx(expected)
    assert found.samples.notes == (
        f"Left out: 10 samples of {one.path.name} that another file hasn't",
        f"Left out: 10 samples of {two.path.name} that another file hasn't",
    )


def test_a_split_is_what_all_files_call_so(make):
    split = np.repeat([0, 1, 2], N)
    other = split.copy()
    other[:2], other[-3:] = 2, 0
    one, two = make("one", split=split), make("two", seed=8, split=other)
    found = layers_alike(layers(one), layers(two), split="test")
    assert found.samples.ids.tolist() == one.ids[40:57].tolist()
    assert found.samples.notes == ("Left out: 5 samples of test in some files only",)
    assert str(found.samples) == "n = 17 of test"
    x, y = one.array(0, "cls")[40:57], two.array(0, "cls")[40:57]
    assert found.cka[0, 0] == pytest.approx(cka(x, y))


def test_a_sample_of_several_rows_is_their_mean(make, monkeypatch):
    monkeypatch.setattr(matched, "CHUNK_SAMPLES", 7)
    rng = np.random.default_rng(1)
    rows = rng.permutation(np.r_[np.arange(60), rng.integers(0, 60, 50)])
    one, two = make("one", row_sample=rows), make("two", seed=8)
    found = layers_alike(layers(one), layers(two), split="train")
    x = read_place(one, Place(1, "cls"))[:30]
    assert found.cka[1, 0] == pytest.approx(cka(x, two.array(0, "cls")[:30]), abs=1e-6)
    assert found.samples.n == 30


@pytest.mark.parametrize("place", [Place(1, "concat"), Place(1, "cls", 2), Place(1, "concat", 2)])
def test_side_by_side(make, place):
    one, two = make("one"), make("two", seed=8)
    here = Place(place.layer, place.pool, place.n_last, one)
    found = layers_alike([here], layers(two))
    x = read_place(one, place)
    assert found.left[0].width == x.shape[1]
    assert found.left[0].place == str(place)
    assert found.cka[0, 1] == pytest.approx(cka(x, two.array(1, "cls")))


def test_files_of_one_name_are_told_apart(make, tmp_path):
    one = make("one")
    again = make("one", "elsewhere", seed=8, key={"weights": "sha256:1f"})
    names = {
        seen.encoder for seen in neighbours_alike([last_place(one), last_place(again)]).encoders
    }
    assert names == {f"one, 32 px, {file.digest[:8]}" for file in (one, again)}
    larger = make("one", "larger", seed=8, size=64)
    names = [
        seen.encoder for seen in neighbours_alike([last_place(one), last_place(larger)]).encoders
    ]
    assert names == ["one, 32 px", "one, 64 px"]


def test_neighbours_of_several_encoders(make):
    files = [make(name, seed=seed) for seed, name in enumerate(("one", "two", "three"))]
    places = [last_place(file) for file in files]
    found = neighbours_alike(places, 4, split="train")
    near = [nearest(file.array(1, "cls")[:30], 4) for file in files]
    assert found.overlap.tolist() == [[shared(a, b) for b in near] for a in near]
    assert found.chance == 4 / 29
    assert found.describe() == (
        "share of the 4 nearest others, by cosine, that two encoders agree on"
    )
    assert str(found.samples) == "n = 30 of train"
    pairs = found.pairs()
    assert [(p.encoder, p.other) for p in pairs[:4]] == [
        ("one", "one"),
        ("one", "two"),
        ("one", "three"),
        ("two", "one"),
    ]
    assert pairs[5].overlap == found.overlap[1, 2]
    assert (pairs[5].k, pairs[5].n, pairs[5].chance) == (4, 30, 4 / 29)


def test_of_many_samples_some_are_drawn(make, monkeypatch):
    monkeypatch.setattr(alike, "MOST", 25)
    one, two = make("one"), make("two", seed=8)
    found = neighbours_alike([last_place(one), last_place(two)], seed=3)
    assert found.samples.notes == ("25 of 60 samples, drawn (seed 3)",)
    drawn = [int(name) for name in found.samples.ids]
    assert len(set(drawn)) == 25
    near = [nearest(file.array(1, "cls")[drawn], 10) for file in (one, two)]
    assert found.overlap[0, 1] == shared(*near)
    other = neighbours_alike([last_place(one), last_place(two)], seed=4)
    assert other.samples.ids.tolist() != found.samples.ids.tolist()
    assert layers_alike(layers(one)).samples.n == 60
    assert layers_alike(layers(one), is_debiased=False).samples.n == 25
    monkeypatch.setattr(alike, "MOST_TSNE", 15)
    assert [scatter(last_place(one), by).samples.n for by in (PCA, TSNE)] == [25, 15]


def test_a_layer_in_the_plane(make):
    one = make()
    place = last_place(one)
    found = scatter(place, split="test")
    plane = pca(one.array(1, "cls")[40:])
    assert found.points.tolist() == plane.points.tolist()
    assert found.shares == tuple(plane.shares)
    assert found.labels.tolist() == one.labels[40:].tolist()
    assert found.class_names == ("class 0", "class 1", "class 2")
    assert found.describe() == "principal components, in the unit of the features"
    assert found.method == PCA
    by_tsne = scatter(place, TSNE, split="test", seed=3)
    assert by_tsne.points.shape == (20, 2)
    assert by_tsne.shares == ()
    assert by_tsne.describe() == "by t-SNE; perplexity 6.33, seed 3"
    with pytest.raises(RequestError, match="laid out by pca, tsne, umap, not 'lda'"):
        scatter(place, "lda")


def test_umap_is_asked_with_seed_and_settings(make, monkeypatch):
    asked = []

    class Umap:
        def __init__(self, **settings):
            asked.append(settings)

        def fit_transform(self, x):
            return x[:, :2]

    monkeypatch.setattr(projections, "find_spec", lambda name: name == "umap")
    monkeypatch.setitem(sys.modules, "umap", SimpleNamespace(UMAP=Umap))
    one = make()
    found = scatter(last_place(one), UMAP, split="val", seed=5)
    assert found.points.tolist() == one.array(1, "cls")[30:40, :2].tolist()
    assert (asked[0]["random_state"], asked[0]["n_neighbors"], asked[0]["n_jobs"]) == (5, 9, 1)
    assert found.describe() == "by UMAP; 9 neighbours, least distance 0.1, seed 5"


def test_without_umap_the_way_to_have_it_is_said(make, monkeypatch):
    monkeypatch.setattr(projections, "find_spec", lambda name: None)
    with pytest.raises(RequestError, match="pip install umap-learn"):
        scatter(last_place(make()), UMAP)


def test_labels_arent_needed(make):
    one = make(labels=np.full(60, -1))
    assert layers_alike(layers(one)).cka[0, 0] == pytest.approx(1)


# ---------------------------------------------------------------------- what can't be


def test_files_that_cant_be_compared(make, tmp_path):
    one = make("one")
    other = make("two", dataset="pets")
    with pytest.raises(RequestError, match=r"same images: .*one.* is of toys, .*two.* of pets"):
        layers_alike(layers(one), layers(other))
    strangers = make("two", ids=np.array([f"x{i}" for i in range(60)]))
    with pytest.raises(RequestError, match=r"two.* has none of the 60 samples of .*one"):
        neighbours_alike([last_place(one), last_place(strangers)])
    with pytest.raises(RequestError, match="samples are of train, val, test, all, not 'tests'"):
        match_samples([one], "tests")
    with pytest.raises(RequestError, match="no sample is of test in .*three"):
        match_samples([make("three", split=np.zeros(60))], "test")
    spec = make_text_spec([0, 1, 2])
    path = write_rows(tmp_path / "t.h5", spec, {"proj": np.eye(3, 6)})
    with pytest.raises(RequestError, match=r"t\.h5 holds texts: name feature files of images"):
        match_samples([one, open_features(path)])


def test_what_isnt_finite_is_named(make, monkeypatch):
    monkeypatch.setattr(store, "check_storable", lambda *_: None)  # as another program may write
    labels = np.arange(60) % 3
    one = make(labels=lambda _: labels, strength=np.inf)
    says = r"inf or nan in .*one_.*, layer 1, cls: leave it out"
    with pytest.raises(RequestError, match=says):
        layers_alike(layers(one))
    with pytest.raises(RequestError, match=says):
        neighbours_alike([last_place(one)])


def test_damage_is_found(make):
    one = make()
    extent = one.header.arrays["layers/01/cls"]
    with one.path.open("r+b") as file:
        file.seek(extent.offset + 5)
        byte = file.read(1)
        file.seek(extent.offset + 5)
        file.write(bytes([byte[0] ^ 1]))
    with pytest.raises(BrokenCache, match="layers/01/cls don't match their checksum"):
        layers_alike(layers(one))
    assert layers_alike(layers(one)[:1]).cka[0, 0] == pytest.approx(1)
