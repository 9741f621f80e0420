"""Linear segmentation and segmentation by neighbours, on a set made of shapes."""

import shlex

import numpy as np
import pytest
from looking import some
from numpy.testing import assert_allclose
from shapes import make_masks_file, make_shapes, make_token_file

from cache.errors import RequestError
from probe.cli import make_parser
from probe.config import ProbeConfig, RunConfig
from probe.episodes.draw import FewShotConfig
from probe.finding import FindConfig, choose_asked
from probe.kinds import segment as segment_module
from probe.kinds import segment_knn
from probe.kinds.segment import Segment, draw_rows, patches_of
from probe.kinds.segment_knn import Bank, SegmentKnn, draw_patches
from probe.places import PlacesConfig
from probe.report.rows.stored import read_stored, stored_files
from probe.report.rows.typed import line_of
from probe.run import run_probe
from probe.solvers import patches as solver
from probe.solvers.neighbours import neighbours
from probe.solvers.patches import Patches

KINDS = [Segment(), Segment(solver="ridge"), SegmentKnn(k=(5, 20))]
FIXED = [Segment((0.1,)), Segment(solver="ridge", penalties=(0.1,)), SegmentKnn((5,))]


@pytest.fixture(scope="module")
def there(tmp_path_factory):
    """36 images with tokens that tell a patch's shares nearly, and a layer that is noisier."""
    root = tmp_path_factory.mktemp("shapes")
    shapes = make_shapes(n=36, noise=0.05, grid=(16, 16), side=128)
    make_token_file(root, shapes, layers=(5, 11), size=128)
    make_masks_file(root, shapes)
    return root


def ask(root, kind, tmp_path, **more):
    run = RunConfig(results=tmp_path / "results")
    config = ProbeConfig(kind, FindConfig(features=root), run=run, **more)
    found, _ = choose_asked(config.find, tokens=True)
    said = []
    rows, failures = run_probe(config, found, said.append)
    return rows, [failure.why for failure in failures], said


@pytest.mark.parametrize("kind", KINDS)
def test_good_tokens_reach_the_bound(there, tmp_path, kind):
    rows, failures, _ = ask(there, kind, tmp_path, places=PlacesConfig(layer="5"))
    assert not failures
    (row,) = rows
    measured = row.measured.test
    assert measured["dice"].value > measured["bound"].value - 0.02
    assert row.answered.settings["chosen_by"].startswith("val ")
    key = next(name for name in row.answered.chosen if name.startswith("val_"))
    assert len(row.answered.chosen[key]) == len(kind_among(kind))


def kind_among(kind):
    if isinstance(kind, SegmentKnn):
        return kind.k
    return kind.penalties if kind.solver == "ridge" else kind.strengths


@pytest.mark.parametrize("kind", FIXED)
def test_few_shots_of_all_images_are_the_full_fit(there, tmp_path, kind):
    at = PlacesConfig(layer="5")
    (few,), failures, _ = ask(there, kind, tmp_path, places=at, few_shot=FewShotConfig((12,), 2))
    assert not failures
    (full,), _, _ = ask(there, kind, tmp_path / "full", places=at)
    assert few.n["train"] == full.n["train"] == 12
    for name in ("dice", "jaccard"):
        assert few.measured.test[name].value == pytest.approx(full.measured.test[name].value)
    assert few.answered.settings["chosen_by"] == "fixed"


def test_several_to_choose_from_are_refused_of_episodes(there, tmp_path):
    for kind, what in zip(KINDS, ("9 strengths", "25 penalties", "several k"), strict=True):
        with pytest.raises(RequestError, match=f"one of {what}"):
            ask(there, kind, tmp_path, few_shot=FewShotConfig((2,), 2))


@pytest.mark.parametrize(("one", "several"), [*zip(FIXED, KINDS, strict=True)])
def test_without_val_one_setting_answers_and_several_are_refused(tmp_path, one, several):
    shapes = make_shapes(n=12)
    make_token_file(tmp_path, shapes, split=np.repeat([0, 2], 6).astype(np.uint8))
    make_masks_file(tmp_path, shapes)
    (row,), failures, _ = ask(tmp_path, one, tmp_path)
    assert not failures
    assert row.answered.settings["chosen_by"] == "fixed"
    rows, (why,), _ = ask(tmp_path, several, tmp_path)
    assert not rows
    assert "chosen on val" in why


def test_layers_side_by_side_and_compared(there, tmp_path):
    kind = Segment((0.01, 0.1))
    compared, failures, _ = ask(there, kind, tmp_path, places=PlacesConfig(layer="all"))
    assert not failures
    losses = [min(row.answered.chosen["val_log_loss"]) for row in compared]
    (joined,), _, _ = ask(there, kind, tmp_path / "joined", places=PlacesConfig(layer="5+11"))
    assert losses[0] < losses[1]  # layer 11 is layer 5 and noise
    assert min(joined.answered.chosen["val_log_loss"]) < losses[0] + 0.01
    assert all("dice" not in row.measured.test for row in compared)


def test_the_same_row_twice(there, tmp_path):
    for number, kind in enumerate(KINDS):
        (one,), _, _ = ask(there, kind, tmp_path / f"{number} a")
        (other,), _, _ = ask(there, kind, tmp_path / f"{number} b")
        assert one.answered.chosen == other.answered.chosen
        assert "masks_values" in one.scores
        for name in some(one.scores):
            assert np.array_equal(one.scores[name], other.scores[name])


def test_above_what_is_held_a_sample_of_images_chooses(there, tmp_path, monkeypatch):
    (exact,), _, _ = ask(there, Segment(), tmp_path / "all")
    monkeypatch.setattr(solver, "HELD_ROWS", 1100)  # of 12 images with 256 patches
    (row,), failures, said = ask(there, Segment(), tmp_path)
    assert not failures
    assert row.answered.chosen["sample"] == {"images": 4, "patches": 1024, "seed": 0}
    assert any("chosen by fits to 4 of 12 training images" in mark for mark in row.marks)
    assert any(
        "3_072 training patches x 12 features; the strength is chosen" in line for line in said
    )
    assert any("fitted to all 3_072 patches" in line for line in said)
    assert "sample" not in exact.answered.chosen
    (whole,), _, _ = ask(there, Segment((row.answered.chosen["strength"],)), tmp_path / "one")
    (other,), _, _ = ask(there, Segment(sample_seed=1), tmp_path / "seed")
    assert other.answered.chosen["val_log_loss"] != row.answered.chosen["val_log_loss"]
    dice = [of.measured.test["dice"].value for of in (row, whole)]
    assert dice[0] == pytest.approx(dice[1], abs=1e-3)


def test_patches_are_those_that_count_in_the_order_of_rows(tmp_path, monkeypatch):
    shapes = make_shapes(n=6, noise=0.05)
    for mask in shapes.masks:
        mask[:20, 30:] = 255
    make_token_file(tmp_path, shapes)
    make_masks_file(tmp_path, shapes, ignore=255)
    maps = maps_of(tmp_path, monkeypatch)
    rows = np.array([4, 1, 2])
    monkeypatch.setattr(segment_module, "READ_BYTES", 1)  # an image at a time
    monkeypatch.setattr(segment_module, "BLOCK_CELLS", 12 * 10)
    patches = patches_of(maps, rows)
    blocks = list(patches.read())
    assert max(len(x) for x, _ in blocks) == 10
    x, shares = (np.concatenate(part) for part in zip(*blocks, strict=True))
    expected = maps.shares(rows).reshape(-1, 3)
    kept = expected.sum(axis=1) > 0
    assert not kept.all()
    assert patches.n_rows == len(x) == kept.sum()
    assert np.array_equal(shares, expected[kept])
    assert np.array_equal(x, maps.tokens(rows).reshape(-1, 12)[kept])
    drawn = draw_rows(maps, np.arange(6), 3 * 64 + 5, seed=1)
    assert len(drawn) == 3
    assert (np.diff(drawn) > 0).all()
    assert len(draw_rows(maps, np.arange(6), 5, seed=1)) == 1


def maps_of(root, monkeypatch):
    """The maps that a kind is given."""
    held = []
    with monkeypatch.context() as patch:
        patch.setattr(
            Segment, "fit_maps", lambda self, problem, *_: held.append(problem.maps) or ()
        )
        ask(root, Segment(), root)
    return held[0]


def test_a_class_that_train_lacks_is_named_and_never_predicted(tmp_path):
    shapes = make_shapes(n=24, noise=0.05)
    for mask in shapes.masks[:8]:
        mask[mask == 2] = 0
    make_token_file(tmp_path, shapes)
    make_masks_file(tmp_path, shapes)
    for number, kind in enumerate(KINDS):
        (row,), failures, _ = ask(tmp_path, kind, tmp_path / str(number))
        assert not failures
        assert "train has no pixel of square: never predicted" in row.marks
        assert 2 not in row.scores["masks_values"]


@pytest.mark.parametrize("kind", [Segment(), SegmentKnn()])
def test_masks_that_ignore_all_of_train_are_refused(tmp_path, kind):
    shapes = make_shapes(n=24)
    for mask in shapes.masks[:8]:
        mask[:] = 255
    make_token_file(tmp_path, shapes)
    make_masks_file(tmp_path, shapes, ignore=255)
    rows, (why,), _ = ask(tmp_path, kind, tmp_path)
    assert not rows
    assert "masks ignore them all" in why


def test_votes_are_of_shares_and_mass(monkeypatch):
    rng = np.random.default_rng(0)
    x, shares = rng.normal(size=(40, 5)), rng.dirichlet(np.ones(3), 40) * rng.random((40, 1))
    queries, truth = rng.normal(size=(11, 5)), rng.dirichlet(np.ones(3), 11)
    monkeypatch.setattr(segment_knn, "CHUNK_VOTES", 40)
    bank = Bank(x, shares, 0.1, k=7)
    similarities, indices = neighbours(x, queries, 7)
    expected = np.zeros((11, 3))
    for q in range(11):
        for similarity, i in zip(similarities[q], indices[q], strict=True):
            expected[q] += np.exp(float(similarity) / 0.1) * shares[i]
        expected[q] /= expected[q].sum()
    assert_allclose(bank(queries), expected, rtol=1e-6)
    smoothed = (7 * expected + shares.sum(axis=0) / shares.sum()) / 8
    loss = -(truth * np.log(smoothed)).sum() / truth.sum()
    assert_allclose(bank.losses(queries, truth, [7]), [loss], rtol=1e-6)


def test_k_is_chosen_on_patches_of_val(there, tmp_path, monkeypatch):
    maps = maps_of(there, monkeypatch)
    (row,), _, _ = ask(there, SegmentKnn(k=(5, 20)), tmp_path)
    train, val = (
        draw_patches(patches_of(maps, np.arange(first, first + 12)), 10**6, 0) for first in (0, 12)
    )
    expected = Bank(*train, 0.07).losses(*val, [20, 5])
    assert_allclose(row.answered.chosen["val_log_loss"], expected, rtol=1e-6)


def test_a_bank_is_drawn_by_chance_and_in_order():
    x = np.arange(100.0)[:, None]
    patches = Patches.of(x, np.ones((100, 2)) / 2)
    found, shares = draw_patches(patches, 30, 0)
    assert len(found) == len(shares) == len(np.unique(found)) == 30
    assert (np.diff(found[:, 0]) > 0).all()
    assert not np.array_equal(found, draw_patches(patches, 30, 1)[0])
    assert np.array_equal(draw_patches(patches, 200, 0)[0], x)


def test_the_bank_is_said_in_the_row(there, tmp_path):
    (row,), failures, _ = ask(there, SegmentKnn((5, 20), bank=500), tmp_path)
    assert not failures
    assert row.answered.chosen["bank"] == {"patches": 500, "of": 3072}
    assert "its bank is 500 of 3_072 training patches, by chance" in row.marks
    rows, (why,), _ = ask(there, SegmentKnn((501,), bank=500), tmp_path / "k")
    assert not rows
    assert "the bank has 500 patches, which are fewer than --k 501" in why


@pytest.mark.parametrize(
    ("kind", "more", "flags"),
    [
        (Segment(), {}, "--kind segment"),
        (Segment(solver="ridge"), {}, "--kind segment --solver ridge"),
        (Segment((0.1, 1.0)), {}, "--kind segment --strengths 0.1,1.0"),
        (Segment((0.01,)), {"few_shot": FewShotConfig((2,), 2)}, "--kind segment"),
        (SegmentKnn(), {}, "--kind segment-knn"),
        (SegmentKnn((5,), 0.1, 900), {}, "--kind segment-knn --k 5 --temperature 0.1 --bank 900"),
    ],
)
def test_a_row_tells_the_line_that_makes_it(there, tmp_path, kind, more, flags):
    rows, failures, _ = ask(there, kind, tmp_path, **more)
    assert not failures
    stored, _ = read_stored(tmp_path / "results", stored_files(tmp_path / "results"))
    line = line_of(stored[0]).without("--layer", "--pool", "--model", "--data", "--size")
    line = line.without("--shots", "--episodes", "--draw")
    assert str(line) == f"probe {flags}"
    words = [*shlex.split(str(line))[1:], *(["--shots", "2"] if more else [])]
    options = make_parser().parse_args(words)
    assert type(kind).read(options, {}) == kind
    assert len(rows) == 1


def test_strengths_are_not_of_ridge():
    options = make_parser().parse_args("--kind segment --solver ridge --strengths 1".split())
    with pytest.raises(RequestError, match="--strengths are of --solver logistic"):
        Segment.read(options, {})
    options = make_parser().parse_args("--kind segment --solver ridge --shots 2".split())
    assert Segment.read(options, {}).penalties == (0.1,)
