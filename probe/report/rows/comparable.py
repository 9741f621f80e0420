"""Which contenders may stand in one table: those that were asked about the same samples.

Labels, splits and patients are in no key: they may be corrected in one encoder's file and not in
another's. Each row holds the checksums of the tables that it was asked with, so rows that differ in
one of them, though they were asked alike, are told apart.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cache.format.key import canonical_json
from probe.report.rows.contenders import Contender
from probe.results import Encoded, Row, TrainedOn

LABELS, SPLIT = "labels", "split"
NOT_TO_COMPARE = (
    "Blocks are of different samples: numbers of one say nothing beside those of another. Where the "
    "images are the same, `extract` of any of these encoders lays one table over all their files; "
    "where some came or went, `extract` each of them. Then ask again."
)


@dataclass(frozen=True)
class Fact:
    """What rows that are compared must agree on."""

    dataset: str
    what: str  # LABELS, SPLIT, or one of Encoded.tables: patients, ids, images of a sample
    asked: str = ""  # how: another target, or another fold, is another question


@dataclass
class Block:
    """Contenders that agree."""

    contenders: list[Contender]
    facts: dict[Fact, Any]  # -> a checksum or digest


def make_blocks(contenders: Sequence[Contender]) -> list[Block]:
    """Contenders in as few blocks as their order gives; in a block no two disagree.

    Of a fact that an old row doesn't hold nobody knows, so that it fits anywhere.
    """
    blocks: list[Block] = []
    for contender in contenders:
        facts = {fact: value for of in contender.rows for fact, value in _facts(of.row)}
        for block in blocks:
            if not _conflicts(facts, block.facts):
                block.contenders.append(contender)
                block.facts.update(facts)
                break
        else:
            blocks.append(Block([contender], facts))
    return blocks


def describe_block(number: int, blocks: Sequence[Block]) -> str:
    """A block's heading: "block 2 of 2: other labels and split of scans than in block 1"."""
    words = f"block {number} of {len(blocks)}"
    said = describe_conflicts(blocks[number - 1], blocks[0])
    return f"{words}: {said} than in block 1" if said else words


def describe_conflicts(block: Block, other: Block) -> str:
    """In what samples differ: "other labels and split of scans"; "" where in nothing."""
    whats: dict[str, list[str]] = {}
    for fact in _conflicts(block.facts, other.facts):
        listed = whats.setdefault(fact.dataset, [])
        listed += [] if fact.what in listed else [fact.what]
    said = [f"{_listed(names)} of {dataset}" for dataset, names in whats.items()]
    return f"other {', '.join(said)}" if said else ""


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
    for what, asked in ((LABELS, labels), (SPLIT, divided)):
        if what in of.samples:
            yield Fact(of.dataset, what, asked), of.samples[what]
    for what, checksum in of.tables.items():
        yield Fact(of.dataset, what), checksum
