"""Splits by rule: exact shares, whole groups, the same on every machine; and splits as files."""

import csv
from fractions import Fraction

import numpy as np
import pytest

from cache.errors import RequestError
from cache.splits.files import read_split_file, write_split_file
from cache.splits.make import (
    LEFT_OUT,
    TEST,
    TRAIN,
    VAL,
    continue_split,
    divided_groups,
    make_splits,
    split_digest,
    systematic,
)
from cache.splits.rules import Drawn, SplitRule
from cache.splits.strata import apportion, assign_units, divide
from cache.task import BINARY, MULTI_CLASS, MULTI_LABEL


def make_ids(n):
    return np.array([f"{i:06d}.png" for i in range(n)])


def split_of(text, labels, task=MULTI_CLASS, ids=None, **more):
    (named,) = make_splits(
        SplitRule.parse(text), make_ids(len(labels)) if ids is None else ids, labels, task, **more
    )
    return named.split


def largest_remainder(n, shares):
    """By hand, in whole numbers: the seats of a parliament."""
    whole = sum(shares)
    seats = [n * share // whole for share in shares]
    rest = sorted(range(len(shares)), key=lambda p: (-(n * shares[p] % whole), p))
    for p in rest[: n - sum(seats)]:
        seats[p] += 1
    return seats


# ---------------------------------------------------------------------------- rules as typed


@pytest.mark.parametrize(
    "text",
    [
        "80/10/10",
        "80/20",
        "100/0/0",
        "kfold:5",
        "kfold:5:2",
        "site-out:hospital",
        "site-out:hospital=St. Mary",
        "systematic:70,50",
        "systematic:70,0",
        "test",
    ],
)
def test_a_rule_says_itself_as_it_is_typed(text):
    rule = SplitRule.parse(text)
    again = SplitRule.parse(str(rule))
    assert again == rule
    assert str(again) == str(rule)
    assert str(rule) == ("100/0" if text == "100/0/0" else text)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("80/30", "sum to 100"),
        ("100", "sum to 100"),
        ("70/10/10/10", "sum to 100"),
        ("80/10/ten", "a split is one of"),
        ("-10/100/10", "a split is one of"),
        ("٨٠/٢٠", "a split is one of"),
        ("", "a split is one of"),
        ("kfold", "a split is one of"),
        ("kfold:2", "3 folds and more"),
        ("kfold:5:1:1", "3 folds and more"),
        ("kfold:5:0", "numbered 1 to 5"),
        ("kfold:5:6", "numbered 1 to 5"),
        ("systematic:70", "number of test samples"),
        ("systematic:0,50", "number of test samples"),
        ("site-out:", "a split is one of"),
        ("test:1", "a split is one of"),
        ("random", "a split is one of"),
    ],
)
def test_other_rules_are_refused(text, reason):
    with pytest.raises(RequestError, match=reason):
        SplitRule.parse(text)


# ---------------------------------------------------------------------------- by shares


def test_shares_are_those_of_the_largest_remainder():
    """Of all samples, whatever the classes are; and of every class nearly."""
    rng = np.random.default_rng(0)
    for _ in range(300):
        shares = rng.multinomial(100, [0.7, 0.15, 0.15]).tolist()
        if 0 in shares:
            continue
        counts = (20 + rng.pareto(1, rng.integers(1, 9)) * 50).astype(int).tolist()
        quotas = np.array(apportion(counts, shares))
        assert quotas.sum(axis=1).tolist() == counts
        assert quotas.sum(axis=0).tolist() == largest_remainder(sum(counts), shares)
        assert np.abs(quotas - np.outer(counts, shares) / 100).max() < 2


def test_small_classes_are_in_every_part_that_can_hold_them():
    quotas = np.array(apportion([3, 3, 4, 500], [80, 10, 10]))
    assert (quotas > 0).all()
    assert quotas.sum(axis=0).tolist() == [408, 51, 51]
    crowded = np.array(apportion([3] * 40, [80, 10, 10]))  # no room for 40 in a tenth of 120
    assert crowded.sum(axis=0).tolist() == [96, 12, 12]


def test_classes_keep_their_shares():
    labels = np.repeat([0, 1, 2], [700, 200, 100])
    split = split_of("80/10/10", labels)
    for c, n in enumerate([700, 200, 100]):
        assert np.bincount(split[labels == c]).tolist() == [n * 8 // 10, n // 10, n // 10]
    assert np.bincount(split_of("80/20", labels), minlength=3).tolist() == [800, 0, 200]
    assert (split_of("test", labels) == TEST).all()


def test_a_split_is_the_same_everywhere_and_forever():
    """Pinned: a change of it would change every number that was made with it."""
    labels = np.arange(100) % 3
    split = split_of("80/10/10", labels)
    assert split_digest(make_ids(100), split) == (
        "0009795f59b4324f210b6000e98a0951fb668d1f18ec88f20fadb983f10eff0c"
    )
    groups = np.array([f"p{i // 3}" for i in range(100)])
    split = split_of("70/15/15", labels, groups=groups, seed=1)
    assert split_digest(make_ids(100), split) == (
        "1dc4a9b0a7c9822a5d23e1772d3251b8b45eaea213934b937b324242f288b715"
    )


def cases(n=400):
    rng = np.random.default_rng(1)
    groups = np.array([f"p{i}" for i in rng.integers(0, 90, n)])
    groups[:20] = ""  # of nobody
    several = rng.integers(-1, 2, (n, 5))
    continuous = rng.normal(size=n)
    continuous[:9] = np.nan
    single = rng.choice(4, n, p=[0.6, 0.3, 0.07, 0.03]) - 1  # -1: missing
    for task, labels in [
        (MULTI_CLASS, single),
        (MULTI_LABEL, several),
        ("regression", continuous),
    ]:
        yield task, labels, None
        yield task, labels, groups


@pytest.mark.parametrize(("task", "labels", "groups"), list(cases()))
def test_the_order_of_rows_means_nothing_and_the_seed_much(task, labels, groups):
    ids, order = make_ids(len(labels)), np.random.default_rng(2).permutation(len(labels))
    for rule in ("80/10/10", "kfold:4:2"):
        split = split_of(rule, labels, task, ids, groups=groups)
        moved = None if groups is None else groups[order]
        again = split_of(rule, labels[order], task, ids[order], groups=moved)
        np.testing.assert_array_equal(again, split[order])
        other = split_of(rule, labels, task, ids, groups=groups, seed=1)
        assert (other != split).any()


@pytest.mark.parametrize(("task", "labels", "groups"), list(cases()))
def test_shares_are_near_whatever_the_labels(task, labels, groups):
    split = split_of("80/10/10", labels, task, groups=groups)
    np.testing.assert_allclose(np.bincount(split) / len(split), [0.8, 0.1, 0.1], atol=0.02)
    if task == MULTI_LABEL:
        positive = [[(labels[split == s, c] == 1).sum() for s in range(3)] for c in range(5)]
        shares = np.array(positive) / (labels == 1).sum(axis=0)[:, None]
        np.testing.assert_allclose(shares, [[0.8, 0.1, 0.1]] * 5, atol=0.03)
    if task == "regression":
        means = [np.nanmean(labels[split == s]) for s in range(3)]
        assert np.ptp(means) < 0.3


@pytest.mark.parametrize(
    ("task", "labels", "groups"), [case for case in cases() if case[2] is not None]
)
def test_a_group_is_never_divided(task, labels, groups):
    for rule in ("80/10/10", "80/20", "kfold:5:1"):
        split = split_of(rule, labels, task, groups=groups)
        for group in np.unique(groups[groups != ""]):
            assert len(np.unique(split[groups == group])) == 1
    assert len(np.unique(split_of("80/10/10", labels, task, groups=groups)[groups == ""])) > 1


def slow_assignment(sizes, counts, shares, order):
    """As assign_units says it: every distance from scratch, in fractions."""
    table = np.column_stack([sizes, counts]).astype(object)
    totals, whole = table.sum(axis=0), sum(shares)
    part: list[int | None] = [None] * len(table)

    def held(p):
        return table[[u for u in range(len(table)) if part[u] == p]].sum(axis=0)

    def distance():
        wrong = Fraction(0)
        for p, share in enumerate(shares):
            for has, total in zip(held(p), totals, strict=True):
                ideal = Fraction(share, whole)
                wrong += (Fraction(has, max(total, 1)) - ideal) ** 2 / ideal if total else 0
        return wrong

    def has_room(u, p):
        return whole * (held(p)[0] + table[u][0]) <= shares[p] * totals[0]

    def cost(u, p):
        part[u] = p
        found, part[u] = distance(), None
        return found

    place = {u: i for i, u in enumerate(order)}
    parts = range(len(shares))
    for c in sorted(range(1, len(totals)), key=lambda c: (totals[c], c)):
        holders = sorted(np.flatnonzero(counts[:, c - 1]), key=lambda u: (sizes[u], place[u]))
        if len(holders) < len(shares):
            continue
        for p in sorted(parts, key=lambda p: shares[p]):
            if not held(p)[c]:
                left = [u for u in holders if part[u] is None]
                if left:
                    holders = holders[holders.index(left[0]) + 1 :]
                    if has_room(left[0], p):
                        part[left[0]] = p
    rarest = [min([totals[c + 1] for c in np.flatnonzero(row)] or [totals[0]]) for row in counts]
    for u in sorted(range(len(table)), key=lambda u: (-sizes[u], rarest[u], place[u])):
        if part[u] is None:
            fitting = [p for p in parts if has_room(u, p)]
            part[u] = min(fitting or parts, key=lambda p: cost(u, p))
    return part


@pytest.mark.parametrize("seed", range(6))
def test_groups_go_where_they_are_lacked_most(seed):
    rng = np.random.default_rng(seed)
    n_units = 40
    sizes = rng.integers(1, 12, n_units)
    counts = rng.multinomial(1, [0.5, 0.3, 0.15, 0.05], n_units) * sizes[:, None]
    if seed % 2:  # several labels of single samples
        sizes = np.ones(n_units, np.int64)
        counts = (rng.random((n_units, 4)) < [0.4, 0.3, 0.1, 0.05]).astype(np.int64)
    shares = [[80, 10, 10], [1, 1, 1, 1]][seed // 3]
    order = rng.permutation(n_units)
    expected = slow_assignment(sizes, counts, shares, order.tolist())
    assert assign_units(sizes, counts, shares, order).tolist() == expected


def test_large_groups_do_not_upset_the_shares():
    groups = np.repeat([f"p{i}" for i in range(44)], [100, 80, 60, 40, *[10] * 40])
    labels = np.arange(len(groups)) % 2
    parts = divide([80, 10, 10], make_ids(len(groups)), labels, groups)
    np.testing.assert_allclose(np.bincount(parts) / len(parts), [0.8, 0.1, 0.1], atol=0.01)


def test_a_rare_class_is_in_every_part_that_has_a_group_for_it():
    groups = np.repeat([f"p{i}" for i in range(100)], 5)
    labels = np.zeros(500, np.int64)
    labels[[3, 101, 222]] = 1  # three patients
    split = split_of("80/10/10", labels, BINARY, groups=groups)
    assert sorted(split[labels == 1].tolist()) == [TRAIN, VAL, TEST]
    np.testing.assert_allclose(np.bincount(split), [400, 50, 50], atol=5)


def test_classes_too_small_are_named():
    labels = np.repeat([0, 1], [50, 2])
    (named,) = make_splits(
        SplitRule.parse("80/10/10"), make_ids(52), labels, BINARY, class_names=("rest", "rare")
    )
    assert named.notes == ("rare has 2 samples, too few for each of 3 parts",)
    with pytest.raises(RequestError, match="divides into 5, and there are 3 samples"):
        split_of("kfold:5", np.arange(3))
    with pytest.raises(RequestError, match="divides into 3, and there are 2 groups"):
        split_of("80/10/10", labels, groups=np.repeat(["a", "b"], 26))


# ---------------------------------------------------------------------------- folds


@pytest.mark.parametrize("n_folds", [3, 5, 300])  # 300: more than a byte counts
def test_every_sample_tests_once_and_chooses_once(n_folds):
    labels = np.arange(620) % 3
    splits = make_splits(SplitRule.parse(f"kfold:{n_folds}"), make_ids(620), labels, MULTI_CLASS)
    assert [named.name for named in splits] == [f"fold {i + 1}/{n_folds}" for i in range(n_folds)]
    table = np.stack([named.split for named in splits])
    assert ((table == TEST).sum(axis=0) == 1).all()
    assert ((table == VAL).sum(axis=0) == 1).all()
    for i in range(n_folds):
        np.testing.assert_array_equal(table[i] == VAL, table[(i + 1) % n_folds] == TEST)
    sizes = (table == TEST).sum(axis=1)
    assert sizes.max() - sizes.min() <= 1
    (one,) = make_splits(SplitRule.parse(f"kfold:{n_folds}:2"), make_ids(620), labels, MULTI_CLASS)
    np.testing.assert_array_equal(one.split, table[1])


# ---------------------------------------------------------------------------- systematic


def test_systematic_is_the_papers_expression():
    """Baharoon et al. 2023: wherever theirs stays within the data, ours is theirs."""
    for n in range(1, 120):
        for k in range(1, n + 1):
            theirs = np.arange(0, n, n / k).round().astype(int)
            ours = systematic(n, k)
            assert len(ours) == len(set(ours)) == k
            assert ours.max() < n
            np.testing.assert_array_equal(ours, theirs[:k])
    np.testing.assert_array_equal(systematic(210, 70), np.arange(0, 210, 3))
    assert len(systematic(140, 50)) == 50  # arange(0, 140, 2.8)
    with pytest.raises(RequestError, match="4 of 3"):
        systematic(3, 4)


def test_a_systematic_split_goes_by_id_and_by_group():
    order = np.random.default_rng(0).permutation(210)
    ids = make_ids(210)[order]
    split = split_of("systematic:70,50", np.zeros(210, np.int64), ids=ids)
    by_id = split[np.argsort(ids)]
    np.testing.assert_array_equal(np.flatnonzero(by_id == TEST), np.arange(0, 210, 3))
    rest = np.flatnonzero(by_id != TEST)
    chosen = rest[np.arange(0, 140, 2.8).round().astype(int)]
    np.testing.assert_array_equal(np.flatnonzero(by_id == VAL), chosen)

    groups = np.array([f"p{i // 7:02d}" for i in range(210)])
    split = split_of("systematic:10,5", np.zeros(210, np.int64), groups=groups)
    assert {*groups[split == TEST]} == {f"p{i:02d}" for i in range(0, 30, 3)}
    assert (split == VAL).sum() == 35
    with pytest.raises(RequestError, match="leaves none of 30 groups to train"):
        split_of("systematic:20,10", np.zeros(210, np.int64), groups=groups)
    groups[:70] = ""  # nobody's samples are 70, not one patient's
    split = split_of("systematic:45,9", np.zeros(210, np.int64), groups=groups)
    assert [(split[:70] == part).sum() for part in (TRAIN, VAL, TEST)] == [28, 7, 35]


# ---------------------------------------------------------------------------- sites


def sites(column, **more):
    labels = np.arange(len(column)) % 2
    rule = SplitRule.parse(more.pop("rule", "site-out:site"))
    return make_splits(rule, make_ids(len(column)), labels, BINARY, meta={"site": column}, **more)


def test_each_site_tests_in_turn():
    column = np.repeat(["B", "A", "C"], 40)
    splits = sites(column)
    assert [named.name for named in splits] == ["site A", "site B", "site C"]
    for named in splits:
        value = named.name.removeprefix("site ")
        np.testing.assert_array_equal(named.split == TEST, column == value)
        assert np.bincount(named.split).tolist() == [72, 8, 40]
    (one,) = sites(column, rule="site-out:site=B")
    np.testing.assert_array_equal(one.split, splits[1].split)


def test_what_can_not_be_on_one_side_of_a_site_is_left_out():
    column = np.repeat(["A", "B", ""], [30, 30, 4])
    groups = np.array([f"p{i}" for i in range(64)])
    groups[[0, 30, 31]] = "moved"  # one image at A, two at B
    a, b = sites(column, groups=groups)
    assert (a.split[60:] == LEFT_OUT).all()
    assert a.split[[0, 30, 31]].tolist() == [TEST, LEFT_OUT, LEFT_OUT]
    assert b.split[[0, 30, 31]].tolist() == [LEFT_OUT, TEST, TEST]
    assert a.notes == (
        "4 samples without site are left out",
        "2 samples elsewhere of groups that are also at A are left out",
    )


def test_sites_may_be_numbers():
    column = np.repeat([2.0, 10.0, np.nan, 1.5], [20, 20, 3, 20])
    assert {named.name for named in sites(column)} == {"site 2", "site 10", "site 1.5"}
    (one,) = sites(column, rule="site-out:site=10")
    np.testing.assert_array_equal(one.split == TEST, column == 10)


@pytest.mark.parametrize(
    ("column", "rule", "reason"),
    [
        (["A", "B"], "site-out:hospital", "no meta column 'hospital' .*; there is site"),
        (["A", "B"], "site-out:site=D", "site has no 'D'; it has A, B"),
        (["A", ""], "site-out:site", "two sites and more"),
    ],
)
def test_unknown_sites_are_refused(column, rule, reason):
    with pytest.raises(RequestError, match=reason):
        sites(np.repeat(column, 20), rule=rule)


# ---------------------------------------------------------------------------- digests and files


def test_a_digest_is_of_the_split_and_of_nothing_else():
    ids, split = make_ids(30), np.arange(30, dtype=np.uint8) % 3
    order = np.random.default_rng(0).permutation(30)
    assert split_digest(ids, split) == split_digest(ids[order], split[order])
    changed = split.copy()
    changed[7] = LEFT_OUT
    assert split_digest(ids, changed) != split_digest(ids, split)
    assert split_digest(np.delete(ids, 7), np.delete(split, 7)) == split_digest(ids, changed)


def test_a_file_keeps_a_split(tmp_path):
    ids = np.array(["a, b", 'c"d', "é/1.png", "later", "out"])
    split = np.array([TEST, TRAIN, VAL, TRAIN, LEFT_OUT], np.uint8)
    path = tmp_path / "split.csv"
    write_split_file(path, ids[::-1], split[::-1], "toys")
    with path.open(encoding="utf-8", newline="") as file:
        assert list(csv.reader(file)) == [
            ["id", "split", "dataset"],
            ["a, b", "test", "toys"],
            ['c"d', "train", "toys"],
            ["later", "train", "toys"],
            ["é/1.png", "val", "toys"],
        ]
    np.testing.assert_array_equal(read_split_file(path, ids, "toys"), split)
    assert [p.name for p in tmp_path.iterdir()] == ["split.csv"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("id,split\na,train\nb,tset\n", "line 3, column split: 'tset' is none of train, val, test"),
        ("id,split\na,train\na,val\n", "line 3, column id: 'a' stands there twice"),
        ("id,split\na,train\nx,val\ny,val\n", r"names 2 samples that aren't there \('x' in line 3"),
        ("name,split\na,train\n", "no column 'id'"),
        ("id,set\na,train\n", "no column 'split'"),
    ],
)
def test_other_files_are_refused(tmp_path, text, reason):
    path = tmp_path / "split.csv"
    path.write_text(text)
    with pytest.raises(RequestError, match=reason):
        read_split_file(path, np.array(["a", "b"]), "toys")


def test_what_a_file_does_not_name_is_left_out(tmp_path):
    path = tmp_path / "split.csv"
    path.write_text("split,id,reader\nval,c,Dr. A\n,b,Dr. B\n")
    found = read_split_file(path, np.array(["a", "b", "c"]), "toys")
    assert found.tolist() == [LEFT_OUT, LEFT_OUT, VAL]
    with pytest.raises(RequestError, match="can't write the split to .*no/split.csv"):
        write_split_file(tmp_path / "no" / "split.csv", make_ids(1), np.zeros(1, np.uint8), "toys")


def test_the_ids_of_another_data_set_are_refused(tmp_path):
    """Many begin with the same, as MedMNIST's do."""
    path = tmp_path / "split.csv"
    ids = np.array(["train/0", "train/1"])
    write_split_file(path, ids, np.array([TRAIN, TEST], np.uint8), "toys")
    with pytest.raises(
        RequestError, match="line 2: these are ids of toys, and dolls is asked.*tak"
    ):
        read_split_file(path, ids, "dolls")
    path.write_text("id,split,dataset\ntrain/0,train,\ntrain/1,test,dolls\n")  # empty: nobody knows
    assert read_split_file(path, ids, "dolls").tolist() == [TRAIN, TEST]
    with pytest.raises(RequestError, match="line 3: these are ids of dolls"):
        read_split_file(path, ids, "toys")


def test_an_accent_may_be_a_character_of_its_own(tmp_path):
    path = tmp_path / "split.csv"
    path.write_text("id,split\ne\u0301,test\na\u0301,val\n", encoding="utf-8")
    assert read_split_file(path, np.array(["\xe1", "\xe9"]), "toys").tolist() == [VAL, TEST]
    # Ids that are written so themselves are found as they are.
    assert read_split_file(path, np.array(["a\u0301", "e\u0301"]), "toys").tolist() == [VAL, TEST]
    path.write_text("id,split\ne\u0301,test\n\xe9,val\n", encoding="utf-8")
    with pytest.raises(RequestError, match="line 3, column id: 'é' stands there twice"):
        read_split_file(path, np.array(["\xe9"]), "toys")


# ---------------------------------------------------------------------------- kept, and continued


def continued(rule, split, n_new, labels, groups=None, seed=0):
    """A split of the first samples, and what becomes of so many more."""
    ids = make_ids(len(labels))
    earlier = np.append(split, np.full(n_new, LEFT_OUT, np.uint8))
    return continue_split(Drawn(SplitRule.parse(rule), seed), earlier, ids, labels, groups)


LABELS_OF = {
    "classes": lambda rng, n: rng.choice(4, n, p=[0.5, 0.3, 0.15, 0.05]),
    "several labels": lambda rng, n: (rng.random((n, 3)) < [0.5, 0.2, 0.1]).astype(np.int64),
    "continuous": lambda rng, n: rng.normal(size=n),
}
TASKS = {"classes": MULTI_CLASS, "several labels": MULTI_LABEL, "continuous": "regression"}


@pytest.mark.parametrize("kind", LABELS_OF)
@pytest.mark.parametrize("with_groups", [False, True])
@pytest.mark.parametrize(
    ("rule", "shares"), [("80/10/10", (8, 1, 1)), ("kfold:5:2", (3, 1, 1)), ("80/20", (4, 0, 1))]
)
def test_who_was_divided_stays_and_what_is_new_fills_the_shares(kind, with_groups, rule, shares):
    rng = np.random.default_rng(1)
    n, n_new = 300, 100
    labels = LABELS_OF[kind](rng, n + n_new)
    groups = np.array([f"p{i // 4}" for i in range(n + n_new)]) if with_groups else None
    first = split_of(rule, labels[:n], TASKS[kind], groups=groups[:n] if with_groups else None)
    changed = labels.copy()
    changed[:9] = labels[9:18]  # corrected labels move nobody
    split = continued(rule, first, n_new, changed, groups)
    assert split[:n].tolist() == first.tolist()
    assert not divided_groups(split, groups).any()
    wanted = np.array(shares) / sum(shares) * (n + n_new)
    assert np.abs(np.bincount(split, minlength=3) - wanted).max() <= (6 if with_groups else 2)
    if kind == "classes" and not with_groups:
        for c in range(4):  # stratified: of each class
            found = np.bincount(split[changed == c], minlength=3)
            assert np.abs(found - np.array(shares) / sum(shares) * found.sum()).max() <= 4


def test_images_that_come_one_by_one_fill_the_shares_too():
    """Each alone would round to train."""
    labels = np.arange(140) % 2
    split = split_of("80/10/10", labels[:40])
    for n in range(41, 141):
        longer = continued("80/10/10", split, 1, labels[:n])
        assert longer[:-1].tolist() == split.tolist()
        split = longer
    assert np.bincount(split).tolist() == [112, 14, 14]


def test_a_new_image_follows_its_patient_and_a_divided_one_is_drawn_anew():
    labels = np.arange(12) % 2
    groups = np.array(["a", "a", "b", "b", "c", "d", "e", "f", "g", "", "", "c"])
    first = np.array([TEST, TEST, VAL, VAL, TEST, *[TRAIN] * 6], np.uint8)
    split = continued("80/10/10", first, 1, labels, groups)
    assert split[11] == TEST  # as the other image of c
    assert split[:11].tolist() == first.tolist()
    groups[1] = "b"  # somebody corrected whose it is: one of b in test, two in val
    assert divided_groups(first, groups[:11]).nonzero()[0].tolist() == [1, 2, 3]
    split = continued("80/10/10", first, 1, labels, groups)
    assert len({*split[[1, 2, 3]].tolist()}) == 1
    others = [0, *range(4, 11)]
    assert split[others].tolist() == first[others].tolist()


def test_chance_is_of_the_seed_and_not_of_the_order_of_rows():
    rng = np.random.default_rng(0)
    labels, ids = rng.integers(0, 3, 90), make_ids(90)
    first = np.append(split_of("80/10/10", labels[:50]), np.full(40, LEFT_OUT, np.uint8))
    drawn = Drawn(SplitRule.parse("80/10/10"), 0)
    split = continue_split(drawn, first, ids, labels)
    order = rng.permutation(90)
    assert np.array_equal(
        continue_split(drawn, first[order], ids[order], labels[order]), split[order]
    )
    other = continue_split(Drawn(drawn.rule, 1), first, ids, labels)
    assert not np.array_equal(other, split)


@pytest.mark.parametrize(
    ("notes", "found"),
    [
        ({}, None),
        ({"data": ["split: the owner's", "3 files"]}, None),
        ({"drawn_split": {"rule": "70/15/15", "seed": 3}}, "70/15/15, seed 3"),
        # As files say it that were made before the note was.
        ({"data": ["split: 80/10/10 by image, seed 0 (the owner has none)"]}, "80/10/10, seed 0"),
        ({"data": ["x", "split: kfold:5:1 by patient, seed 7 (as asked)"]}, "kfold:5:1, seed 7"),
    ],
)
def test_notes_tell_how_a_split_was_drawn(notes, found):
    drawn = Drawn.read(notes)
    assert (drawn and str(drawn)) == found
    assert drawn is None or Drawn.read({"drawn_split": drawn.note}) == drawn
