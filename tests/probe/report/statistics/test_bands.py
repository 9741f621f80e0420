"""From columns of metadata to subgroups."""

import numpy as np
import pytest

from cache.errors import RequestError
from probe.report.statistics.bands import UNKNOWN, By, divide, parse_by


@pytest.mark.parametrize(
    ("text", "by"),
    [
        ("meta:sex", By("sex")),
        ("meta:age:40,60", By("age", (40, 60))),
        ("meta:dose:0.5", By("dose", (0.5,))),
    ],
)
def test_what_by_asks_for(text, by):
    assert parse_by(text) == by


@pytest.mark.parametrize("text", ["sex", "meta:", "meta:age:60,40", "meta:age:old", "meta:age:40,"])
def test_what_by_refuses(text):
    with pytest.raises(RequestError, match=r"--by takes a stored column|numbers that ascend"):
        parse_by(text)


@pytest.mark.parametrize("stored", [float, str])
def test_an_edge_begins_the_band_above_it(stored):
    values = np.array([39, 40, 59.5, 60, 80]).astype(stored)
    found = divide(np.r_[values, np.array([np.nan]).astype(stored)], By("age", (40, 60)))
    assert found.names.tolist() == ["<40", "40-60", "40-60", ">=60", ">=60", UNKNOWN]
    assert found.order == ("<40", "40-60", ">=60")
    assert found.rule == "bands of meta:age, edges as asked"


def test_many_numbers_are_divided_by_tertiles_of_train_and_val():
    earlier = np.arange(30.0)
    found = divide(np.arange(20.0, 60), By("age"), earlier)
    assert found.order == (">=19",)  # of test alone they would be others
    assert found.rule == "bands of meta:age, tertiles of train and val"
    assert divide(earlier, By("age"), earlier).order == ("<9", "9-19", ">=19")
    with pytest.raises(RequestError, match="name edges, as in --by meta:age:40,60"):
        divide(earlier, By("age"))


@pytest.mark.parametrize(
    ("values", "order"),
    [
        (["M", "F", " F", "", "NA", "null"], ("F", "M")),
        (["10", "9", "1", "nan"], ("1", "9", "10")),
        ([1.0, 2.0, 1.0, np.nan], ("1", "2")),
        (["", "nan"], ()),
    ],
)
def test_few_values_are_names(values, order):
    found = divide(np.array(values), By("site"))
    assert found.order == order
    assert set(found.names) <= {*order, UNKNOWN}


def test_texts_have_no_edges():
    with pytest.raises(RequestError, match="holds texts such as 'M'"):
        divide(np.array(["M", "F"]), By("sex", (1,)))
