"""What rows of several layers, pools or encoders side by side are called, and asked of."""

from dataclasses import replace

import pytest
from answering import make_row

from cache.commands.names import choose_named
from probe.places import Place, settings_of
from probe.report.rows.beside import (
    count_encoders,
    encoders_of,
    layer_from_end,
    layer_of,
    pool_of,
    short_name,
    sized_name,
    typed_places,
)
from probe.report.rows.contenders import Contender
from probe.report.rows.fields import find_field
from probe.report.rows.sides import describe, differences_of
from probe.report.rows.stored import StoredRow, model_names
from probe.results import Part

LONG = "vit (some_weights_of_mine.safetensors a91f)"


def key(n, stored=None):
    return {"layers": {"of": n, **({"stored": stored} if stored else {})}}


def make(places, *parts):
    """A row of these places: (layer, pool, file), of encoders (label, size, layers)."""
    row = make_row()
    at = [Place(layer, pool, file=file) for layer, pool, file in places]
    settings = {"kind": "linear", **settings_of(at)}
    each = [
        Part(label.partition(" ")[0], label, label, size, f"{i}" * 64, key(n))
        for i, (label, size, n) in enumerate(parts)
    ]
    e = replace(row.encoded, key=each[0].key, model=each[0].model)
    if len(each) > 1:
        model, label = ("+".join(getattr(p, of) for p in each) for of in ("model", "label"))
        e = replace(e, model=model, own_label=label, joined=tuple(each), key={"joined": []})
    return replace(row, encoded=e, answered=replace(row.answered, settings=settings))


VIT, CNN = (LONG, 112, 4), ("cnn", 224, 3)
CASES = {
    "one": ([(3, "cls", 0)], [VIT], (3, "cls", -1), ("3", "cls")),
    "all": ([(n, "cls", 0) for n in range(4)], [VIT], ("0..3", "cls", "all"), ("all+", "cls")),
    "some": ([(0, "cls", 0), (2, "cls", 0)], [VIT], ("0+2", "cls", "-4+-2"), ("0+2", "cls")),
    "two": ([(0, "cls", 0), (1, "cls", 0)], [VIT], ("0+1", "cls", "-4+-3"), ("0+1", "cls")),
    "pools": (
        [(1, "cls", 0), (1, "mean", 0)], [VIT], ("1", "cls+mean", -3), ("1", "cls+mean"),
    ),
    "last of a CNN": (
        [(0, "mean", 0), (1, "mean", 0), (2, "head", 0)],
        [CNN], ("0..2", "mean+head", "all"), ("all+", ""),
    ),
    "encoders": (
        [(3, "cls", 0), (2, "head", 1)], [VIT, CNN], ("3/2", "cls/head", -1), ("-1", ""),
    ),
    "the same layer": (
        [(1, "mean", 0), (1, "mean", 1)], [VIT, CNN], ("1", "mean", "-3/-2"), ("1", "mean"),
    ),
    "all of both": (
        [*((n, "cls", 0) for n in range(4)), *((n, "mean", 1) for n in range(3))],
        [VIT, CNN], ("0..3/0..2", "cls/mean", "all"), ("all+", ""),
    ),
    "one pool first": (
        [(2, "mean", 0), (3, "cls", 1), (3, "mean", 1)],
        [CNN, VIT], ("2/3", "mean/cls+mean", -1), ("-1", "cls+mean"),
    ),
    "pools of both": (
        [(3, "cls", 0), (3, "mean", 0), (2, "mean", 1)],
        [VIT, CNN], ("3/2", "cls+mean/mean", -1), ("-1", "cls+mean"),
    ),
}  # fmt: skip


@pytest.mark.parametrize(("places", "parts", "said", "typed"), CASES.values(), ids=CASES)
def test_places_in_words(places, parts, said, typed):
    row = make(places, *parts)
    assert (layer_of(row), pool_of(row), layer_from_end(row)) == said
    assert find_field("place").of(StoredRow(row)) == ("joined" if len(places) > 1 else "named")
    if len(places) > 1:
        assert typed_places(row) == typed


@pytest.mark.parametrize(
    "places",
    [
        [],
        [{"layer": 1, "pool": "cls"}],
        [{"pool": "later", "file": 9}],
        [{"pool": "cls", "n_last": 4}],
    ],
)
def test_places_of_anyone_s_rows(places):
    row = make([(3, "cls", 0), (2, "head", 1)], VIT, CNN)
    settings = {"kind": "linear", "layer": 3, "pool": "joined", "places": places}
    row = replace(row, answered=replace(row.answered, settings=settings))
    assert "?" in layer_of(row)
    assert "?" in pool_of(row)
    assert "?" in layer_from_end(row)
    assert typed_places(row) == ("", "")


def test_encoders_in_words():
    row = make([(3, "cls", 0), (2, "head", 1)], VIT, CNN)
    assert short_name(row.encoded) == "vit (a91f)@112+cnn@224"
    alike = make([(3, "cls", 0), (2, "head", 1)], VIT, ("cnn", 112, 3))
    assert short_name(alike.encoded) == "vit (a91f)+cnn"
    assert sized_name(alike.encoded) == "vit (a91f)@112+cnn@112"
    alone = make([(3, "cls", 0)], VIT)
    assert count_encoders([alone.encoded, row.encoded]) == "1 encoder and 1 join of them"
    assert encoders_of([row.encoded, alike.encoded]) == ("vit (a91f)", "cnn")
    found = StoredRow(row)
    for word in (
        "vit+cnn",
        "vit@112+cnn",
        "vit (a91f)+cnn@224",
        "vit (a91f)@112+cnn@224",
        "cnn+vit@112",
    ):
        assert choose_named([word], [found], model_names) == [found], word
    for word in ("vit", "cnn", "vit@224+cnn", "cnn+cnn"):
        assert choose_named([word], [found], model_names) == [], word


def test_a_row_of_many_encoders_has_few_names():
    parts = [(f"e{i}", 32 + i, 3) for i in range(12)]
    found = StoredRow(make([(2, "cls", i) for i in range(12)], *parts))
    assert len(model_names(found)) < 10
    assert "+".join(f"e{i}" for i in range(12)) in model_names(found)


def contender(*of):
    return Contender((StoredRow(make(*of)),))


def test_side_by_side_is_another_place_and_no_other_way_of_asking():
    single = contender([(3, "cls", 0)], VIT)
    both = contender([(3, "cls", 0), (2, "head", 1)], VIT, CNN)
    every = contender([(n, "cls", 0) for n in range(4)], VIT)
    others = contender([(n, "cls", 0) for n in range(3)], CNN)
    assert single.condition() == both.condition() == every.condition()
    assert [apart.name for apart in differences_of(single, both)] == ["pool"]
    assert [apart.name for apart in differences_of(single, every)] == ["layer"]
    assert differences_of(every, others) == []
    assert describe(every) == "vit, 32 px, linear, layer 0..3 cls"
