"""Any estimator: the documented example, scikit-learn's by name, and everything a user gets wrong."""

import itertools
import re
import sys
import textwrap

import numpy as np
import pytest
from features import make_features
from here import REPOSITORY
from looking import some
from numpy.testing import assert_allclose
from probing import rows
from reading import means_printed
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

import probe.kinds.estimator
from cache.errors import RequestError
from cache.task import BINARY, MISSING, MULTI_CLASS, MULTI_LABEL, REGRESSION, Task
from probe.cli import main
from probe.kinds.columns import check_columns
from probe.kinds.custom import find_kind
from probe.kinds.estimator import fit_all, read_grid
from probe.kinds.table import KINDS
from probe.metrics.classification import MARGIN, column_aucs


def clouds(n, n_classes=3, width=6, seed=0):
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % n_classes
    centres = np.random.default_rng(9).normal(size=(n_classes, width))
    return (centres[labels] + rng.normal(size=(n, width))).astype(np.float16), labels


def documented():
    """The example of the module's docstring, as it stands there."""
    text = probe.kinds.estimator.__doc__.partition("``my_probe.py``:\n")[2].partition(
        "\nand ``probe"
    )[0]
    return textwrap.dedent(text)


def test_the_page_has_the_same_example():
    page = (REPOSITORY / "probe" / "KINDS.md").read_text(encoding="utf-8")
    assert documented().strip() in page


def write(folder, text, name="my_probe.py"):
    (folder / name).write_text(textwrap.dedent(text))
    return folder / name


def test_the_documented_example_runs_as_it_stands(folder, capsys):
    text = documented()
    assert len([line for line in text.split("@dataclass")[1].splitlines() if line.strip()]) <= 10
    write(folder, text)
    make_features(folder / "features")
    command = ["--kind", "my_probe.py:NearestMean", "--set", "power=0.5,1,2", "--choose", "val"]
    assert main(command) == 0
    (row,) = rows()
    assert row["probe"]["kind"] == "my_probe.py:NearestMean"
    assert row["probe"]["settings"] == {"power": [0.5, 1, 2]}
    assert row["probe"]["chosen_by"] == "val 1 - AUC"
    assert row["score_type"] == "margin"
    # The power changes no order: all are as good, and the first of equals is taken.
    assert row["chosen"]["settings"] == {"power": 0.5}
    assert row["metrics"]["auc"]["value"] > 0.9
    assert "ece" not in row["metrics"]
    assert "power=0.5" in capsys.readouterr().out


def test_a_file_elsewhere_is_the_same_question_and_an_edit_another(folder):
    make_features(folder / "features")
    (folder / "a").mkdir()
    (folder / "b").mkdir()
    for place in ("a", "b"):
        write(folder / place, documented())
        assert main(["--kind", f"{folder / place / 'my_probe.py'}:NearestMean"]) == 0
    assert len(rows()) == 1
    write(folder / "a", documented() + "# edited\n")
    assert main(["--kind", "a/my_probe.py:NearestMean"]) == 0
    assert len(rows()) == 2


def test_modules_beside_it_are_found_when_its_methods_run(folder):
    write(folder, "SIGN = 1\n", "beside_it.py")
    text = documented().replace("return -(", "import beside_it\n        return -beside_it.SIGN * (")
    write(folder, text)
    make_features(folder / "features")
    assert main(["--kind", "my_probe.py:NearestMean"]) == 0
    assert str(folder) not in sys.path


# ---------------------------------------------------------------------------- scikit-learn


def task_of(word, n_classes):
    return Task(word, tuple(f"class {i}" for i in range(n_classes)))


def asked(kind, settings, x, y, queries, question):
    fitted = fit_all(find_kind(kind, settings), x, y, question)
    return fitted, fitted.scores(queries, 0)


def test_a_classifier_is_scikit_learns_own_on_standardised_features():
    (x, y), (queries, _) = clouds(90), clouds(20, seed=1)
    scaler = StandardScaler().fit(x.astype(np.float64))
    expected = LogisticRegression(C=0.3, tol=1e-8).fit(scaler.transform(x), y)
    fitted, found = asked(
        "sklearn.linear_model.LogisticRegression",
        ["C=0.3", "tol=1e-8"],
        x,
        y,
        queries,
        task_of(MULTI_CLASS, 3),
    )
    assert fitted.score_type == "probability"
    assert_allclose(found, expected.predict_proba(scaler.transform(queries)), atol=2e-3)


def test_margins_of_two_classes_are_thresholded_at_0():
    (x, y), (queries, _) = clouds(90, 2), clouds(30, 2, seed=1)
    scaler = StandardScaler().fit(x.astype(np.float64))
    expected = LinearSVC(random_state=0).fit(scaler.transform(x), y)
    fitted, found = asked("sklearn.svm.LinearSVC", [], x, y, queries, task_of(BINARY, 2))
    margins = expected.decision_function(scaler.transform(queries))
    assert fitted.score_type == "margin"
    assert_allclose(found, np.stack([-margins, margins], axis=1), atol=1e-2)


def test_several_labels_are_fitted_each_by_itself_where_known():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(80, 5)).astype(np.float32)
    y = (x[:, :3] + rng.normal(size=(80, 3)) > 0).astype(int)
    y[::4, 1], y[:, 2] = MISSING, 1
    _, found = asked(
        "sklearn.linear_model.LogisticRegression", [], x, y, x, task_of(MULTI_LABEL, 3)
    )
    z = StandardScaler().fit_transform(x.astype(np.float64))
    known = y[:, 1] != MISSING
    alone = LogisticRegression().fit(z[known], y[known, 1])
    assert_allclose(found[:, 1], alone.predict_proba(z)[:, 1], atol=1e-4)
    assert (found[:, 2] == 1).all()  # one value in train


def test_a_class_without_training_images_is_never_likely():
    x, y = clouds(60)
    kind, question = "sklearn.naive_bayes.GaussianNB", task_of(MULTI_CLASS, 3)
    _, found = asked(kind, [], x[y != 1], y[y != 1], x, question)
    assert found.shape == (60, 3)
    assert (found[:, 1] == 0).all()
    for kind in ("sklearn.linear_model.RidgeClassifier", "sklearn.svm.SVC"):  # margins
        _, found = asked(kind, [], x[y != 1], y[y != 1], x, question)
        assert (found[:, [1]] < found[:, [0, 2]]).all()
        assert np.ptp(found[:, 1]) == 0
        assert (found.argmax(axis=1) == y)[y != 1].mean() > 0.8


@pytest.mark.parametrize("n_classes", [3, 4])
@pytest.mark.parametrize("estimator", ["SVC", "NuSVC"])
def test_margins_of_pairs_are_not_taken_for_classes(estimator, n_classes):
    """Of three classes there are as many pairs; accuracy was .16 where .86 was right."""
    (x, y), (queries, truth) = clouds(90, n_classes), clouds(60, n_classes, seed=1)
    question, kind = task_of(MULTI_CLASS, n_classes), f"sklearn.svm.{estimator}"
    for more in ([], ["break_ties=True"]):
        _, found = asked(kind, more, x, y, queries, question)
        assert (found.argmax(axis=1) == truth).mean() > 0.6
    with pytest.raises(RequestError, match="margins of pairs.*decision_function_shape=ovr"):
        asked(kind, ["decision_function_shape=ovo"], x, y, queries, question)
    (x, y), (queries, truth) = clouds(90, 2), clouds(60, 2, seed=1)  # one pair is one margin
    _, found = asked(kind, ["decision_function_shape=ovo"], x, y, queries, task_of(BINARY, 2))
    assert (found.argmax(axis=1) == truth).mean() > 0.6


WRAPPED = """
    import numpy as np
    from sklearn.svm import SVC
    class Mine:
        score_type = "margin"
        def fit(self, features, labels):
            self.inner = SVC(decision_function_shape="SHAPE").fit(features, labels)
        def predict(self, features):
            return self.inner.predict(features)
        def predict_scores(self, features):
            return self.inner.decision_function(features)
"""


@pytest.mark.parametrize("old", ["", "SHAPE", "(features)\n"])
def test_a_users_scores_say_what_its_predict_says(folder, old):
    """Pairs, or another order of columns; every other order, by the shift."""
    x, y = clouds(90)
    new = {"": "", "SHAPE": "ovo", "(features)\n": "(features)[:, [1, 2, 0]]\n"}[old]
    text = WRAPPED.rpartition(old)[0] + new + WRAPPED.rpartition(old)[2] if old else WRAPPED
    config = find_kind(f"{write(folder, text.replace('SHAPE', 'ovr'))}:Mine")
    if not old:
        scores = fit_all(config, x, y, task_of(MULTI_CLASS, 3)).scores(x, 0)
        assert (scores.argmax(axis=1) == y).mean() > 0.8
        return
    with pytest.raises(RequestError, match="Mine, predict_scores contradicts predict: columns"):
        fit_all(config, x, y, task_of(MULTI_CLASS, 3))


def test_every_order_of_columns_but_the_right_one_is_refused():
    rng = np.random.default_rng(0)
    predicted = np.arange(40) % 4
    for scores, are_margins in [
        (np.eye(4)[predicted] + 0.3 * rng.random((40, 4)), True),
        (np.eye(4)[predicted] * 0.3 + rng.dirichlet([2] * 4, 40) * 0.7, False),
    ]:
        for order in itertools.permutations(range(4)):
            told = scores[:, order], predicted, np.arange(4), "It"
            if order == (0, 1, 2, 3):
                check_columns(*told, are_margins=are_margins)
                continue
            with pytest.raises(RequestError, match="It contradicts predict: columns"):
                check_columns(*told, are_margins=are_margins)


def test_a_regression():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(50, 4))
    y = x @ [1, 2, 3, 4.0] + 7
    _, found = asked("sklearn.linear_model.Ridge", ["alpha=2"], x, y, x, task_of(REGRESSION, 1))
    z = StandardScaler().fit_transform(x)
    assert_allclose(found[:, 0], Ridge(alpha=2).fit(z, y).predict(z), atol=1e-4)


def test_the_best_of_a_grid_is_taken_without_test(folder):
    make_features(folder / "features", n=(120, 700, 60))
    kind = "sklearn.neighbors.KNeighborsClassifier"
    words = ["--kind", kind, "--set", "n_neighbors=120,15", "--set", "weights=uniform,distance"]
    assert main(words) == 0
    (row,) = rows()
    assert row["chosen"]["settings"]["n_neighbors"] == 15
    assert len(row["chosen"]["val_log_loss"]) == 4
    assert row["probe"]["chosen_by"] == "val log-loss"
    assert "scikit-learn" in row["versions"]
    assert main(words) == 0
    assert len(rows()) == 1


def one_of_a_class(labels):
    """Of class 2 there is one sample, of class 1 as many as of 0."""
    labels = labels % 2
    labels[5] = 2
    return labels


@pytest.mark.parametrize(
    "kind", ["sklearn.svm.LinearSVC", "sklearn.linear_model.LogisticRegression"]
)
def test_margins_are_compared_where_a_fold_lacks_a_class(folder, capsys, kind):
    """As probabilities are: by the answers of all folds together."""
    make_features(folder / "features", labels=one_of_a_class)
    assert main(["--kind", kind, "--set", "C=0.001,0.1"]) == 0
    (row,) = rows()
    is_margin = row["score_type"] == "margin"
    assert row["probe"]["chosen_by"] == (
        "pooled out-of-fold 1 - AUC" if is_margin else "out-of-fold log-loss"
    )
    name = "out_of_fold_1___AUC" if is_margin else "out_of_fold_log_loss"
    assert len(row["chosen"][name]) == 2
    if is_margin:
        (path,) = folder.rglob("results/**/*.npz")
        with np.load(path) as stored:
            scores, labels = stored["val_scores"], stored["val_labels"]
        place = [0.001, 0.1].index(row["chosen"]["settings"]["C"])
        expected = 1 - column_aucs(scores, labels, MULTI_CLASS, MARGIN).mean()
        assert row["chosen"][name][place] == pytest.approx(expected)
    assert main(["--kind", kind, "--set", "C=0.1", "--split", "kfold:5"]) == 0  # no train has it
    assert main(["--kind", kind, "--set", "C=0.001,0.1", "--split", "kfold:5"]) == 0
    assert main(["--kind", "ridge", "--layer", "auto", "--split", "kfold:5"]) == 0  # margins, too


def test_folds_whose_test_lacks_a_class_have_a_mean_auc(folder, capsys):
    make_features(folder / "features", labels=one_of_a_class)
    assert main(["--kind", "sklearn.naive_bayes.GaussianNB", "--split", "kfold:5"]) == 0
    out = capsys.readouterr().out
    (line,) = means_printed(out)
    each = [row["per_class"]["auc"] for row in rows()]
    values = [np.mean([v for v in of_fold if v is not None]) for of_fold in each]
    assert f"{np.mean(values):.3f} ± {np.std(values, ddof=1):.3f}" == line["auc [95 %]"]
    assert "over those that they have" in out
    assert main(["table"]) == 0  # from the stored rows the same
    (again,) = means_printed(capsys.readouterr().out)
    numbers = [name for name in again if "±" in again[name]]
    assert [again[name] for name in some(numbers)] == [line[name] for name in numbers]


def test_what_fitting_warns_of_is_a_mark(folder):
    make_features(folder / "features")
    kind = "sklearn.linear_model.LogisticRegression"
    assert main(["--kind", kind, "--set", "max_iter=1"]) == 0
    (row,) = rows()
    assert any("warns: ConvergenceWarning: lbfgs failed" in mark for mark in row["marks"])


def test_estimators_that_are_random_have_a_seed():
    x, y = clouds(60)
    kind, question = "sklearn.ensemble.RandomForestClassifier", task_of(MULTI_CLASS, 3)
    first, second, other = (
        asked(kind, ["n_estimators=5", *more], x, y, x, question)[1]
        for more in ((), (), ("random_state=1",))
    )
    assert_allclose(first, second)
    assert not np.allclose(first, other)


# ---------------------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("nonsense", "--kind takes knn, linear, .*FILE.py:CLASS; not 'nonsense'"),
        ("os.path", "not 'os.path'"),
        ("sklearn.svm.LinearSVM", "sklearn.svm has no LinearSVM; near names: .*LinearSVC"),
        ("sklearn.nothing.SVC", "no module sklearn.nothing"),
        ("sklearn.preprocessing.StandardScaler", "no classifier and no regression"),
        ("sklearn.svm..SVC", "takes sklearn.MODULE.CLASS"),
        ("absent.py:Probe", "no file at absent.py; --kind takes FILE.py:CLASS"),
    ],
)
def test_what_names_nothing(folder, kind, message):
    with pytest.raises(RequestError, match=message):
        find_kind(kind, known=tuple(KINDS))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["C"], "--set takes NAME=VALUE"),
        (["C=1,"], "--set takes NAME=VALUE"),
        (["C=1", "C=2"], "--set C is given twice"),
        (["C=1,1"], "named once"),
        (["c=1"], "has no setting 'c'; near names: C"),
    ],
)
def test_settings_that_are_none(settings, message):
    with pytest.raises(RequestError, match=message):
        find_kind("sklearn.svm.LinearSVC", settings)


def test_values_are_numbers_words_or_nothing():
    found = read_grid(["a=1,2.5,1e-3", "b=True,None", "c=l2,rbf"])
    assert found == {"a": (1, 2.5, 1e-3), "b": (True, None), "c": ("l2", "rbf")}


PROBE = """
    import numpy as np
    class Mine:
        def fit(self, features, labels):
            pass
        def predict_scores(self, features):
            return np.full((len(features), 3), 1 / 3)
"""


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "pass",
            "1 / 0",
            r"fails in fit: ZeroDivisionError: division by zero \(my_probe.py, line 5\)",
        ),
        ("1 / 3)", "1 / 3", "my_probe.py fails: SyntaxError"),
        ("class Mine", "class Other", "no class 'Mine' in this file; it has Other"),
        ("def fit", "def train", "has no fit: a probe is a class with"),
        ("1 / 3)", "np.nan)", "should give finite scores, found nan in row 0, column 0"),
        ("1 / 3)", "1.0)", "rows sum to 1; found a row of sum 3"),
        ("3), ", "4), ", r"scores of shape \(40, 3\), found \(40, 4\)"),
        ("import numpy", "import numpyy", "No module named 'numpyy'"),
        ("        def fit", "        score_type = 'logit'\n        def fit", "one score_type"),
        ("pass", "raise SystemExit", "fails in fit: SystemExit"),
    ],
)
def test_mistakes_in_a_users_file_are_one_line(folder, capsys, old, new, message):
    assert old in PROBE
    write(folder, PROBE.replace(old, new))
    make_features(folder / "features")
    try:
        status = main(["--kind", "my_probe.py:Mine", "--choose", "val"])
    except SystemExit as end:
        status = end.code
    said = capsys.readouterr().err
    assert status in (1, 2)
    assert "Traceback" not in said
    assert len(said.strip().splitlines()) == 1
    assert re.search(message, said), said


def test_a_probe_that_changes_its_features_spoils_no_other(folder):
    text = PROBE.replace("pass", "features[:] = 0; labels[:] = 0")
    config = find_kind(f"{write(folder, text)}:Mine")
    x, y = clouds(30)
    fit_all(config, x, y, task_of(MULTI_CLASS, 3))
    assert x.any()
    assert y.any()


def test_flags_and_tasks_that_do_not_fit(folder, capsys):
    make_features(folder / "features")
    with pytest.raises(SystemExit):
        main(["--kind", "knn", "--set", "k=1"])
    assert "--set belongs to --kind sklearn.MODULE.CLASS" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["--kind", "sklearn.svm.LinearSVC", "--k", "1"])
    assert "--k belongs to --kind knn" in capsys.readouterr().err
    assert main(["--kind", "sklearn.linear_model.Ridge"]) == 1
    assert "is a regression, and asked of classes" in capsys.readouterr().err
