"""What of a feature file is to be shared: the settings of ``cache export``."""

from dataclasses import dataclass

from cache.commands.settings import setting
from cache.commands.terminal import split_words
from cache.errors import RequestError


def read_layers(text: str) -> tuple[int, ...] | None:
    """ "0,5,-1"; None: all.

    Raises:
        RequestError: neither numbers nor all.
    """
    if text == "all":
        return None
    words = split_words("--layers", text)
    try:
        return tuple(map(int, words))
    except ValueError:
        raise RequestError(f"--layers takes all or numbers like 0,5,-1, not {text!r}") from None


@dataclass(frozen=True)
class Sharing:
    """Layers and pools, and what of ids and columns.

    Raises:
        RequestError: a salt without hashes, or an empty one.
    """

    layers: tuple[int, ...] | None = setting(  # negative from the encoder's end; None: all
        None, "all, -1, or numbers like 0,5,-1", read=read_layers, shown="all"
    )
    pools: tuple[str, ...] | None = setting(  # None: all that these layers have
        None, "cls, mean, head, proj, tokens, comma separated", flag="--pool", shown="all there are"
    )
    hash_ids: bool = setting(
        False, "ids and patients as salted hashes; leaves out the hashes of the pixels too"
    )
    salt: str | None = setting(
        None,
        "of the hashed ids, so that files exported with one salt can be joined; who knows it "
        "can test guesses",
        metavar="TEXT",
        shown="a random one, shown once",
    )
    drop_meta: bool = setting(False, "leave out age, sex, site...")

    def __post_init__(self) -> None:
        if self.salt is not None and not self.hash_ids:
            raise RequestError("--salt belongs to --hash-ids")
        if self.salt == "":
            raise RequestError("--salt takes a text that nobody guesses, not an empty one")
