"""Tables as users have them, and the labels in their columns."""

import csv
import shlex
from pathlib import Path

import numpy as np
import pytest

from cache.errors import RequestError
from cache.labels.columns import class_target, read_label, read_target
from cache.labels.tables import column, is_number, read_csv
from cache.labels.target import (
    Target,
    apply_uncertain,
    describe_target,
    select_label,
    warn_of_classes,
)
from cache.task import ASKED, MISSING, TASKS, UNCERTAIN


def write(tmp_path: Path, content: bytes | str) -> Path:
    path = tmp_path / "t.csv"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


# ---------------------------------------------------------------------------- tables


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_a_table_is_what_the_csv_module_reads(tmp_path, delimiter, end, mark):
    rows = [
        ["path", "Befund, kurz", "n"],
        ["ä.png", "Ödem", "1"],
        ["b c.png", f"zwei{end}Zeilen", "2"],
        ["", '"', ""],
    ]
    path = tmp_path / "t.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, delimiter=delimiter, lineterminator=end).writerows(rows)
    path.write_bytes(mark + path.read_bytes())
    table = read_csv(path)
    assert list(table.columns) == rows[0]
    assert [list(row) for row in zip(*table.columns.values(), strict=True)] == rows[1:]
    assert table.lines == (2, 3, 5)  # the third row begins behind a cell of two lines
    assert table.n_rows == 3


def test_cells_are_stripped_and_blank_lines_passed_over(tmp_path):
    table = read_csv(write(tmp_path, "\n a , b\n 1 ,  \n\n   \n2,3\n\n"))
    assert table.columns == {"a": ("1", "2"), "b": ("", "3")}
    assert table.lines == (3, 6)


@pytest.mark.parametrize(
    ("text", "columns"),
    [
        ("a,b,\n1,2,\n", {"a": ("1",), "b": ("2",)}),  # a delimiter at every line's end
        ('"a,b,c";d\n1,5;2\n', {"a,b,c": ("1,5",), "d": ("2",)}),  # as it is outside of quotes
        # A column that numbers the rows: of DataFrame.to_csv, of some of its rows, of R.
        (",a,b\n0,x,1\n1,y,2\n2,z,3\n", {"a": ("x", "y", "z"), "b": ("1", "2", "3")}),
        (";a;b\n0;x;1\n2;z;3\n", {"a": ("x", "z"), "b": ("1", "3")}),
        ('"","a"\n"1","x"\n"2","y"\n', {"a": ("x", "y")}),
        (",a,\n0,x,\n1,y,\n", {"a": ("x", "y")}),
    ],
)
def test_what_is_no_column_is_passed_over(tmp_path, text, columns):
    assert read_csv(write(tmp_path, text)).columns == columns


@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("first", ["sep=;", "SEP=;", '"sep=;"'])
def test_the_delimiter_that_excel_is_told(tmp_path, first, end, mark):
    table = read_csv(write(tmp_path, mark + end.join([first, "a,b,c;d", "1,5;2", ""])))
    assert table.columns == {"a,b,c": ("1,5",), "d": ("2",)}
    assert table.lines == (3,)
    tabs = read_csv(write(tmp_path, f"sep=\t{end}a,b\tc{end}1\t2{end}"))
    assert tabs.columns == {"a,b": ("1",), "c": ("2",)}
    below = read_csv(write(tmp_path, mark + end.join(["", first, "a;b", "1;2", ""])))
    assert below.columns == {"a": ("1",), "b": ("2",)}
    assert below.lines == (4,)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is empty; a table begins with a line of column names"),
        (b"\n\n", "is empty"),
        (b"a,b\n", "has 0 rows"),
        (b"1,2\n3,4\n", "line 1: no header .found 1, 2."),
        (b"a,a\n1,2\n", "line 1: two columns are named 'a'"),
        (b"sep=;\na;a\n1;2\n", "line 2: two columns are named 'a'"),
        (b",\n1,\n2,\n", "line 1: no header"),
        (b"a,,c\n1,2,3\n", "line 1: column 2 has no name"),
        (b",b\nx,2\ny,3\n", "line 1: column 1 has no name"),
        (b",b\n1,2\n1,3\n", "line 1: column 1 has no name"),
        (b"a,b,\n1,2,3\n", "line 1: column 3 has no name"),
        (
            b"a,b\n1,2\n\n3\n",
            "line 4: expected 2 cells as in the header, found 1: none in column 'b'",
        ),
        (b"a,b\n1,2,3\n", "line 2: expected 2 cells .* found 3: '3' stands behind column 'b'"),
        (b"a,b\n1,2\n3,\xe4\n", "line 3: not UTF-8 .byte 0xe4."),
        (b"\xef\xbb\xbfa\n\n\xff\n", "line 3: not UTF-8"),
        ("a,b\n1,2\n".encode("utf-16"), "line 1: not UTF-8"),
        (b"a,b\n1,\x002\n", "line 2: a NUL byte"),
        (b'a,b\n1,2\n3,"4\n5,6\n', "line 3: unexpected end of data; is a quote left open"),
    ],
)
def test_bad_tables_are_refused_by_line(tmp_path, content, says):
    with pytest.raises(RequestError, match=says) as caught:
        read_csv(write(tmp_path, content))
    assert "\n" not in str(caught.value)
    assert str(tmp_path / "t.csv") in str(caught.value)


def test_a_table_may_be_wide(tmp_path):
    n = 200_000  # minutes, if each name were looked for among all
    head = ",".join(f"c{i}" for i in range(n))
    table = read_csv(write(tmp_path, f"{head}\n{',' * (n - 1)}\n"))
    assert len(table.columns) == n
    with pytest.raises(RequestError, match=r"it has c0, .* \.\.\.; did you mean c17") as caught:
        column(table, "C17")
    assert len(str(caught.value)) < 1000


def test_no_table(tmp_path):
    for path in (tmp_path, tmp_path / "none.csv"):
        with pytest.raises(
            RequestError, match="(is not a regular file|no file at .*); expected a CSV file"
        ):
            read_csv(path)


def test_a_column_that_is_missing_names_near_ones(tmp_path):
    table = read_csv(write(tmp_path, "path,Label,age\n1,2,3\n"))
    assert column(table, "age") == ("3",)
    with pytest.raises(RequestError, match="no column 'labl' in .*; it has .*did you mean Label"):
        column(table, "labl")
    with pytest.raises(RequestError, match="no column 'xyzzy' in .*; it has path, Label, age$"):
        column(table, "xyzzy")


def test_what_is_a_number():
    yes = ["0", "-1", "+2.5", ".5", "5.", "1e-3", "007"]
    no = ["", "nan", "inf", "1e999", "1_000", "1,5", "0x10", "1 2", "٣", "a"]
    assert [t for t in yes + no if is_number(t)] == yes


# ---------------------------------------------------------------------------- one column


def read(texts, **settings) -> Target:
    return read_target({"y": texts}, where="t.csv", **settings)


@pytest.mark.parametrize(
    ("texts", "task", "names", "labels"),
    [
        (["b", "a", "b"], "binary-class", ("a", "b"), [1, 0, 1]),
        (["c", "a", "b"], "multi-class", ("a", "b", "c"), [2, 0, 1]),
        (["10", "9", "9.0", "1"], "multi-class", ("1", "9", "10"), [2, 1, 1, 0]),
        (["1", "x", "10", "9"], "multi-class", ("1", "10", "9", "x"), [0, 3, 1, 2]),
        (["1.0", "", "0", "NaN", "na", "NULL"], "binary-class", ("0", "1"), [1, -1, 0, -1, -1, -1]),
        (["01", "1", "1.0", "1.00"], "binary-class", ("01", "1"), [0, 1, 1, 1]),  # codes
        (["1E1", "10", "02"], "multi-class", ("02", "10", "1E1"), [2, 1, 0]),
        (["é", "e\u0301", "f"], "binary-class", ("f", "é"), [1, 1, 0]),
        # Whole numbers that no float tells apart.
        (["12345678901234567891", "12345678901234567890", "1"], "multi-class", None, [2, 1, 0]),
    ],
)
def test_one_column_of_classes(texts, task, names, labels):
    target = read(texts)
    assert (target.task, target.labels.tolist()) == (task, labels)
    assert target.labels.dtype == np.int64
    assert names is None or target.class_names == names


WORDS = ["N/A", "None", "<NA>", "-", "#N/A", "n/a", "?"]


@pytest.mark.parametrize("word", WORDS)
def test_words_that_look_missing_are_classes_until_they_are_named(word):
    target = read(["a", word, "b", word, "a", "b"])
    assert word in target.class_names
    (warning,) = warn_of_classes(target)
    assert warning.startswith(f"classes that look like missing labels: {word}; ")
    named = read(["a", word, "b", word.lower(), "a", "b"], missing=[word.upper()])
    assert (named.class_names, named.labels.tolist()) == (("a", "b"), [0, -1, 1, -1, 0, 1])
    assert warn_of_classes(named) == []


def test_missing_words_of_every_kind_of_label():
    numbers = read(["1.5", "-", "2"], task="regression", missing=["-"])
    np.testing.assert_array_equal(numbers.labels, [1.5, np.nan, 2])
    with pytest.raises(RequestError, match=r"row 2: '-' is no number.* .--missing=- if nobody"):
        read(["1.5", "-", "2"], task="regression")
    several = {"x": ["1", "N/A"], "y": ["0", "1"]}
    labels = read_target(several, where="t.csv", missing=["n/a"]).labels
    assert labels.tolist() == [[1, 0], [MISSING, 1]]
    with pytest.raises(RequestError, match="row 2: 'N/A'; .*--missing=N/A if nobody knows it"):
        read_target(several, where="t.csv")
    lists = read(["a|b", "", "None", "b"], separator="|", missing=["none"])
    assert lists.labels.tolist() == [[1, 1], [0, 0], [MISSING, MISSING], [0, 1]]
    one = read_label("y", ["1", "?", "0"], where="t.csv", missing=["?"])
    assert one.labels.tolist() == [[1], [MISSING], [0]]


@pytest.mark.parametrize(
    ("pair", "positive"),
    [
        (("malignant", "benign"), "malignant"),
        (("normal", "abnormal"), "abnormal"),
        (("Normal", "Abnormal"), "Abnormal"),
        (("COVID", "non-COVID"), "COVID"),
        (("effusion", "No finding"), "effusion"),
        (("tumor", "no_tumor"), "tumor"),
        (("TRUE", "FALSE"), "TRUE"),
        (("0", "1"), "1"),
        (("-1", "1"), "1"),
        (("control", "case"), "case"),
        (("malignant", "normal or benign"), "malignant"),
        (("malignant", "normal, benign"), "malignant"),
        (("malignant", "normal/benign"), "malignant"),
        (("malignant", "normal or malignant"), "normal or malignant"),  # just a part says no
        (("healthy", "benign"), "healthy"),  # both say no: the order of the texts
        (("nodule", "mass"), "nodule"),  # "nodule" only begins like no
    ],
)
def test_a_negation_is_class_0(pair, positive):
    for texts in (pair, pair[::-1]):
        assert read(texts).positive_class == positive


def test_the_positive_class_can_be_named():
    target = read(["malignant", "benign", "benign"], positive="benign")
    assert (target.class_names, target.labels.tolist()) == (("malignant", "benign"), [0, 1, 1])
    assert read(["0", "1"], positive="0.0").class_names == ("1", "0")
    with pytest.raises(RequestError, match=r"column y: --positive bad; the classes are a, b"):
        read(["a", "b"], positive="bad")
    with pytest.raises(RequestError, match="a binary task, and there are 3 classes"):
        read(["a", "b", "c"], positive="a")
    with pytest.raises(RequestError, match="--positive 3 names a class of a binary task"):
        read(["1", "2"], positive="3", task="regression")


def test_measurements_are_not_taken_for_classes():
    with pytest.raises(RequestError, match=r"line 3: 2.5 is no class number .2 different numbers"):
        read(["1", "2.5"], lines=[2, 3])
    assert read(["1", "2.50", "2.5"], task="multi-class").class_names == ("1", "2.5")
    assert read(["0.0", "-1.50", "0.", "0"], task="multi-class").class_names == ("-1.5", "0")
    ages = [str(age) for age in range(31)]
    with pytest.raises(RequestError, match="31 different numbers, 0 to 30; say --task regression"):
        read(ages * 9)
    assert len(read(ages[:30] * 9).class_names) == 30
    assert len(read(ages, task="multi-class").class_names) == 31
    names = [f"p{i}" for i in range(31)]
    with pytest.raises(RequestError, match="31 different texts in 31 rows look like ids"):
        read(names)
    assert len(read(names * 2).class_names) == 31


def test_texts_of_one_number_are_said_and_have_no_order():
    """They may be codes: neither merged nor renamed."""
    said = describe_target(read(["01", "1", "1E1", "10", "3"]))
    assert "classes that are the same number: 01, 1, 10, 1E1" in said
    assert not any("same number" in line for line in describe_target(read(["1", "1.0", "2"])))
    with pytest.raises(RequestError, match="01 and 1 are one number, and the order of ordinal"):
        read(["01", "1", "2"], task="ordinal")


def test_tasks_by_request():
    grades = read(["0", "2", "", "10"], task="ordinal")
    assert (grades.task, grades.class_names) == ("ordinal-regression", ("0", "2", "10"))
    assert grades.labels.tolist() == [0, 1, MISSING, 2]
    with pytest.raises(RequestError, match=r"column y, line 7: 'mild' is no number; the order of"):
        read(["0", "mild"], task="ordinal", lines=[6, 7])
    assert read(["a", "b"], task="multi-class").task == "multi-class"
    assert read(["a", "b"], task="binary-class").task == "binary-class"
    with pytest.raises(RequestError, match="3 classes .a, b, c., and a binary task has two"):
        read(["a", "b", "c"], task="binary")
    with pytest.raises(RequestError, match="--task takes binary, multi-class, .*, not 'tertiary'"):
        read(["a", "b"], task="tertiary")
    with pytest.raises(RequestError, match="multi-label takes several columns, or one and the"):
        read(["a", "b"], task="multi-label")


def test_continuous_labels():
    ages = read(["45", "", "3.5", "nan", "-1e1"], task="regression")
    assert (ages.task, ages.class_names, ages.labels.dtype) == ("regression", ("y",), np.float64)
    np.testing.assert_array_equal(ages.labels, [45, np.nan, 3.5, np.nan, -10])
    for word in ("inf", "old"):
        with pytest.raises(RequestError, match=f"column y, row 2: '{word}' is no number"):
            read(["1", word], task="regression")
    with pytest.raises(RequestError, match="all values are 3 in 3 rows; nothing to predict"):
        read(["3", "", "3.0"], task="regression")
    with pytest.raises(RequestError, match="no value in 2 rows"):
        read(["", "nan"], task="regression")


def test_fewer_than_two_classes_are_refused():
    assert set(ASKED.values()) == set(TASKS)
    with pytest.raises(RequestError, match=r"t.csv, column y: one class only .a.; a probe needs"):
        read(["a", "a", ""])
    with pytest.raises(RequestError, match="column y: no label in 2 rows"):
        read(["", "nan"])
    (warning,) = warn_of_classes(read(["a", "<NA>", "b", "-"] * 2))
    (flag,) = [word for word in shlex.split(warning) if word.startswith("--missing")]
    assert flag == "--missing=-,<NA>"  # which can be typed


def test_folders_are_classes_whatever_they_are_called():
    target = class_target(["null", "NA", "1.5"], where="d")
    assert (target.class_names, target.labels.tolist()) == (("1.5", "NA", "null"), [2, 1, 0])
    assert len(class_target([str(i) for i in range(102)], where="d").class_names) == 102
    assert class_target(["sick", "healthy"], where="d").positive_class == "sick"
    with pytest.raises(RequestError, match="d: 'mild' is no number"):
        class_target(["0", "mild"], where="d", task="ordinal")
    with pytest.raises(RequestError, match="one class, and regression needs other labels"):
        class_target(["0", "1"], where="d", task="regression")


# ---------------------------------------------------------------------------- several labels


def test_several_columns_are_labels_side_by_side():
    columns = {"Edema": ["0", "1.0", "", "-1.0"], "Mass": ["Yes", "no", "TRUE", "nan"]}
    target = read_target(columns, where="t.csv")
    assert (target.task, target.class_names) == (ASKED["multi-label"], ("Edema", "Mass"))
    assert target.labels.tolist() == [[0, 1], [1, 0], [MISSING, 1], [UNCERTAIN, MISSING]]
    columns["Mass"][2] = "2"
    with pytest.raises(
        RequestError, match=r"t.csv, column Mass, line 9: '2'; .* each holds 0 or 1"
    ):
        read_target(columns, where="t.csv", lines=[2, 3, 9, 10])
    with pytest.raises(
        RequestError, match="2 label columns are multi-label, .*; ordinal takes one"
    ):
        read_target(columns, where="t.csv", task="ordinal")
    with pytest.raises(RequestError, match="no label is known in A, B"):
        read_target({"A": ["", "-1"], "B": ["", ""]}, where="t.csv")


def test_one_hot_columns_are_classes_by_request():
    columns = {"MEL": ["1.0", "0", "", "0"], "NV": ["0", "1", "", "1"]}
    target = read_target(columns, where="t.csv", task="multi-class")
    assert (target.task, target.class_names) == ("multi-class", ("MEL", "NV"))
    assert target.labels.tolist() == [0, 1, MISSING, 1]
    for cell, found in (("1", "MEL, NV"), ("", "NV"), ("-1", "NV")):
        columns["MEL"][3] = cell
        with pytest.raises(
            RequestError, match=f"t.csv, row 4: {found}; one-hot columns hold one 1"
        ):
            read_target(columns, where="t.csv", task="multi-class")
    with pytest.raises(RequestError, match="one class only in A, B"):
        read_target({"A": ["1", "1"], "B": ["0", "0"]}, where="t.csv", task="multi-class")


def test_one_column_lists_several_labels():
    cells = ["Edema|Mass", "", "nan", " Mass | Edema|", "Nodule"]
    target = read(cells, separator="|")
    assert target.class_names == ("Edema", "Mass", "Nodule")
    expected = [
        [int(n in cell.replace(" ", "").split("|")) for n in target.class_names] for cell in cells
    ]
    expected[2] = [MISSING] * 3
    assert target.labels.tolist() == expected
    assert read(["10;9", "1"], separator=";").class_names == ("1", "9", "10")
    with pytest.raises(RequestError, match="column y: no cell has the separator ';'"):
        read(cells, separator=";")
    for settings in ({"task": "ordinal"}, {"separator": ""}):
        with pytest.raises(RequestError, match="is for one column that lists several labels"):
            read(cells, **{"separator": "|", **settings})
    with pytest.raises(RequestError, match="1 labels; expected 2 to"):
        read(["a|", "a"], separator="|")


def test_uncertain_labels_count_as_one_says():
    labels = np.array([[0, UNCERTAIN], [MISSING, 1]])
    assert apply_uncertain(labels, "ignore").tolist() == [[0, MISSING], [MISSING, 1]]
    assert apply_uncertain(labels, "zeros").tolist() == [[0, 0], [MISSING, 1]]
    assert apply_uncertain(labels, "ones").tolist() == [[0, 1], [MISSING, 1]]
    assert labels[0, 1] == UNCERTAIN  # a copy
    with pytest.raises(RequestError, match="--uncertain takes ignore, zeros, ones, not 'maybe'"):
        apply_uncertain(labels, "maybe")


def test_one_label_of_several():
    columns = {"Edema": ["0", "1", ""], "Mass": ["0", "-1", "1"], "Gas": ["0", "0", "0"]}
    target = read_target(columns, where="t.csv")
    edema = select_label(target, "Edema")
    assert (edema.task, edema.positive_class) == ("binary-class", "Edema")
    assert (edema.class_names, edema.labels.tolist()) == (("no Edema", "Edema"), [0, 1, MISSING])
    with pytest.raises(RequestError, match="Mass: 1 labels are uncertain; say --uncertain ignore"):
        select_label(target, "Mass")
    with pytest.raises(RequestError, match="Gas: one class only"):
        select_label(target, "Gas")
    with pytest.raises(RequestError, match="no label 'Edma' among 3; did you mean Edema"):
        select_label(target, "Edma")
    with pytest.raises(RequestError, match="can be chosen among several labels; here is binary"):
        select_label(edema, "Edema")


# ---------------------------------------------------------------------------- in words


def test_what_was_understood_is_said():
    assert describe_target(read(["benign"] * 3 + ["malignant", ""])) == [
        "task: binary-class",
        "classes: benign (3, 75.0%), malignant (1, 25.0%)",
        "positive: malignant (label 1)",
        "missing: 1 of 5 labels",
        "fewer than 2 samples, so train or test has none: malignant",
    ]
    several = read_target({"A": ["1", "0", "1"], "B": ["0", "-1", ""]}, where="t.csv")
    assert describe_target(several) == [
        "task: multi-label, binary-class",
        "labels: A (2, 66.7%), B (0, 0.0%)",
        "missing: 1 of 6 labels",
        "uncertain: 1 of 6 labels",
        "fewer than 2 samples, so train or test has none: B",
    ]
    assert describe_target(read(["1", "2", "", "6"], task="regression")) == [
        "task: regression",
        "y: 1 to 6, mean 3, sd 2.16",
        "missing: 1 of 4 labels",
    ]


def test_what_looks_wrong_is_said():
    assert "classes that differ only in upper and lower case: Mass, mass" in describe_target(
        read(["mass", "Mass", "x"] * 2)
    )
    one_hot = read_target({"A": ["1", "0"] * 2, "B": ["0", "1"] * 2}, where="t.csv")
    assert "--task multi-class makes them classes" in describe_target(one_hot)[-1]
    many = describe_target(read([f"c{i % 30:02d}" for i in range(90)]))
    assert many[1].endswith("c19 (3, 3.3%), and 10 more")
