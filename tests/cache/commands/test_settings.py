"""Settings as flags: the way there and back, what is refused, what people read."""

import argparse
from dataclasses import MISSING, dataclass, replace
from pathlib import Path

import pytest

from cache.commands.settings import (
    add_flags,
    as_table,
    changed,
    check,
    given,
    refuse_others,
    setting,
    words,
)
from cache.errors import RequestError


@dataclass(frozen=True)
class Neighbours:
    """The grammar of a list that may be chosen from."""

    k: tuple[int, ...]
    one: bool = False

    @classmethod
    def parse(cls, text):
        word, _, listed = text.partition(":")
        numbers = (listed or "1,5") if word == "auto" else text
        if not all(number.isdecimal() for number in numbers.split(",")):
            raise RequestError(f"--k takes numbers, or auto; not {text!r}")
        return cls(tuple(map(int, numbers.split(","))), word == "auto")

    def __str__(self):
        return ("auto:" if self.one else "") + ",".join(map(str, self.k))


def one_or_three(text):
    numbers = tuple(map(float, text.split(",")))
    if len(numbers) not in (1, 3):
        raise argparse.ArgumentTypeError(f"takes one number or three, not {text!r}")
    return numbers * 3 if len(numbers) == 1 else numbers


@dataclass(frozen=True)
class Knn:
    k: Neighbours = setting(Neighbours((10, 20)), "how many", read=Neighbours.parse)
    metric: str = setting("cosine", "", among=("cosine", "euclidean"))
    temperature: float = setting(0.07, "of the vote", above=0)
    cut_off: bool = False

    def __post_init__(self):
        check(self)


@dataclass(frozen=True)
class AdamW:
    lr: float = setting(1e-3, "learning rate", above=0)
    batch_size: int = setting(64, "", short="-b", metavar="N", least=1)
    epochs: int | None = setting(None, "as often", least=1)
    choose_by: str = setting("loss", "by what", among=("loss", "acc"))
    seeds: tuple[int, ...] = setting((0, 1), "of order", least=0, below=2**32, unlike=True)

    def __post_init__(self):
        check(self)


@dataclass(frozen=True)
class Heads:
    lr: tuple[float, ...] = setting((0.1, 1e-5), "", above=0, unlike=True, shown="2 of them")
    batch_size: int = setting(128, "", least=1)
    epochs: int = setting(10, "of the grid", least=1)
    choose_by: str = setting("acc", "", among=("acc", "auc"))

    def __post_init__(self):
        check(self)


@dataclass(frozen=True)
class Images:
    models: tuple[str, ...] = setting(MISSING, "which", flag="--model", short="-m", metavar="NAMES")
    resize: str | None = setting(None, "50 % | more", among=("scale", "pad"), shown="scale")
    antialias: bool | None = setting(None, "when made smaller", shown="yes")
    decay: bool = setting(True, "")
    frozen: bool = setting(False, "the norm", negated=True)
    strict: bool = setting(False, "refuse copies")
    mean: tuple[float, ...] | None = setting(None, "", read=one_or_three, takes="three", most=1)
    layers: str = setting("all", "all or -1")
    suffix: str = setting("", "added")
    root: Path | None = setting(None, "", metavar="DIR", shown="~/.images")
    templates: tuple[str, ...] = setting((), "with {}", flag="--template", repeated=True)
    share: float = setting(0.5, "", least=0, below=1)
    workers: int | None = setting(None, "", short="-j", least=0, most=256, keyed=False)

    def __post_init__(self):
        check(self)


def parse(text, *classes, **facts):
    parser = argparse.ArgumentParser(exit_on_error=False)
    add_flags(parser, *classes, **facts)
    return parser.parse_args(text.split())


def read(text, of):
    return of(**given(parse(text, of), of))


@pytest.mark.parametrize(
    ("of", "text", "differs"),
    [
        (Knn, "", {}),
        (Knn, "--k auto:3,7", {"k": Neighbours((3, 7), True)}),
        (Knn, "--k 4 --metric euclidean", {"k": Neighbours((4,)), "metric": "euclidean"}),
        (Knn, "--temperature 0.3000000000001", {"temperature": 0.3000000000001}),
        (AdamW, "-b 8 --lr 1e-05 --seeds 3,4", {"lr": 1e-5, "batch_size": 8, "seeds": (3, 4)}),
        (AdamW, "--epochs 2", {"epochs": 2}),
        (Heads, "--lr .1,.01", {"lr": (0.1, 0.01)}),
        (Images, "-m a,b --layers=-1", {"models": ("a", "b"), "layers": "-1"}),
        (Images, "-m a --no-antialias --strict", {"antialias": False, "strict": True}),
        (Images, "-m a --antialias --frozen", {"antialias": True, "frozen": True}),
        (Images, "-m a --no-decay --no-frozen", {"decay": False}),
        (Images, "-m a --mean=-.5 --root x/y", {"mean": (-0.5,) * 3, "root": Path("x/y")}),
        (Images, "-m a --template {} --template=-{},x", {"templates": ("{}", "-{},x")}),
        (Images, "-m a --suffix= --resize pad -j 3", {"resize": "pad", "workers": 3}),
    ],
)
def test_there_and_back(of, text, differs):
    config = read(text, of)
    usual = of(("a",)) if of is Images else of()
    assert config == replace(usual, **differs)
    assert changed(config, usual) == differs
    again = read(" ".join(words(config)), of)
    assert again == replace(config, **({"workers": None} if of is Images else {}))


def test_only_what_was_typed_is_given():
    options = parse("--metric cosine --epochs 3", Knn, AdamW)
    assert given(options, Knn, AdamW) == {"metric": "cosine", "epochs": 3}
    assert given(argparse.Namespace(strict=None), Images) == {}


def test_words_say_switches_first_and_of_some_bases_only():
    @dataclass(frozen=True)
    class Both(Heads, Images):
        models: tuple[str, ...] = ("a",)

    config = Both(resize="pad", strict=True, antialias=False, epochs=2)
    assert words(config) == ["--no-antialias", "--strict", "--resize", "pad", "--epochs", "2"]
    assert words(config, Heads) == ["--epochs", "2"]


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Knn(metric="x"), "--metric takes cosine, euclidean, not 'x'"),
        (lambda: Knn(temperature=0.0), "--temperature takes a number above 0, not 0.0"),
        (lambda: Knn(temperature=float("nan")), "--temperature takes a number above 0, not nan"),
        (lambda: read("--k x", Knn), "--k takes numbers, or auto; not 'x'"),
        (lambda: AdamW(batch_size=0), "--batch-size takes 1 and more, not 0"),
        (lambda: AdamW(seeds=()), "--seeds takes one or more, each once; not nothing"),
        (lambda: AdamW(seeds=(1, 1)), "--seeds takes one or more, each once; not 1,1"),
        (lambda: AdamW(seeds=(1, 2**32)), "--seeds takes 0 to below 4294967296, not 4294967296"),
        (lambda: Heads(lr=(0.1, -0.5)), "--lr takes numbers above 0, not -0.5"),
        (lambda: read("--lr x", Heads), "--lr takes numbers, comma separated; not 'x'"),
        (lambda: read("--metric=--", Knn), "--metric takes a value, not '--'"),
        (lambda: read("--lr ,", Heads), "--lr takes one or more, comma separated; not ','"),
        (lambda: Images(("a",), workers=257), "--workers takes 0 to 256, not 257"),
        (lambda: Images(("a",), share=1), "--share takes 0 to below 1, not 1"),
        (lambda: Images(("a",), mean=(1, 2, 0)), "--mean takes three; not 1,2,0"),
        (
            lambda: read("--mean 1,2", Images),
            "argument --mean: takes one number or three, not '1,2'",
        ),
    ],
)
def test_refusals(make, said):
    with pytest.raises(RequestError) as caught:
        make()
    assert str(caught.value) == said


def test_flags_of_several_classes_are_one_flag_of_whom_it_belongs_to():
    options = parse("--lr .1,.2 --choose-by auc --batch-size 2", AdamW, Heads)
    assert given(options, Heads) == {"lr": (0.1, 0.2), "choose_by": "auc", "batch_size": 2}
    with pytest.raises(RequestError, match="--lr takes numbers, not '.1,.2'"):
        given(options, AdamW)
    kinds = {"knn": Knn, "adamw": AdamW, "heads": Heads}
    refuse_others(options, "--kind", "heads", kinds)
    with pytest.raises(RequestError) as caught:
        refuse_others(options, "--kind", "knn", kinds)
    assert str(caught.value) == "--lr belongs to --kind adamw or heads, not to knn"
    with pytest.raises(RequestError) as caught:
        refuse_others(parse("--seeds 1", AdamW), "--kind", "heads", kinds)
    assert str(caught.value) == "--seeds belongs to --kind adamw, not to heads"


def test_help_says_the_default_of_each_class():
    parser = argparse.ArgumentParser()
    add_flags(parser, Knn, AdamW, Heads)
    add_flags(parser, Images, shown={"resize": "must be named"})
    helps = {
        [n for n in a.option_strings if n.startswith("--")][-1]: " ".join((a.help or "").split())
        for a in parser._actions
    }
    assert helps["--metric"] == "(cosine)"
    assert helps["--lr"] == "learning rate (0.001; 2 of them)"
    assert helps["--batch-size"] == "(64; 128)"
    assert helps["--epochs"] == "as often, of the grid (10)"
    assert helps["--seeds"] == "of order (0,1)"
    assert helps["--no-decay"] == "(yes)"
    assert helps["--no-frozen"] == "the norm (no)"
    assert helps["--strict"] == "refuse copies"
    assert helps["--resize"] == "50 %% | more (must be named)"
    assert helps["--suffix"] == "added"
    parser.format_help()
    (choices,) = (a.choices for a in parser._actions if "--choose-by" in a.option_strings)
    assert choices == ["acc", "auc", "loss"]


def test_a_table_for_a_page():
    lines = as_table(Knn, Images).splitlines()
    assert len(lines) == 2 + 3 + 13
    assert "| `--metric` cosine, euclidean | cosine |  |" in lines
    assert r"| `--resize` scale, pad | scale | 50 % \| more |" in lines
    assert "| `--model NAMES` |  | which |" in lines


def test_it_loads_little(tmp_path):
    import subprocess
    import sys

    code = "import sys, cache.commands.settings; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout
    assert not {"numpy", "h5py", "torch"} & set(loaded.split())
