"""Figures of feature files: their numbers are those of findings; what can't be compared is refused."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
from drawing import LONG, check_texts
from layering import layered_file, of_files

from cache.errors import RequestError
from cache.task import MULTI_CLASS, MULTI_LABEL, REGRESSION
from probe.places import find_places, last_place
from probe.report.figures import catalogue
from probe.report.figures.cka import in_tile
from probe.report.figures.pairs import pairs_of, tuned_pairs
from probe.report.figures.scatter import groups_of
from probe.report.findings.alike import layers_alike, neighbours_alike, scatter
from probe.report.findings.matched import file_names


@pytest.fixture(scope="module")
def make(tmp_path_factory):
    """Makes a feature file."""
    folder = tmp_path_factory.mktemp("features")
    made = {}

    def file(model="vit", n_layers=4, seed=0, **fields):
        key = model, n_layers, seed, repr(sorted(fields))
        if key not in made:
            made[key] = layered_file(folder / str(len(made)), model, n_layers, seed=seed, **fields)
        return made[key]

    return file


def one_outlier(x):
    x = x.copy()
    x[-1] *= 300
    return x


def test_layers_of_two_encoders(make):
    vit, cnn = make(), make("cnn", 2, 1)
    frame = catalogue.make("cka", of_files(vit, cnn))
    expected = layers_alike(
        *(find_places(file, "all", ["cls"]) for file in (cnn, vit)), split="test"
    )
    assert [tile.value for tile in frame.points] == expected.cka.ravel().tolist()
    assert [tile.trimmed for tile in frame.points] == expected.trimmed.ravel().tolist()
    tile = frame.points[1]
    assert (tile.row, tile.column, tile.encoder, tile.other) == ("0", "1", "cnn", "vit")
    assert (tile.panel, tile.n, tile.width) == ("toys, n = 40 of test", 40, 8)
    assert (frame.y, frame.x) == ("layer of cnn, cls", "layer of vit, cls")
    assert frame.caption.startswith("Linear CKA, debiased, all at once; D = 8. Without the 1 %")
    assert not any(tile.is_marked for tile in frame.points)


def test_what_few_samples_make_is_marked_and_no_variance_is_grey(make):
    change = {1: one_outlier, 3: np.ones_like}
    odd = make("odd", seed=2, change=change), make("other", seed=3, change={0: one_outlier})
    frame = catalogue.make("cka", of_files(*odd))
    marked = {(tile.row, tile.column) for tile in frame.points if tile.is_marked}
    assert ("1", "0") in marked
    assert marked == {
        (tile.row, tile.column) for tile in frame.points if abs(tile.value - tile.trimmed) > 0.1
    }
    assert {tile.row for tile in frame.points if np.isnan(tile.value)} == {"3"}
    assert "Corner: without the 1 %" in frame.caption
    assert frame.caption.endswith("Grey: a layer without variance.")


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.874, ".87"), (1.0, "1"), (-0.001, "0"), (-0.02, "\N{MINUS SIGN}.02"), (np.nan, "?")],
)
def test_a_number_in_a_tile_is_short(value, text):
    assert in_tile(value) == text


def test_biased_and_minibatches_are_passed_on(make):
    places = find_places(make(), "all", ["cls"])
    biased = catalogue.make("cka", of_files(make(), biased=True)).points
    expected = layers_alike(places, split="test", is_debiased=False)
    assert [tile.value for tile in biased] == expected.cka.ravel().tolist()
    assert {tile.estimator for tile in biased} == {"biased"}
    frame = catalogue.make("cka", of_files(make(), batch=10, seed=3, split="all"))
    expected = layers_alike(places, batch=10, seed=3)
    assert [tile.value for tile in frame.points] == expected.cka.ravel().tolist()
    assert "in 7 minibatches of at most 10 (seed 3)" in frame.caption


def test_before_and_after_tuning(make):
    before, after, other = make(), make(seed=5, tuned=True), make("cnn", 2, 1)
    asked = of_files(other, after, before)
    pairs, notes = pairs_of(asked)
    assert [(both.one, both.other, both.is_tuned) for both in pairs] == [(before, after, True)]
    assert notes == ("Left out: cnn on toys, of which there is no tuned one",)
    frames = [catalogue.make(name, asked) for name in ("cka", "huix2024:fig7")]
    assert frames[0] == frames[1]
    [title] = {tile.panel for tile in frames[0].points}
    assert title.endswith(": vit, fine-tuned on toys (full, encoder lr 1e-05, seed 0), cls")
    assert (frames[0].y, frames[0].x) == ("layer before tuning", "layer after tuning")
    diagonal = [tile for tile in frames[0].points if tile.row == tile.column]
    marks = catalogue.make("drift", asked).points
    assert [mark.x for mark in marks[::2]] == [0, 1, 2, 3]
    assert [mark.value for mark in marks[::2]] == pytest.approx([of.value for of in diagonal])
    assert [mark.value for mark in marks[1::2]] == pytest.approx([of.trimmed for of in diagonal])


def test_drift_of_cnns_says_all_widths_once(make):
    frame = catalogue.make("drift", of_files(make(), make(seed=6)))
    assert frame.caption.count("Linear CKA") == 1


def test_files_that_differ_in_more_than_weights_are_no_pair(make):
    larger = make(seed=7, tuned=True, key={"size": 64})
    assert tuned_pairs([make(), larger]) == []
    own = make(seed=8, notes={"own_weights": True, "weights": "mine.pth"})
    assert [(of.one, of.other) for of in tuned_pairs([own, make()])] == [(make(), own)]


def test_last_layers_of_encoders(make):
    files = [make(), make("cnn", 2, 1), make("odd", seed=2)]
    frames = [catalogue.make("huix2024:fig8", of_files(*files))]
    frames.append(catalogue.make("cka", of_files(*files, layer=-1)))
    assert frames[0] == frames[1]
    expected = layers_alike([last_place(file) for file in files], split="test")
    assert [tile.value for tile in frames[0].points] == expected.cka.ravel().tolist()
    assert frames[0].points[1].column == "cnn, layer 1, cls"


LONG_NAMES = [f"vit_small_patch14_dinov2 (a_file_of_{n}.safetensors a91f)" for n in (1, 2)]


@pytest.mark.parametrize(
    ("labels", "sizes", "names"),
    [
        (LONG_NAMES[:1], (224,), ["vit_small_patch14_dinov2 (a91f)"]),
        (
            [LONG_NAMES[0]] * 2,
            (112, 224),
            [f"vit_small_patch14_dinov2 (a91f), {size} px" for size in (112, 224)],
        ),
        (LONG_NAMES, (224, 224), [f"{name}, 224 px" for name in LONG_NAMES]),
    ],
)
def test_a_weight_files_name_stands_only_where_it_tells_two_apart(labels, sizes, names):
    files = [
        SimpleNamespace(label=label, size=size, path=i, digest=f"{i}" * 64)
        for i, (label, size) in enumerate(zip(labels, sizes, strict=True))
    ]
    assert list(file_names(files).values()) == names


def test_neighbours_stand_beside_chance(make):
    files = [make(), make("cnn", 2, 1)]
    frame = catalogue.make("neighbours", of_files(*files, k=4, split="all"))
    found = neighbours_alike([last_place(file) for file in files], 4)
    assert [tile.value for tile in frame.points] == found.overlap.ravel().tolist()
    assert {(tile.k, tile.n, tile.chance) for tile in frame.points} == {(4, 70, 4 / 69)}
    assert {tile.panel for tile in frame.points} == {"toys, n = 70; by chance 0.058"}
    grouped = make(seed=9, groups=np.array([f"p{i // 2}" for i in range(70)]))
    assert (
        "patients with several" in catalogue.make("neighbours", of_files(grouped, files[1])).caption
    )


def test_scatter_has_classes_and_shares(make):
    file = make()
    frame = catalogue.make("scatter", of_files(file))
    found = scatter(last_place(file), split="test")
    assert {(spot.id, spot.x, spot.y, spot.label) for spot in frame.points} == {
        (name, x, y, "abé"[c])
        for name, (x, y), c in zip(
            found.samples.ids.tolist(), found.points.tolist(), found.labels, strict=True
        )
    }
    [title] = {spot.panel for spot in frame.points}
    shares = " and ".join(f"{100 * share:.0f}\N{NO-BREAK SPACE}%" for share in found.shares)
    assert title == f"toys, n = 40 of test: vit, layer 3, cls; {shares} of the variance"
    assert [spot.label for spot in frame.points] == sorted(spot.label for spot in frame.points)
    by_tsne = catalogue.make("scatter", of_files(file, method="tsne", seed=4))
    assert by_tsne.caption.startswith("By t-SNE; perplexity 13, seed 4.")
    assert by_tsne.caption.endswith("means nothing.")


@pytest.mark.parametrize(
    ("task", "labels", "expected"),
    [
        (MULTI_CLASS, [1, -1, 0], ["b", "unknown", "a"]),
        (
            MULTI_LABEL,
            [[1, 0], [1, 1], [0, 0], [-1, 0], [-2, 1]],
            ["a", "several labels", "no label", "unknown", "b"],
        ),
        (REGRESSION, [0.0, 4.0, np.nan, 2.0], ["0 to 1", "3 to 4", "unknown", "2 to 3"]),
        (REGRESSION, [2.0, 2.0], ["2", "2"]),
    ],
)
def test_what_samples_are_coloured_by(task, labels, expected):
    codes, names = groups_of(np.array(labels), ("a", "b"), task)
    assert [names[c] for c in codes] == expected


REFUSED = {
    "three": (
        "cka",
        {},
        "name two by --model or --files, or compare one layer of all by --layer -1",
    ),
    "one": ("cka", {"layer": -1}, "name two, or --layer all"),
    "alone": ("neighbours", {}, "`extract --model` makes others"),
    "untuned": ("drift", {}, "`finetune --model M --data D` trains it"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cant_be_compared_is_refused(make, case):
    name, asked, words = REFUSED[case]
    files = [make(), make("cnn", 2, 1), make("odd", seed=2)]
    files = files[: 1 if case in ("one", "alone") else 3]
    with pytest.raises(RequestError, match=words.replace("(", r"\(")):
        catalogue.make(name, of_files(*files, **asked))


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"layer": "auto"}, "--layer takes a number, -1 for the last, all"),
        ({"split": "tset"}, "--split takes train, val, test, all"),
        ({"k": 0}, "--k takes 1 and more"),
        ({"method": "lda"}, "--method takes pca, tsne, umap"),
    ],
)
def test_odd_settings_are_refused(asked, words):
    with pytest.raises(RequestError, match=words):
        of_files(**asked)


def many(make):
    names = (LONG, f"{LONG}_two", *"abcdefgh")
    return [make(name, 2, 20 + i) for i, name in enumerate(names)]


DRAWN = {
    "16 layers": ("cka", lambda make: of_files(make("deep", 16), make(LONG, 16, 1))),
    "one encoder": ("cka", lambda make: of_files(make("odd", 12, 2, change={1: one_outlier}))),
    "few": ("cka", lambda make: of_files(make(), make("deep", 16))),
    "tuned": ("cka", lambda make: of_files(make(), make(seed=5, tuned=True))),
    "encoders": ("neighbours", lambda make: of_files(*many(make))),
    "drift": ("drift", lambda make: of_files(make(), make(seed=5, tuned=True))),
    "scatter": ("scatter", lambda make: of_files(make(), make(LONG, 2, 1), make("cnn", 2, 1))),
}


@pytest.mark.parametrize(
    ("case", "width"), [*((case, "one") for case in DRAWN), ("16 layers", "two"), ("tuned", "two")]
)
def test_no_text_is_cut_or_over_another(make, case, width):
    pytest.importorskip("matplotlib")
    from probe.report.figures.drawn.style import WIDTHS, styled

    name, asked = DRAWN[case]
    frame = catalogue.make(name, asked(make))
    with styled():
        check_texts(catalogue.draw(frame, WIDTHS[width]))


def test_a_frame_of_files_is_plain(make):
    """Texts and numbers alone, so that any format writes it."""
    for name in ("cka", "scatter", "neighbours"):
        frame = catalogue.make(name, of_files(make(), make("cnn", 2, 1)))
        values = dataclasses.astuple(frame.points[0])
        assert {type(value) for value in values} <= {str, int, float, bool}
