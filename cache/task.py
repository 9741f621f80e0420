"""What kind of thing a label is: the words of the tasks, and how many columns their scores have."""

from dataclasses import dataclass

MISSING = -1  # nobody says; of continuous labels NaN
# Somebody says that it isn't clear: CheXpert's -1. Of labels that stand side by side only.
UNCERTAIN = -2

MULTI_CLASS = "multi-class"
BINARY = "binary-class"
MULTI_LABEL = "multi-label, binary-class"
ORDINAL = "ordinal-regression"
REGRESSION = "regression"  # the one task that MedMNIST has no word for: continuous labels
CLASSIFICATION = (MULTI_CLASS, BINARY, MULTI_LABEL, ORDINAL)  # MedMNIST's four words
TASKS = (*CLASSIFICATION, REGRESSION)
SEGMENTATION = "segmentation"  # of pixels: a question's task, and never a feature file's
NEVER_WRONG = (REGRESSION, SEGMENTATION)  # of these no sample's answer is simply right or wrong
# What is known of each class of a segmented sample, see ``probe.metrics.overlap``.
OVERLAP = ("both", "predicted", "bound_both", "bound_predicted", "hd95", "nsd")
ASKED = {  # --task's words -> TASKS
    "binary": BINARY,
    "multi-class": MULTI_CLASS,
    "multi-label": MULTI_LABEL,
    "ordinal": ORDINAL,
    "regression": REGRESSION,
}


@dataclass(frozen=True)
class Task:
    """What is to be told of a sample: one of C classes, which of C labels, a number, or the class of
    each of its pixels.
    """

    word: str  # one of TASKS, or SEGMENTATION
    class_names: tuple[str, ...]  # of regression: the one column's name

    @property
    def n_classes(self) -> int:
        """C: classes, or labels that stand side by side; 1 of regression."""
        return len(self.class_names)

    @property
    def n_outputs(self) -> int:
        """How many columns scores have: one each class or label, a single one of regression; of
        pixels all that is measured of each class.
        """
        if self.is_dense:
            return len(OVERLAP) * self.n_classes
        return 1 if self.is_continuous else self.n_classes

    @property
    def is_classification(self) -> bool:
        """Labels are classes of samples: one of MedMNIST's four tasks."""
        return self.word in CLASSIFICATION

    @property
    def is_continuous(self) -> bool:
        """Labels are numbers, float64 (S,)."""
        return self.word == REGRESSION

    @property
    def is_dense(self) -> bool:
        """Labels are how many pixels are of each class, int64 (S, C)."""
        return self.word == SEGMENTATION

    @property
    def has_several_labels(self) -> bool:
        """Labels are zeros and ones, (S, C), each a problem of two classes."""
        return self.word == MULTI_LABEL

    @property
    def is_ordered(self) -> bool:
        """Classes are grades: to be two off is worse than one."""
        return self.word == ORDINAL
