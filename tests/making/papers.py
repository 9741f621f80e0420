"""Rows as they would be of a paper's encoder."""

import dataclasses

from answering import make_row

from probe.metrics.intervals import Interval
from probe.report.rows.stored import StoredRow

DINO = "vit_base_patch16_224.dino"


def make_stored(
    kind="adamw",
    dataset="dermamnist",
    *,
    model="dino",
    encoder=DINO,
    label="",
    protocol="wu2025",
    changed=(),
    prepared="wu2025",
    size=224,
    source=224,
    resize="longest (PIL)",
    n_layers=12,
    seed=0,
    posed=None,
    **probe,
):
    """A row of DINO on DermaMNIST, asked as wu2025 did, but for what is said.

    Args:
        values: metric -> number, in ``probe``; acc .84 and auc .97 where none are named.
    """
    values = probe.pop("values", {"acc": 0.84, "auc": 0.97})
    row = make_row(kind, dataset, seed, **{"layer": 11, **probe})
    key = {"source_size": source, "layers": {"of": n_layers}, "transform": {"resize": resize}}
    return StoredRow(
        dataclasses.replace(
            row,
            encoded=dataclasses.replace(
                row.encoded,
                **{"model": model, "encoder": encoder, "own_label": label, "size": size},
                **{"key": key, "protocol": prepared, "digest": (model + "0" * 64)[:64]},
            ),
            posed=posed or row.posed,
            answered=dataclasses.replace(
                row.answered,
                protocol={"name": protocol, "changed": list(changed)} if protocol else {},
            ),
            measured=dataclasses.replace(
                row.measured,
                test={
                    name: Interval(value, value - 0.02, value + 0.01)
                    for name, value in values.items()
                },
            ),
        )
    )
