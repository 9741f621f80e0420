"""What progress says in numbers."""

import pytest

from extract.machine.progress import Progress, per_second, time_left


@pytest.mark.parametrize(
    ("rate", "text"),
    [(4.1666, "4.17 images/s"), (139.4, "139 images/s"), (1869.9, "1_870 images/s")],
)
def test_a_rate_is_never_written_with_an_exponent(rate, text):
    assert per_second(rate, "images") == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(44.4, "44 s left"), (599, "599 s left"), (11100, "3:05:00 left")],
)
def test_hours_are_written_as_hours(seconds, text):
    assert time_left(seconds) == text


def test_nothing_done_yet_has_no_time_left(monkeypatch, capsys):
    monkeypatch.setattr("extract.machine.progress.LINE_SECONDS", 0)
    with Progress("toy", 10) as progress:
        progress.reach(0)
        assert capsys.readouterr().err == "  toy: 0/10 images, 0 images/s\n"
