"""Metrics of continuous labels: an age, a bone age, a measured length.

Follows scikit-learn for ``mae``, ``rmse`` and ``r2``, and SciPy for ``pearson``, without importing
either, except that what isn't defined is nan: R2 and Pearson's r where all labels are one number,
and r where all predictions are.

Conventions:
    - ``predictions`` are (N, 1) and ``labels`` (N,), both in the labels' own unit and finite:
      whoever has no label is left out before.
    - Every metric is a function of sums over samples. They take leading axes, so that
      ``probe.metrics.jackknife`` evaluates each test set less a patient with the code that evaluates one.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from cache.errors import RequestError
from cache.task import REGRESSION
from probe.arrays import Doubles, Floats
from probe.metrics.metric import INTERVAL, MOMENTS, REST, SD, VAL, Metric, Prepared

# Smaller than this, a spread is rounding: of squares, as a share of the sum they are taken off, and
# of values, as a share of the largest.
SQUARES, VALUES = 1e-12, 16 * np.finfo(np.float64).eps


class Moments(NamedTuple):
    """What the metrics need to know, each (...,): sums over samples.

    Labels and predictions are taken from a centre of their own, so that sums of squares keep the
    digits that a large offset (a date, a weight in grams) would cost them.
    """

    n: Doubles
    absolute: Doubles  # of the error
    squared: Doubles  # of the error
    label: Doubles
    label_squared: Doubles
    prediction: Doubles
    prediction_squared: Doubles
    product: Doubles


def check_targets(targets: ArrayLike) -> None:
    """Refuse what nothing can be fitted to.

    Args:
        targets: (N, O), each output a target of its own.

    Raises:
        RequestError: another shape, or a target that is not finite.
    """
    targets = np.asarray(targets)
    if targets.ndim != 2:
        raise RequestError(f"targets have shape (N, O), one column each, found {targets.shape}")
    if not np.isfinite(targets).all():
        row, column = np.argwhere(~np.isfinite(targets))[0]
        raise RequestError(
            f"targets are finite, found {targets[row, column]} in row {row}: leave out the samples "
            "whose label is missing"
        )


def validate(predictions: ArrayLike, labels: ArrayLike) -> None:
    """Refuse predictions and labels that no metric below can answer for.

    Args:
        predictions: (N, 1).
        labels: (N,).

    Raises:
        RequestError: no samples, shapes that don't match each other, or what is not finite.
    """
    predictions, labels = np.asarray(predictions), np.asarray(labels)
    if labels.ndim != 1 or len(labels) == 0 or predictions.shape != (len(labels), 1):
        raise RequestError(
            f"predictions of shape (N, 1) and labels of shape (N,) are needed, found "
            f"{predictions.shape} and {labels.shape}"
        )
    for what, values in (("predictions", predictions[:, 0]), ("labels", labels)):
        if not np.isfinite(values).all():
            row = int(np.argmin(np.isfinite(values)))
            raise RequestError(f"{what} are finite, found {values[row]} in row {row}")


def evaluate(predictions: Floats, labels: Floats) -> dict[str, float]:
    """Every metric of one set of predictions.

    Args:
        predictions: (N, 1).
        labels: (N,).

    Returns:
        name -> value, in the order of ``METRICS``: mean absolute error and root of the mean squared
        error, both in the labels' unit; R2, 1 - squared error / squared distance from the labels'
        own mean, at most 1 and without a floor; Pearson's r in -1..1.

    Raises:
        RequestError: see ``validate``.
    """
    return prepare(predictions, labels).evaluate()


def prepare(predictions: Floats, labels: Floats) -> Prepared:
    """Look at answers once; arguments and errors are those of ``evaluate``."""
    validate(predictions, labels)
    return Prepared(REGRESSION, METRICS, {MOMENTS: sample_moments(predictions, labels)}, {}, [])


# The kernels: sums, with leading axes.


def sample_moments(predictions: Floats, labels: Floats) -> Doubles:
    """Each sample's contribution, (N, 8): any weighted sum over N gives ``Moments``."""
    prediction, label = predictions[:, 0].astype(np.float64), labels.astype(np.float64)
    error = prediction - label
    prediction, label = _centred(prediction), _centred(label)
    return np.stack(
        [
            np.ones(len(error)),
            np.abs(error),
            error**2,
            label,
            label**2,
            prediction,
            prediction**2,
            prediction * label,
        ],
        axis=1,
    )


def _pearson(m: Moments) -> Doubles:
    label_spread = _spread(m.n, m.label, m.label_squared)
    prediction_spread = _spread(m.n, m.prediction, m.prediction_squared)
    shared = m.product - m.label * m.prediction / m.n
    # Rounding may take a perfect line past 1.
    return np.clip(shared / np.sqrt(label_spread * prediction_spread), -1, 1)


def _centred(values: Doubles) -> Doubles:
    """Values less their mean; exactly 0 where all are one number, but for rounding."""
    is_spread = np.ptp(values) > VALUES * np.abs(values).max()
    return values - values.mean() if is_spread else np.zeros_like(values)


def _spread(n: Doubles, total: Doubles, squared: Doubles) -> Doubles:
    """Sum of squared distances from the mean; nan where it is nothing but rounding."""
    spread = squared - total**2 / n
    return np.where(spread > SQUARES * squared, spread, np.nan)


def _metric(
    name: str,
    of: Callable[[Moments], Doubles],
    scale: tuple[Callable[..., Any], Callable[..., Any]],
    **more: Any,
) -> Metric:
    def of_sums(sums: Doubles, task: str) -> Doubles:
        return of(Moments(*np.moveaxis(sums, -1, 0)))

    return Metric(name, of_sums, MOMENTS, (REGRESSION,), None, scale=scale, **more)


# Errors and unexplained variance are positive, Pearson's r is Fisher's (1915).
POSITIVE = np.log, np.exp
UNEXPLAINED = lambda r2: np.log(1 - r2), lambda z: 1 - np.exp(z)
FISHER = np.arctanh, np.tanh
METRICS = (
    _metric(
        "mae",
        lambda m: m.absolute / m.n,
        POSITIVE,
        column="mae",
        also=(INTERVAL, VAL, SD, REST),
        has_unit=True,
        is_loss=True,
    ),
    _metric(
        "rmse",
        lambda m: np.sqrt(m.squared / m.n),
        POSITIVE,
        column="rmse",
        has_unit=True,
        is_loss=True,
    ),
    _metric(
        "r2",
        lambda m: 1 - m.squared / _spread(m.n, m.label, m.label_squared),
        UNEXPLAINED,
        column="r2",
        also=(INTERVAL, VAL, REST),
    ),
    _metric("pearson", _pearson, FISHER, column="r"),
)  # in the order of every row
