"""Studies to write as a page, one of them of names that mean something to HTML."""

import dataclasses

from contending import answer, labels_of, scores_of
from drawing import few_shot, kinds, layered

from probe.report.findings.headline import Record
from probe.report.rows.contenders import contenders_of
from probe.report.rows.ledger import read_ledger
from probe.report.rows.people import People
from probe.report.study.make import Studied, make_study

HOSTILE = (
    '<script>alert("1")</script>',
    "</script><img src=x onerror=alert(2)>",
    "javascript:alert(3)",
    "\"quotes\" 'and' & `ticks` <b>",
)


def study_of(rows, root, metric="auc", **facts):
    """A study of rows that are stored nowhere; ``root`` has no ledger and no feature files."""
    record = Record(rows, read_ledger(root, rows))
    return make_study(Studied(rows, contenders_of(rows), People(root), record, metric, **facts))


def usual_rows():
    """Kinds, layers and few shots of three encoders."""
    return [*kinds(), *layered(), *few_shot()]


def hostile_rows(n=90):
    """Encoders, a data set, marks and classes of hostile names, which learnt twelve layers."""
    labels = labels_of(n, 3)
    rows = []
    for i, model in enumerate(HOSTILE):
        for layer in range(4):
            scores = scores_of(labels, 0.5 + i / 2 + layer / 4, 10 * i + layer, 3)
            of = answer(model, scores, labels, dataset=HOSTILE[i % 2], layer=layer, pool="cls")
            arrays = {**of.row.scores, "class_names": list(HOSTILE[:3])}
            row = dataclasses.replace(of.row, scores=arrays, marks=HOSTILE[1:3])
            rows.append(dataclasses.replace(of, row=row))
    return rows
