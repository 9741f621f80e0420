"""Maps of patch tokens: principal components as colours, parts by k-means, cosines, norms.

All are of a batch of N images of one encoder and layer, whose grids are h x w, so that a colour means the
same in every image. The order of images is the caller's: k-means begins with patches that it draws by
their number, so give images in one order, whichever they are shown in.
"""

from dataclasses import dataclass

import numpy as np

from cache.errors import RequestError
from probe.arrays import Bools, Doubles, Floats, Ints
from probe.report.statistics.projections import pca

OTSU, ZERO = "otsu", "zero"  # thresholds by name
FEW = 4  # patches of which there are no three components
EDGES = (
    1.0,
    99.0,
)  # percentiles of a component over the foreground that are its darkest and brightest
CLEAR = 0.2  # standard deviations by which the middle lies above the border, at least
MOST_IMAGES = 0.75  # share of images of which that is so, at least
# As maps of patches have them elsewhere (k 6, k-means++, seed 0); the best of several starts.
N_PARTS, N_STARTS = 6, 4
TINY = 1e-12


@dataclass(frozen=True)
class Coloured:
    """Components of patches of N images."""

    first: Doubles  # (N, h, w) the first component of all patches, larger in the foreground
    threshold: float  # foreground is above it
    foreground: Bools  # (N, h, w)
    colours: Doubles  # (N, h, w, 3) three components of the foreground, 0 to 1; 0 elsewhere
    first_share: float  # of the variance of all patches that the first component has
    shares: Doubles  # (3,) of the variance of the foreground
    n_agree: int  # images whose border lies below their middle, as the sign has it
    is_clear: bool  # whether border and middle differ by enough, in most images, to give the sign
    between: float  # share of the first component's variance that lies between images
    colours_between: float  # the same of the foreground's first component, which is red


def foreground_pca(
    x: Floats, threshold: str | float | None = OTSU, *, flip: bool = False
) -> Coloured:
    """Principal components as DINOv2's figure has them (Oquab et al. 2023).

    The first component of all patches, centred, parts foreground from background; three components
    of the foreground alone are red, green and blue. A component has no sign of its own: the
    first gets the one by which patches of the images' border lie below the others, for the border
    is background in most pictures. Where it isn't, or where both are about alike, ``is_clear`` is
    False, mostly; then look, and flip.

    Args:
        x: (N, h, w, D) finite.
        threshold: OTSU parts the component into two groups of least variance (Otsu 1979), ZERO is the
            mean of all patches; a number is in standard deviations of the component; None: all
            patches are foreground.
        flip: turn the sign around.

    Raises:
        RequestError: patches are all the same, or too few are above the threshold.
    """
    n, h, w, width = x.shape
    flat = x.reshape(-1, width)
    plane = pca(flat, 1)
    if not plane.shares.any():
        raise RequestError("all patches are the same, so they have no components")
    first = plane.points.reshape(n, h, w)
    sign, n_agree, is_clear = _sign(first)
    first = first * (-sign if flip else sign)
    n_agree = n - n_agree if flip else n_agree
    cut = _threshold(first.ravel(), threshold)
    foreground = first > cut
    inside = flat[foreground.ravel()]
    if len(inside) < FEW:
        raise RequestError(
            f"{len(inside)} of {len(flat)} patches are above the threshold {cut:.3g}, and components "
            f"need {FEW}; try --threshold {ZERO}, a lower number, or none"
        )
    found = pca(inside, 3)
    colours = np.zeros((n, h, w, 3))
    colours[foreground] = stretched(found.points)
    images = np.repeat(np.arange(n), h * w)
    between = _between(first.ravel(), images)
    of_colours = _between(found.points[:, 0], images[foreground.ravel()])
    return Coloured(
        *(first, cut, foreground, colours, float(plane.shares[0]), found.shares),
        *(n_agree, is_clear, between, of_colours),
    )


def _between(values: Doubles, groups: Ints) -> float:
    """The share of the variance of values that lies between groups, 0 to 1."""
    n = np.bincount(groups)
    means = np.bincount(groups, values) / np.maximum(n, 1)
    spread = float((values - values.mean()) @ (values - values.mean()))
    return float(n @ (means - values.mean()) ** 2) / spread if spread > TINY else 0.0


def _sign(first: Doubles) -> tuple[float, int, bool]:
    """1 or -1 by which the border lies below the middle, the images that agree, and whether it is clear."""
    border = np.ones(first.shape[1:], bool)
    border[1:-1, 1:-1] = False
    if border.all():  # of a grid of two rows or columns nothing is in the middle
        return 1.0, 0, False
    by_image = first[:, ~border].mean(axis=1) - first[:, border].mean(axis=1)
    sign = -1.0 if by_image.mean() < 0 else 1.0
    n_agree = int((sign * by_image > 0).sum())
    is_large = abs(by_image.mean()) >= CLEAR * first.std()
    return sign, n_agree, bool(is_large and n_agree >= MOST_IMAGES * len(first))


def _threshold(values: Doubles, threshold: str | float | None) -> float:
    if threshold is None:
        return -np.inf
    if threshold == OTSU:
        return otsu(values)
    return 0.0 if threshold == ZERO else float(threshold) * float(values.std())


def otsu(values: Doubles) -> float:
    """The cut of least variance within its two sides, exactly: halfway between two of the values.

    Args:
        values: (n,) of which two differ at least.
    """
    ordered = np.sort(values)
    n = len(ordered)
    below = np.arange(1, n)
    sums = np.cumsum(ordered)[:-1]
    gap = sums / below - (ordered.sum() - sums) / (n - below)
    between = below * (n - below) * gap**2  # n^2 times the variance between both sides
    between[ordered[1:] == ordered[:-1]] = -1  # equal values aren't parted
    place = int(np.argmax(between))
    return float((ordered[place] + ordered[place + 1]) / 2)


def stretched(points: Doubles) -> Doubles:
    """(n, d) -> 0 to 1 in each component, from and to the ``EDGES``; 1/2 of one that is all the same."""
    low, high = np.percentile(points, EDGES, axis=0)
    span = high - low
    scaled = (points - low) / np.where(span > TINY, span, 1)
    return np.where(span > TINY, np.clip(scaled, 0, 1), 0.5)


@dataclass(frozen=True)
class Parts:
    """Patches of N images in groups."""

    labels: Ints  # (N, h, w) from 0, the largest group first
    share: float  # of the variance of all patches that lies between groups


def parts(x: Floats, k: int = N_PARTS, *, is_cosine: bool = False, seed: int = 0) -> Parts:
    """Groups of patches by k-means, shared by all images.

    Args:
        x: (N, h, w, D) finite.
        k: groups, at most; equal patches are in one.
        is_cosine: of tokens of length 1; else as they are.
        seed: of the patches that it begins with.
    """
    from sklearn.cluster import KMeans  # late: it takes a second, and other maps don't need it

    flat = np.asarray(x, np.float64).reshape(-1, x.shape[-1])
    if is_cosine:
        flat = unit(flat)
    k = _different(flat, k)
    fitted = KMeans(k, n_init=N_STARTS, random_state=seed).fit(flat)  # type: ignore[arg-type]
    labels = np.asarray(fitted.labels_, np.int64)
    sizes = np.bincount(labels, minlength=k)
    first = np.array([np.argmax(labels == part) for part in range(k)])
    rank = np.empty(k, np.int64)
    rank[np.lexsort((first, -sizes))] = np.arange(k)
    total = float(((flat - flat.mean(axis=0)) ** 2).sum())
    share = 1 - float(fitted.inertia_ or 0) / total if total > TINY else 1.0
    return Parts(rank[labels].reshape(x.shape[:3]), share)


def _different(flat: Doubles, most: int) -> int:
    """How many different rows there are, counted up to ``most``."""
    found: set[bytes] = set()
    for row in flat:
        found.add(row.tobytes())
        if len(found) == most:
            break
    return len(found)


def unit(x: Floats) -> Doubles:
    """Tokens of length 1; those of length 0 stay."""
    x = np.asarray(x, np.float64)
    lengths = np.linalg.norm(x, axis=-1, keepdims=True)
    return x / np.where(lengths > 0, lengths, 1)


def cosines(x: Floats, image: int, row: int, column: int) -> Doubles:
    """(N, h, w) cosine of each patch with one of them, -1 to 1."""
    scaled = unit(x)
    return np.clip(scaled @ scaled[image, row, column], -1, 1)


def norms(x: Floats) -> Doubles:
    """(N, h, w) length of each token."""
    return np.linalg.norm(np.asarray(x, np.float64), axis=-1)


def grid_cell(y: float, x: float, grid: tuple[int, int]) -> tuple[int, int]:
    """Row and column of the patch at a place of the picture, 0 to 1 from its top left corner."""
    h, w = grid
    return min(int(y * h), h - 1), min(int(x * w), w - 1)
