"""Which of our rows is a paper's number: of the same encoder, images, metric and way of answering.

A row that follows the paper's protocol comes first; others fit all the same, and say in what they
were asked otherwise. Of several none is taken by its number: which one is meant is the reader's to say.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from probe.report.published.numbers import STORED, Number
from probe.report.rows.beside import is_joined
from probe.report.rows.contenders import Contender
from probe.report.rows.fields import FIELDS, RECORD, written
from probe.results import Row

PADDED = ("pad", "pad-after-norm")  # ways of resizing that never enlarge
FOLLOWED, CHANGED, OTHER = range(3)  # the paper's protocol: as it is, with changes, not at all
SAME = ("data", "model", "encoder", "seen", "task")  # fields that can't tell fitting rows apart


class Fits:
    """Our rows, to find those that are a paper's numbers."""

    def __init__(self, contenders: Iterable[Contender]) -> None:
        self._there: Mapping[tuple[str, str], list[Contender]] = defaultdict(list)
        for contender in contenders:
            e = contender.first.row.encoded
            self._there[e.encoder, e.dataset].append(contender)

    def all(self, number: Number) -> list[Contender]:
        """All that fit a number, those that follow its paper's protocol first."""
        there = self._there.get((number.encoder or "", number.our_dataset or ""), [])
        found = [contender for contender in there if is_fit(number, contender)]
        return sorted(found, key=lambda contender: _distance(number, contender))

    def nearest(self, number: Number) -> list[Contender]:
        """Of these, those that are as near to the paper's protocol as the first."""
        found = self.all(number)
        near = [_distance(number, contender) for contender in found]
        return [c for c, distance in zip(found, near, strict=True) if distance == near[0]]


def is_fit(number: Number, contender: Contender) -> bool:
    """Whether a contender with a number's encoder and data set answers the same question.

    Labels and split are the data set's own, the layer is the last and nobody chose it, and the
    images have the paper's size.
    """
    row = contender.first.row
    settings = row.answered.settings
    is_own = row.encoded.label == row.encoded.model  # published weights
    is_posed_so = not (row.posed.target or row.posed.split or row.posed.trained_on)
    return (
        is_own
        and not is_joined(row)
        and is_posed_so
        and settings.get("scores_of") != "patients"
        and any(way.is_of(settings, row.answered.shots) for way in number.our_mode.ways)
        and (_is_of_last_layer(row) or _is_cut_so(number))
        and _has_size(number, row)
        and number.our_metric is not None
        and contender.value(number.our_metric) is not None
    )


def say_otherwise(number: Number, contender: Contender) -> str:
    """In what a contender was asked otherwise than the paper did, in words; "" in nothing known."""
    row, paper = contender.first.row, _protocol_of(number)
    said = []
    if not _follows(number, row):
        protocol = contender.field("protocol")
        said.append(
            f"kind {row.answered.kind}, {f'protocol {protocol}' if protocol else 'no protocol'}"
        )
    if row.encoded.protocol != paper:
        how = f"as {row.encoded.protocol}" if row.encoded.protocol else "the encoder's own way"
        said.append(f"images prepared {how}, at {row.encoded.size} pixels")
    if row.answered.shots:
        said.append(f"the mean of {row.answered.settings['few_shot'].get('episodes')} draws")
    return f"asked otherwise than in {paper}: {'; '.join(said)}" if said else ""


def say_several(fitting: Sequence[Contender]) -> str:
    """How to say which of several fitting contenders is meant."""
    for field in FIELDS:
        if field.part == RECORD or field.name in SAME:
            continue
        values = [written(contender.field(field.name)) for contender in fitting]
        example = next((v for v in values if v and "," not in v), "")  # --where lists by commas
        if example and len(set(values)) > 1:
            return (
                f"several rows fit, which differ in {field.title}: say which is meant, as in "
                f"--where '{field.name}={example}'"
            )
    return "several rows fit, which are asked alike: name the files of those that are meant"


def _distance(number: Number, contender: Contender) -> int:
    row = contender.first.row
    if row.answered.protocol.get("name") != _protocol_of(number):
        return OTHER
    is_whole = _follows(number, row) and row.encoded.protocol == _protocol_of(number)
    return FOLLOWED if is_whole else CHANGED


def _follows(number: Number, row: Row) -> bool:
    """Whether it is the paper's protocol, but for settings that the paper varied."""
    protocol = row.answered.protocol
    varied = tuple(f"{n.replace('_', ' ')} " for way in number.our_mode.ways for n in way.settings)
    changed = [words for words in protocol.get("changed", ()) if not words.startswith(varied)]
    return protocol.get("name") == _protocol_of(number) and not changed


def _protocol_of(number: Number) -> str:
    return number.quoting or number.paper.name


def _is_of_last_layer(row: Row) -> bool:
    settings = row.answered.settings
    among = {layer for layer, _ in settings.get("place_chosen", {}).get("among", ())}
    n_layers = row.encoded.key.get("layers", {}).get("of", 0)
    is_last = n_layers in (0, settings.get("layer", -1) + 1)
    return is_last and len(among) < 2 and settings.get("cut_after") is None


def _is_cut_so(number: Number) -> bool:
    """Whether the paper cut the encoder: then the way of answering says after which block."""
    return any("cut_after" in way.settings for way in number.our_mode.ways)


def _has_size(number: Number, row: Row) -> bool:
    key: Mapping[str, Any] = row.encoded.key
    resize = str(key.get("transform", {}).get("resize", "")).partition(" ")[0]
    size = key.get("source_size") if number.paper.size_of == STORED else row.encoded.size
    is_resized_so = {"pad": resize in PADDED, "scale": resize not in PADDED}
    return number.size in (None, size) and is_resized_so.get(number.resize, True)
