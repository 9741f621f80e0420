"""Notes that differ in numbers alone become one."""

import pytest

from probe.report.pages.notes import as_few, joined


@pytest.mark.parametrize(
    ("notes", "said"),
    [
        (["k is 16 of 624", "k is 37 of 546"], "k is 16 to 37 of 546 to 624"),
        (["p is 0.05", "p is 0.5", "p is 0.005"], "p is 0.005 to 0.5"),
        (
            ["chosen among 5, best in 2", "chosen among 12, best in 4"],
            "chosen among 5 or 12, best in 2 to 4",
        ),
        (["9 images", "10 images"], "9 to 10 images"),  # as numbers, not as words
        (["the strength 1 of 2", "the strength 1 of 3"], "the strength 1 of 2 to 3"),
        (["class 3_000 or more", "class 20 or more"], "class 20 to 3_000 or more"),
    ],
)
def test_ranges(notes, said):
    assert set(joined(notes).values()) == {said}
    assert list(joined(notes)) == notes


@pytest.mark.parametrize(
    "notes",
    [
        ["random weights"],
        ["few: class a has 3", "few: class b has 3"],
        ["standardised by wu2025", "standardised by huix2024"],  # part of a name
        ["layer v1.2 of it", "layer v1.3 of it"],
        ["k is 16", "k is 16 %"],
    ],
)
def test_others_stay(notes):
    assert joined([*notes, *notes]) == {note: note for note in notes}


def test_many_complaints_of_one_kind_are_one():
    unread = [f"scans: results/a b/{n}.json: test wasn't read" for n in range(7)]
    other = ["results/x.json: its scores are missing", "toys: no rows"]
    assert as_few([*unread, unread[0], *other]) == [
        "scans: results/a b/0.json and 6 more: test wasn't read",
        *other,
    ]
    assert as_few(unread[:3]) == unread[:3]
