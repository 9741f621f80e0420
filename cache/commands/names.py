"""Words for people: what an encoder is called, near names, and what an exception says."""

import difflib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

T = TypeVar("T")
N_WEIGHTS = 4  # hex digits of the weights' digest in a name: enough for a table
# How ``finetune`` says in its weights what they were trained on, and feature files note it.
TUNED = re.compile(r", fine-tuned on (\S+) \(")

LONG_LABEL = 32  # letters
NORM2 = "norm2"  # of ``extract --layer-norm``, and ``layers.norm`` of a key
FROM_FILE = re.compile(rf"(.+) \(.+ ([0-9a-f]{{{N_WEIGHTS}}}( {NORM2})?)\)", re.DOTALL)


def encoder_label(model: str, notes: Mapping[str, Any], key: Mapping[str, Any]) -> str:
    """What an encoder is called beside others of its architecture.

    Its short name is that of its published weights. With others it has a name of its own:
    "dinov2 (tuned on dermamnist 3f2a)" after ``finetune``, "dinov2 (mine.safetensors 3f2a)" of
    another file, "dinov2 (random)" of none. So has what its layers are, where that isn't the
    blocks' output: "dinov2 (norm2)", "dinov2 (random norm2)".

    Args:
        model: the short name.
        notes: of a feature file: random_weights, own_weights, and their file as weights.
        key: of a feature file: weights, a digest behind a colon; layers.
    """
    which = [_which_weights(notes, key), NORM2 if is_norm2(key) else ""]
    words = " ".join(filter(None, which))  # no comma: --model takes several names
    return f"{model} ({words})" if words else model


def is_norm2(key: Mapping[str, Any]) -> bool:
    """Whether a feature file's layers are those of ``extract --layer-norm norm2``."""
    return (key.get("layers") or {}).get("norm") == NORM2


def _which_weights(notes: Mapping[str, Any], key: Mapping[str, Any]) -> str:
    """Of an encoder, in words; "" of published ones."""
    if notes.get("random_weights"):
        return "random"
    if not notes.get("own_weights"):
        return ""
    file, digest = str(notes.get("weights") or "a file"), digest_of(str(key.get("weights", "")))
    tuned = TUNED.search(file)
    which = f"tuned on {tuned[1]}" if tuned else file.partition(", ")[0]
    return f"{which} {digest[:N_WEIGHTS]}"


def short_label(label: str) -> str:
    """The same for a narrow table: of a file with a long name, the weights' digest alone."""
    if len(label) <= LONG_LABEL or not (found := FROM_FILE.fullmatch(label)):
        return label
    return f"{found[1]} ({found[2]})"


def digest_of(part: str) -> str:
    """The hex digits of a digest in a key, as "sha256:3f2a..."; empty where it is something else."""
    kind, colon, digits = part.rpartition(":")
    is_digest = colon and kind.endswith(("sha256", "md5")) and re.fullmatch("[0-9a-f]+", digits)
    return digits if is_digest else ""


def choose_named(
    words: Sequence[str], found: Sequence[T], names: Callable[[T], Sequence[str]]
) -> list[T]:
    """Those that words name, all where there are no words.

    Args:
        words: as a user typed them.
        found: to choose from.
        names: what each is called. Where a word is the first name of some, it means only those:
            "dinov2" is the published one, and what was made of it only where that isn't there.
    """
    own = {names(item)[0] for item in found}
    return [
        item
        for item in found
        if not words
        or any(
            word == names(item)[0] or (word in names(item) and word not in own) for word in words
        )
    ]


def near_names(name: str, known: Iterable[str], otherwise: str) -> str:
    """ "near names: ..." out of ``known``, or ``otherwise`` where none is near."""
    known = {other.lower(): other for other in known}
    near = difflib.get_close_matches(name.lower(), known, n=4, cutoff=0.6)
    near += [other for other in known if name.lower() in other and other not in near][:4]
    near = [known[other] for other in near]
    return f"near names: {', '.join(near[:6])}" if near else otherwise


def counted(n: int, noun: str) -> str:
    """ "1 row", "2 rows"."""
    return f"{n:_} {noun}" if n == 1 else f"{n:_} {noun}s"


def first_line(error: BaseException) -> str:
    """The first line of an exception's text."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def format_bytes(n: float) -> str:
    """Bytes for people: ``format_bytes(1_500_000) == "1.5 MB"``."""
    for unit in ("B", "kB", "MB", "GB"):
        if abs(n) < 1000:
            return f"{n:.0f} {unit}" if unit == "B" else f"{n:.1f} {unit}"
        n /= 1000
    return f"{n:.1f} TB"


NOT_INSTALLED = "not installed"


def version_of(package: str) -> str:
    """Of an installed package, else NOT_INSTALLED."""
    import importlib.metadata  # late: --help shouldn't wait for it

    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return NOT_INSTALLED
