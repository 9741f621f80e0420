"""The words of the tasks, and what follows from them."""

import pytest

from cache.task import BINARY, MULTI_CLASS, MULTI_LABEL, ORDINAL, REGRESSION, TASKS, Task


@pytest.mark.parametrize(
    ("word", "names", "is_continuous", "has_several_labels", "is_ordered"),
    [
        (MULTI_CLASS, ("a", "b", "c"), False, False, False),
        (BINARY, ("benign", "malignant"), False, False, False),
        (MULTI_LABEL, ("edema", "effusion", "mass"), False, True, False),
        (ORDINAL, ("0", "1", "2", "3"), False, False, True),
        (REGRESSION, ("age",), True, False, False),
    ],
)
def test_what_follows_from_a_tasks_word(word, names, is_continuous, has_several_labels, is_ordered):
    task = Task(word, names)
    assert word in TASKS
    assert (task.n_classes, task.n_outputs) == (len(names), len(names))
    said = (task.is_continuous, task.has_several_labels, task.is_ordered)
    assert said == (is_continuous, has_several_labels, is_ordered)
