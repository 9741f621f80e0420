"""What A and B mean, and which of their rows belong together."""

import dataclasses
import shlex

import numpy as np
import pytest
from contending import answer, labels_of, scores_of

from cache.errors import RequestError
from probe.report.rows.sides import UNREAD, describe, pair_up, read_side

LABELS = labels_of(30)


def row(model, **about):
    return answer(model, scores_of(LABELS, 1, 0), LABELS, **about)


def pairs(a, b, rows):
    """(A, B) in words of each pair, of one data set."""
    (found,) = pair_up(read_side(a, rows), read_side(b, rows))
    return [(describe(p.a), describe(p.b)) for p in found.pairs], found


@pytest.mark.parametrize(
    ("text", "n"),
    [
        ("vit", 3),
        ("kind=knn", 2),
        ("vit and kind=knn", 1),
        ("vit and kind=knn,ridge", 1),
        ("a tag", 1),
        ("layer>=3 and kind=linear", 2),
    ],
)
def test_a_side_is_an_encoder_a_tag_or_conditions(text, n):
    rows = [row("vit"), row("vit", kind="knn"), row("vit", seed=1), row("lite", kind="knn")]
    rows[2] = dataclasses.replace(rows[2], content={"names": ["a tag"]})
    assert len(read_side(text, rows).rows) == n


def test_a_row_is_named_by_file_stem_or_start_of_its_id(tmp_path):
    path = tmp_path / "toys" / "vit_32.json"
    path.parent.mkdir()
    path.touch()
    rows = [row("vit"), row("lite")]
    rows[1] = dataclasses.replace(rows[1], path=path)
    for text in (str(path), "vit_32.json", "vit_32", rows[1].id[:6]):
        side = read_side(text, rows)
        assert (side.rows, side.is_free) == ((rows[1],), True)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("vti", "near names: vit"),
        ("nothing", "encoders are lite, vit"),
        ("kind=ridge", "no row is kind=ridge"),
        ("knd=knn", "no field 'knd'"),
    ],
)
def test_what_nothing_is_called_is_refused(text, says):
    with pytest.raises(RequestError, match=says):
        read_side(text, [row("vit"), row("lite")])


def test_encoders_pair_where_they_were_asked_alike():
    rows = [row("vit"), row("lite"), row("vit", kind="knn", k=5), row("lite", kind="knn", k=5)]
    rows += [row("lite", kind="knn", k=20)]
    found, of = pairs("vit", "lite", rows)
    assert [(a.split(", ")[2:4], b.split(", ")[2:4]) for a, b in found] == [
        (["linear", "layer 3 cls"], ["linear", "layer 3 cls"]),
        (["knn", "k 5"], ["knn", "k 5"]),
    ]
    assert of.left_out == ("other in k",)


def test_sizes_agree_where_they_can_and_are_named_where_they_cannot():
    rows = [row("vit", size=224), row("vit", size=112), row("lite", size=224)]
    _, of = pairs("vit", "lite", rows)
    assert [p.apart for p in of.pairs] == [()]
    _, of = pairs("vit", "lite", rows[1:])
    assert [str(d) for p in of.pairs for d in p.apart] == ["size 112 and 224"]


@pytest.mark.parametrize(
    ("a", "b", "rows"),
    [
        ("kind=knn", "kind=linear", [row("vit", kind="knn", k=5, vote="weighted"), row("vit")]),
        ("size=32", "size=64", [row("vit"), row("vit", size=64)]),
        ("layer=3", "layer=1", [row("vit"), row("vit", layer=1)]),
        ("probe.k=5", "probe.k=9", [row("vit", kind="knn", k=5), row("vit", kind="knn", k=9)]),
    ],
)
def test_what_the_sides_name_may_differ(a, b, rows):
    found, of = pairs(a, b, rows)
    assert len(found) == 1
    assert of.pairs[0].apart == ()


def test_kinds_pair_encoder_by_encoder():
    rows = [row(model, kind=kind) for model in ("vit", "deit") for kind in ("knn", "linear")]
    found, _ = pairs("kind=knn", "kind=linear", rows)
    assert [(a[:4], b[:4]) for a, b in found] == [("vit,", "vit,"), ("deit", "deit")]


def test_averages_say_by_which_weights():
    rows = [row("vit"), *(row("vit", kind="stack", weights=w) for w in ("equal", "stacked"))]
    found, _ = pairs("kind=linear", "kind=stack", rows)
    assert ["equal weights" in b for _, b in found] == [True, False]
    assert len(pairs("averaging=equal", "averaging=stacked", rows)[0]) == 1


def test_other_questions_do_not_pair_and_it_says_why():
    found, of = pairs("vit", "lite", [row("vit"), row("lite", kind="knn", k=5)])
    assert not found
    assert "vit, 32 px, linear" in of.lacking
    assert "differ in kind linear and knn" in of.lacking


def fold(model, k, n=5):
    split = {"rule": f"kfold:{n}", "seed": 0, "name": f"fold {k}/{n}", "of": n, "digest": f"{k}"}
    return row(model, split=split, ids=np.array([f"{k}/{i}" for i in range(30)]))


def episodes(model, **few_shot):
    few_shot = {"shots": 5, "episodes": 2, "digest": "d", **few_shot}
    return answer(model, scores_of(LABELS, 1, 0, episodes=2), LABELS, few_shot=few_shot)


@pytest.mark.parametrize(
    ("rows", "suggested"),
    [
        ([row("vit"), row("lite", kind="knn", k=5)], None),
        (
            [row("vit", kind="knn", k=5, vote="a"), row("lite", kind="knn", k=7, vote="b")],
            '"vit and k=5 and probe.vote=a" "lite and k=7 and probe.vote=b"',
        ),
        ([row("vit", penalty="l1"), row("lite")], '"vit and probe.penalty=l1" "lite and probe.penalty="'),
        ([episodes("vit"), episodes("lite", shots=10)], '"vit and shots=5" "lite and shots=10"'),
        (
            [episodes("vit", draw="x"), episodes("lite", draw="y")],
            '"vit and probe.few_shot.draw=x" "lite and probe.few_shot.draw=y"',
        ),
        ([row("vit"), *(row("lite", training_seed=s) for s in (0, 1))], ""),
        ([fold("vit", 1), fold("vit", 2), fold("lite", 1)], ""),
        ([fold("vit", 1), fold("lite", 2)], ""),
    ],
)  # fmt: skip
def test_a_suggested_command_pairs_them_and_what_no_condition_says_suggests_none(rows, suggested):
    found, of = pairs("vit", "lite", rows)
    assert not found
    assert "ask one as the other" in of.lacking
    _, _, command = of.lacking.partition("`report compare ")
    if suggested is not None:
        assert command.removesuffix("`") == suggested
    if command:
        sides = shlex.split(command.removesuffix("`"))
        assert len(pairs(*sides, rows)[0]) == 1


def unread(of):
    measured = dataclasses.replace(of.row.measured, test={})
    return dataclasses.replace(of, row=dataclasses.replace(of.row, measured=measured))


def test_rows_that_have_not_read_test_are_in_no_pair():
    rows = [row("vit"), row("lite"), unread(row("vit", layer=5)), unread(row("lite", layer=5))]
    found, of = pairs("vit", "lite", rows)
    assert len(found) == 1
    assert of.left_out == (UNREAD, UNREAD)
    found, of = pairs("vit", "lite", [rows[0], rows[3]])
    assert not found
    assert of.lacking == "no row of lite has read test"


def test_blocks_do_not_pair():
    other = row("lite", samples={"labels": 9, "split": 2})
    found, of = pairs("vit", "lite", [row("vit"), other])
    assert not found
    assert "other labels of toys" in of.lacking


def test_a_data_set_of_one_side_alone_is_a_gap():
    rows = [row("vit"), row("lite"), row("vit", dataset="more")]
    found = pair_up(read_side("vit", rows), read_side("lite", rows))
    assert [(of.dataset, len(of.pairs), of.lacking) for of in found] == [
        ("toys", 1, ""),
        ("more", 0, "no row of lite"),
    ]


def test_the_same_rows_are_no_pair_and_no_pair_is_there_twice():
    rows = [row("vit"), row("lite")]
    assert not pairs("vit", "vit", rows)[0]
    assert len(pairs("kind=linear", "kind=linear and size=32", rows)[0]) <= 1
    assert np.isfinite(rows[0].row.measured.test["auc"].value)
