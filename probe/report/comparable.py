"""Which rows may stand in one table: those that were asked about the same samples.

Labels, splits and patients are in no key: they may be corrected in one encoder's file and not in
another's. Each row holds the checksums of the tables that it was asked with, so rows that differ in
one of them, though they were asked alike, are told apart.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cache.format.key import canonical_json
from probe.results import Encoded, Row, TrainedOn

LABELS, SPLIT = "labels", "split"
NOT_TO_COMPARE = """\
Blocks are of different samples: numbers of one say nothing beside those of another. Where the images
are the same, `extract` of any of these encoders lays one table over all their files; where some came
or went, `extract` each of them. Then ask again."""


@dataclass(frozen=True)
class Fact:
    """What rows that are compared must agree on."""

    dataset: str
    what: str  # LABELS, SPLIT, or one of Encoded.tables: patients, ids, images of a sample
    asked: str = ""  # how: another target, or another fold, is another question


@dataclass
class Block:
    """Rows that agree."""

    rows: list[Row]
    facts: dict[Fact, Any]  # -> a checksum or digest


def make_blocks(rows: Sequence[Row]) -> list[Block]:
    """Rows in as few blocks as their order gives; in a block no two disagree.

    Of a fact that an old row doesn't hold nobody knows, so that it fits anywhere.
    """
    blocks: list[Block] = []
    for row in rows:
        facts = dict(_facts(row))
        for block in blocks:
            if not _conflicts(facts, block.facts):
                block.rows.append(row)
                block.facts.update(facts)
                break
        else:
            blocks.append(Block([row], facts))
    return blocks


def describe_block(number: int, blocks: Sequence[Block]) -> str:
    """A block's heading: "block 2 of 2: labels and split of scans are other than in block 1"."""
    words = f"block {number} of {len(blocks)}"
    whats: dict[str, list[str]] = {}
    for fact in _conflicts(blocks[number - 1].facts, blocks[0].facts):
        listed = whats.setdefault(fact.dataset, [])
        listed += [] if fact.what in listed else [fact.what]
    said = [f"{_listed(names)} of {dataset}" for dataset, names in whats.items()]
    return f"{words}: other {', '.join(said)} than in block 1" if said else words


def _listed(names: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def _conflicts(facts: Mapping[Fact, Any], others: Mapping[Fact, Any]) -> list[Fact]:
    return [fact for fact, value in facts.items() if fact in others and others[fact] != value]


def _facts(row: Row) -> Iterator[tuple[Fact, Any]]:
    e, posed, train = row.encoded, row.posed, row.posed.trained_on
    yield from _facts_of(e, posed.target, posed.split, train.dataset if train else "")
    if train:
        yield from _facts_of(train, train.target, train.split)


def _facts_of(
    of: Encoded | TrainedOn,
    target: Mapping[str, Any],
    split: Mapping[str, Any],
    trained_on: str = "",
) -> Iterator[tuple[Fact, Any]]:
    labels = canonical_json({name: v for name, v in target.items() if name != "labels"})
    how = {name: v for name, v in split.items() if name not in ("digest", "of")}
    divided = canonical_json([labels, how, trained_on])
    yield Fact(of.dataset, LABELS, labels), of.samples.get("labels")
    yield Fact(of.dataset, SPLIT, divided), of.samples.get("split")
    for what, checksum in of.tables.items():
        yield Fact(of.dataset, what), checksum
