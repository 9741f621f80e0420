"""The pages: what they link to is there, their commands are real, their made parts are the code's."""

import argparse
import re
import shlex

import pytest
from here import REPOSITORY
from pages import MADE, PAGES, PARTS, remade

import cache.cli
import extract.cli
import finetune.cli
import probe.cli
import probe.report.cli

MAINS = {
    **{"cache": cache.cli, "extract": extract.cli, "finetune": finetune.cli},
    **{"probe": probe.cli, "report": probe.report.cli},
}
TEXTS = {
    path.relative_to(REPOSITORY).as_posix(): path.read_text(encoding="utf-8")
    for folder in (".", "cache", "extract", "finetune", "probe", "probe/report")
    for path in sorted((REPOSITORY / folder).glob("*.md"))
}
LINK = re.compile(r"\]\(([^)\s]+)\)|(?:src|srcset)=\"([^\"]+)\"")
NAMES = "|".join(MAINS)
COMMAND = re.compile(rf"^    (?:\$ )?(?:torchrun .* -m )?((?:{NAMES}) .*)$", re.M)
COMMANDS = sorted({c for page, text in TEXTS.items() for c in COMMAND.findall(text)})


def anchors(text):
    """The names that a page's headings have in links."""
    headings = re.findall(r"^#+ (.*)$", text, re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", TEXTS)
def test_links_lead_somewhere(page):
    for pair in LINK.findall(TEXTS[page]):
        place, _, anchor = "".join(pair).partition("#")
        if re.match("[a-z]+:", place):
            continue
        path = (REPOSITORY / page).parent / place if place else REPOSITORY / page
        assert path.exists(), f"{page}: {place}"
        if anchor:
            assert anchor in anchors(path.read_text(encoding="utf-8")), f"{page}: #{anchor}"


def test_the_front_page_leads_to_every_page():
    linked = {"".join(pair).partition("#")[0] for pair in LINK.findall(TEXTS["README.md"])}
    assert set(TEXTS) - {"README.md"} <= linked


def test_the_front_page_is_short():
    assert len(TEXTS["README.md"].splitlines()) <= 160


class Parsed(BaseException):
    """What a command's parser made of its words."""


def test_there_are_commands():
    assert len(COMMANDS) > 60


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_are_real(command, monkeypatch):
    """As far as their parser can tell: no flag and no choice that isn't there."""
    parse = argparse.ArgumentParser.parse_known_args

    def stop(parser, *arguments, **named):
        raise Parsed(parse(parser, *arguments, **named)[1])

    monkeypatch.setattr(argparse.ArgumentParser, "parse_known_args", stop)
    name, *words = shlex.split(command, comments=True)
    with pytest.raises(Parsed) as parsed:
        MAINS[name].main(words)
    (left,) = parsed.value.args
    assert [word for word in left if word.startswith("-")] == []


@pytest.mark.parametrize("page", PAGES)
def test_made_parts_are_made_from_the_code(page):
    assert remade(TEXTS[page]) == TEXTS[page], "run: python tests/making/pages.py"


def test_every_made_part_has_its_page():
    assert {part[1] for page in PAGES for part in MADE.findall(TEXTS[page])} == set(PARTS)
