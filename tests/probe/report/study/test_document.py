"""One HTML file: nothing of the network, nothing unescaped, all data in it."""

import base64
import dataclasses
import gzip
import hashlib
import io
import json
import re
import shlex
from html.parser import HTMLParser

import numpy as np
import pytest
from answering import make_row
from studying import HOSTILE, hostile_rows, study_of, usual_rows

from cache.errors import RequestError
from probe.report.cli import main
from probe.report.commands.page import make_parser, typed
from probe.report.formats.write import write as write_page
from probe.report.study import document
from probe.report.study.cards import sheet
from probe.report.study.parts import Figure, Section, Study
from probe.results import write_row

pytest.importorskip("plotly")


class Read(HTMLParser):
    """Elements with their attributes, and the text of scripts."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.scripts, self._in = [], [], None
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        self._in = dict(attributes) if tag == "script" else None

    def handle_data(self, data):
        if self._in is not None:
            self.scripts.append((self._in, data))
            self._in = None


def unpacked(text):
    return gzip.decompress(base64.b64decode(text)).decode()


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return study_of(usual_rows(), tmp_path_factory.mktemp("results"))


@pytest.fixture(scope="module")
def page(study):
    return document.write(study)


def test_a_figure_holds_its_frame_as_the_csv_that_report_figure_writes(study, page):
    frames = [b.frame for part in study.sections for b in part.blocks if isinstance(b, Figure)]
    data = [json.loads(unpacked(t)) for of, t in Read(page).scripts if of.get("class") == "data"]
    assert len(frames) == len(data) > 4
    for frame, of in zip(frames, data, strict=True):
        assert of["csv"] == write_page(frame.page(), "csv")


def test_commands_of_a_figure_are_folded_away_a_line_each(study):
    figure = next(b for part in study.sections for b in part.blocks if isinstance(b, Figure))
    frame = dataclasses.replace(
        figure.frame, commands=("probe --a '<b>'", "probe --b"), notes=("Left out: 1_234 rows",)
    )
    part = Section("one", "One", (dataclasses.replace(figure, frame=frame),))
    text = document.write(Study("", (), (), (part,), ""))
    assert "<details><summary>2 commands make what is missing</summary><pre>" in text
    assert "<pre>probe --a &#x27;&lt;b&gt;&#x27;\nprobe --b</pre></details>" in text
    assert "<p>Left out: 1\u202f234 rows.</p>" in text


def test_no_network_and_no_other_script_may_be_asked_for(page):
    read = Read(page)
    policy = next(a["content"] for t, a in read.elements if t == "meta" and "http-equiv" in a)
    assert "default-src 'none'" in policy
    own = next(text for of, text in read.scripts if not of)
    plotly = next(unpacked(text) for of, text in read.scripts if of.get("id") == "plotly")
    for script in (own, plotly):
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy
    of_scripts = policy.partition("script-src ")[2]
    assert "unsafe" not in of_scripts
    assert all(
        "://" not in str(a.get("href", "")) + str(a.get("src", "")) for _, a in read.elements
    )


def test_hostile_names_are_text_everywhere(tmp_path):
    text = document.write(study_of(hostile_rows(), tmp_path, title=HOSTILE[1]))
    read = Read(text)
    assert {tag for tag, _ in read.elements} & {"img", "iframe"} == set()
    assert not [a for _, a in read.elements if any(name.startswith("on") for name in a)]
    assert all(str(a.get("href", "#")).startswith("#") for _, a in read.elements)
    assert len([1 for tag, a in read.elements if tag == "script" and not a]) == 1
    for of, packed in read.scripts:
        if of.get("class") != "data":
            continue
        for plots in json.loads(unpacked(packed))["plots"]:
            said = json.dumps(plots)
            assert not re.search(r"<(?!br>|b>|/b>)", said)  # plotly's own breaks and bold alone


def test_a_figure_of_a_hostile_name_has_a_plain_anchor(study):
    figure = next(b for part in study.sections for b in part.blocks if isinstance(b, Figure))
    named = Figure(f"cka-{HOSTILE[1]}", HOSTILE[0], figure.frame)
    part = Section("one", "One", (named,))
    read = Read(document.write(Study("", (), (), (part,), "")))
    (found,) = (a for tag, a in read.elements if tag == "figure")
    assert found["id"] == "figure-cka--script-img-src-x-onerror-alert-2-"


def test_without_plotly_the_page_is_refused(monkeypatch):
    monkeypatch.setattr(document, "find_spec", lambda name: None)
    with pytest.raises(RequestError, match=r"pip install 'medprobe\[report\]'"):
        document.check_plotly()


def test_small_pictures_are_one_png():
    from PIL import Image

    picture = Image.open(io.BytesIO(sheet(np.full((3, 4, 4), 9, np.uint8))))
    assert picture.size == (3 * 4 + 2, 4)


def test_the_command_writes_a_page(tmp_path, capsys):
    write_row(tmp_path / "results", make_row())
    out = tmp_path / "study.html"
    words = ["page", "--results", str(tmp_path / "results"), "--features", str(tmp_path)]
    assert main([*words, "-o", str(out), "--title", "My study"]) == 0
    assert "<h1>My study</h1>" in out.read_text()
    assert "1 row, " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"), [([], "name a file"), (["-o", "x.pdf"], "ends in .html")]
)
def test_nowhere_to_write_is_refused(capsys, words, said):
    with pytest.raises(SystemExit):
        main(["page", *words])
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    "line",
    [
        "report page -o study.html",
        "report page --data a,b --where layer=1 --where pool=cls --metric acc --title 'It; `is`' -o x.html",
        "report page --question 'a > b by auc on toys' -o x.html",
    ],
)
def test_the_line_that_makes_a_page_is_said_as_typed(line, tmp_path):
    words = shlex.split(line)
    words[-1] = str(tmp_path / words[-1])  # but for folders
    options = make_parser("report page").parse_args([*words[2:], "--results", str(tmp_path)])
    said = typed(options)
    again = make_parser("report page").parse_args(shlex.split(said)[2:])
    flags = ("data", "where", "metric", "title", "question")
    assert [getattr(again, f) for f in flags] == [getattr(options, f) for f in flags]
    assert ("--metric" in said) == ("--metric" in line)
    assert str(tmp_path) not in said
