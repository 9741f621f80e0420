"""Papers' probes by name, from the command line to the row."""

import dataclasses
import json
import re

import numpy as np
import pytest
from answering import scores_file
from features import make_features, make_spec, write_rows
from looking import some
from probing import answered, refused, rows, run
from sklearn.linear_model import Ridge
from sklearn.preprocessing import StandardScaler

from cache import open_features
from cache.task import Task
from extract.encoders.table.entries import ENTRIES
from probe.cli import read_config
from probe.episodes.draw import FewShotConfig, draw_episodes
from probe.kinds.heads import Heads
from probe.places import PlacesConfig
from probe.protocols import BATCH_NORM, PROTOCOLS


def asked(words):
    return read_config(words.split())


def test_wu2025_is_section_1_1():
    config = asked("--protocol wu2025")
    assert (config.kind.name, config.places) == ("adamw", PlacesConfig())
    a = config.kind
    assert (a.lr, a.weight_decay, a.batch_size, a.iterations) == (1e-3, 1e-2, 64, 15_000)
    assert (a.drop_last, a.n_checks, a.choose_by, a.one_logit) == (True, 10, "acc", True)
    assert (a.seeds, a.ddof) == ((0, 1, 2), 0)
    assert str(config.protocol) == "wu2025"


def test_doerrich2024_is_section_1_2():
    knn = asked("--protocol doerrich2024")
    assert (knn.kind.name, knn.kind.k, knn.kind.metric, knn.kind.rule) == (
        "knn", (11,), "euclidean", "majority",
    )  # fmt: skip
    config = asked("--protocol doerrich2024 --kind adamw")
    a = config.kind
    assert (a.lr, a.weight_decay, a.batch_size, a.epochs) == (1e-4, 1e-2, 64, 100)
    assert (a.schedule, a.patience, a.choose_by, a.drop_last) == ("cosine", 5, "loss", False)
    assert (a.one_logit, a.seeds) == (False, (9930641, 115149041, 252139603))
    assert a.loss_batch is None
    published = asked("--protocol doerrich2024 --kind adamw --as-published")
    assert published.kind.loss_batch == 256


def test_the_grids_are_sections_1_5_and_1_6():
    dinov2 = asked("--protocol dinov2").kind
    assert dinov2 == Heads()
    assert len(dinov2.lrs) == 13
    assert (min(dinov2.lrs), max(dinov2.lrs)) == (1e-5, 0.1)
    assert (dinov2.n_last, dinov2.batch_size, dinov2.epochs, dinov2.iterations) == (
        (1, 4), 128, 10, 1250,
    )  # fmt: skip
    corrected = asked("--protocol baharoon2023").kind
    published = asked("--protocol baharoon2023 --as-published").kind
    assert set(corrected.lrs) == {1e-1, 1e-2, 5e-2, 1e-3, 5e-3, 1e-4, 5e-4, 1e-5}
    assert (corrected.scale_lr, corrected.refit, corrected.one_logit) == (False, True, True)
    assert (corrected.loss, corrected.test_every, corrected.by_sigmoid) == ("mean", None, False)
    assert (published.loss, published.test_every, published.by_sigmoid) == ("sum", 5, True)


def test_dinov2s_other_probes_and_huix2024():
    linear = asked("--protocol dinov2 --kind linear")
    assert linear.kind.strengths == pytest.approx([10 ** (-6 + i / 4) for i in range(45)])
    assert (linear.choosing.how, linear.choosing.refit) == ("val", "train+val")
    knn = asked("--protocol huix2024").kind
    assert (knn.k, knn.temperature, knn.metric, knn.rule) == ((200,), 0.1, "cosine", "weighted")


def test_dinov2s_knn_as_published(places, capsys):
    make_features(places[0], n_classes=2, task="binary-class", n=(300, 60, 60))
    assert run(capsys, "--protocol dinov2 --kind knn --k 5,20,100")[0] == 0
    out = answered(capsys, "--protocol dinov2 --kind knn --k 5,20,100 --as-published")
    assert "as published: scores of a smaller k are cut off those of the largest" in out
    found = {(r["probe"]["k"], r["probe_protocol"]["as_published"]): r for r in rows()}
    assert len(found) == 6
    for k in (5, 20, 100):
        published, corrected = found[k, True], found[k, False]
        assert published["probe"]["cut_off_from"] == 100
        assert published["score_type"] == "unnormalised"
        assert published["probe_protocol"]["name"] == corrected["probe_protocol"]["name"]
        assert not {"brier", "ece"} & published["metrics"].keys()
        same_auc = published["metrics"]["auc"] == corrected["metrics"]["auc"]
        assert same_auc == (k == 100)
        for metric in ("acc", "balanced_accuracy", "f1_macro"):
            assert published["metrics"][metric] == corrected["metrics"][metric]
        assert published["per_class"]["recall"] == corrected["per_class"]["recall"]


def test_dinov2s_knn_as_published_in_episodes(places, capsys):
    make_features(places[0])
    words = "--protocol dinov2 --kind knn --k 2,6 --shots 5 --episodes 4 --prior none"
    assert run(capsys, words)[0] == 0
    answered(capsys, f"{words} --as-published")
    found = {(r["probe"]["k"], r["probe_protocol"]["as_published"]): r for r in rows()}
    for k in (2, 6):
        published, corrected = found[k, True], found[k, False]
        assert published["score_type"] == "unnormalised"
        assert published["episodes"]["acc"] == corrected["episodes"]["acc"]
        same = published["episodes"]["auc"] == pytest.approx(corrected["episodes"]["auc"], abs=1e-6)
        assert same == (k == 6)


def test_dinov2s_knn_as_published_has_no_other_form(places, capsys):
    make_features(places[0], task="multi-label, binary-class", n=(300, 60, 60))
    err = refused(capsys, "--protocol dinov2 --kind knn --k 5,20 --as-published")
    assert "for single labels only; leave out --as-published" in err
    for words in ("--k auto:5,20", "--vote majority"):
        with pytest.raises(SystemExit):
            asked(f"--protocol dinov2 --kind knn {words} --as-published")
        assert "only the weighted vote is cut off" in capsys.readouterr().err


def test_flags_over_a_protocol_are_named():
    config = asked("--protocol wu2025 --lr 0.01 --seeds 4,5")
    assert str(config.protocol) == "wu2025, but lr 0.01, seeds 4/5"
    assert config.kind.lr == 0.01
    # What changes nothing isn't named.
    assert str(asked("--protocol wu2025 --lr 0.001").protocol) == "wu2025"
    epochs = asked("--protocol wu2025 --epochs 3")
    assert str(epochs.protocol) == "wu2025, but epochs 3"
    assert str(asked("--protocol dinov2 --refit train+val").protocol) == "dinov2, but refit"
    assert str(asked("--protocol dinov2 --refit train").protocol) == "dinov2"
    assert str(asked("--protocol baharoon2023 --refit train+val").protocol) == "baharoon2023"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--protocol huix2024 --kind linear", "augmented views.*finetune --mode head.*--kind knn"),
        ("--protocol wu2025 --kind knn", "wu2025 asks --kind adamw, not knn"),
        ("--protocol wu2025 --as-published", "none are known of wu2025"),
        ("--protocol dinov2 --kind linear --shots 5", "chooses on val.*without --protocol"),
        ("--as-published --kind knn", "--as-published belongs to --protocol"),
        ("--data toys", "name a probe with --kind .* or a paper's by --protocol"),
        ("--kind adamw --lr 0.1,0.2", "takes one learning rate.*--kind heads"),
        ("--kind adamw --choose-by auc", "--choose-by takes acc, loss, not 'auc'"),
        (
            "--kind heads --layer 3",
            "--layer belongs to --kind knn or linear or adamw or fusion or ridge",
        ),
        ("--kind heads --pool cls,mean", "name one --pool at most"),
        ("--kind heads --seeds 1,2", "one seed at a time"),
        ("--kind linear --lr 0.1", "--lr belongs to --kind adamw or heads"),
        ("--kind adamw --epochs 0", "--epochs takes 1 and more, not 0"),
    ],
)
def test_wrong_wishes_are_usage_errors(words, message, capsys):
    with pytest.raises(SystemExit) as end:
        asked(words)
    assert end.value.code == 2
    assert re.search(message, " ".join(capsys.readouterr().err.split()))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("wu2025", "BatchNorm"),
        ("doerrich2024 --kind adamw", "BatchNorm"),
        ("dinov2 --kind linear", "log-loss.*accuracy.*standardised"),
        ("dinov2 --kind knn", "each k's scores sum to 1"),
        ("baharoon2023", "10 epochs"),
        ("baharoon2023 --as-published", "CHOSEN ON TEST"),
        ("huix2024", "all training images have a vote"),
    ],
)
def test_what_differs_from_the_release_is_marked(words, said):
    assert re.search(said, " ".join(asked(f"--protocol {words}").protocol.marks))


# ---------------------------------------------------------------------------- which vector

VIT = {"cls": 8, "mean": 8, "head": 4}
CLIP = {"cls": 8, "mean": 8, "head": 8, "proj": 5}
CNN = {"mean": 8, "head": 4}
SAM, SAM_L = "samvit_base_patch16.sa1b", "samvit_large_patch16.sa1b"
OPENCLIP = "open_clip:ViT-B-16/laion2b_s34b_b88k"
BIOMEDCLIP = "hf-hub:microsoft/BiomedCLIP-PubMedBERT_256-vit_base_patch16_224"
BLIP = "vit_base_patch16_224.blip"
OPENAI = "vit_base_patch16_clip_quickgelu_224.openai"


def make_encoder(root, encoder, pools, n_layers=4, **notes):
    """A file of features of an encoder with this full name, whose last layer has these pools."""
    layers = {
        f"layers/{i:02d}/{p}": pools[p]
        for i in range(n_layers)
        for p in ("cls", "mean")
        if p in pools
    }
    arrays = {**layers, **{p: pools[p] for p in ("head", "proj") if p in pools}}
    spec = dataclasses.replace(make_spec(300, arrays), encoder=encoder, notes=notes)
    spec.key["layers"]["of"] = n_layers
    rng = np.random.default_rng(0)
    content = {name: rng.normal(size=(300, width)) for name, width in arrays.items()}
    (root / "toys").mkdir(parents=True, exist_ok=True)
    return write_rows(root / "toys" / "toy_8_000000000000.h5", spec, content)


@pytest.mark.parametrize(
    ("words", "encoder", "pools", "expected"),
    [
        ("huix2024", "vit_base_patch14_dinov2.lvd142m", VIT, "cls"),
        ("huix2024", SAM, CNN, "mean"),
        ("huix2024", "samvit_base_patch16", CNN, "mean"),  # with other weights
        ("huix2024", OPENCLIP, CLIP, "proj"),
        ("huix2024", "resnet152.tv_in1k", CNN, "head"),
        ("huix2024 --pool head", SAM, CNN, "head"),
        ("baharoon2023 --kind knn --k 5 --vote majority", SAM_L, CNN, "mean"),
        ("baharoon2023 --kind knn --k 5 --vote majority", BIOMEDCLIP, CLIP, "proj"),
        (
            "baharoon2023 --kind knn --k 5 --vote majority",
            "vit_large_patch14_clip_quickgelu_224.openai",
            VIT,
            "cls",
        ),
        ("baharoon2023", SAM_L, CNN, "mean"),
        ("baharoon2023", BIOMEDCLIP, CLIP, "proj"),
        ("baharoon2023", "vgg19.tv_in1k", CNN, "head"),
        ("baharoon2023", "vit_base_patch14_dinov2.lvd142m", VIT, "grid"),
        ("dinov2", SAM, CNN, "mean"),
        ("doerrich2024", SAM, CNN, "head"),  # the neck
        ("doerrich2024", "eva02_base_patch16_clip_224.merged2b", VIT, "head"),
        ("bigvision --shots 1 --episodes 1", "vit_base_patch16_224.dino", VIT, "head"),
    ],
)
def test_the_vector_that_the_paper_reads(places, capsys, words, encoder, pools, expected):
    make_encoder(places[0], encoder, pools)
    if words in ("baharoon2023", "dinov2"):
        words += " --epochs 1 --batch-size 16"
    if words.startswith(("huix2024", "doerrich2024")):
        words += " --k 5"
    answered(capsys, f"--protocol {words}")
    (row,) = rows()
    assert row["probe"]["pool"] == expected
    named = [word for word in row["probe_protocol"]["changed"] if word.startswith("pool")]
    assert named == (["pool head"] if "--pool" in words else [])


@pytest.mark.parametrize(
    ("words", "encoder", "pools", "expected"),
    [
        ("", "vit_base_patch16_224.dino", VIT, ("grid", [1, 4])),
        ("", SAM, CNN, ("mean", [1])),
        ("", "resnet18.a1_in1k", CNN, ("head", [1])),
        ("--pool mean", "vit_base_patch16_224.dino", VIT, ("mean", [1])),
        ("--pool mean", "resnet18.a1_in1k", CNN, ("mean", [1])),
        ("--pool cls", "vit_base_patch16_224.dino", VIT, ("cls", [1, 4])),
        ("--pool concat", "vit_base_patch16_224.dino", VIT, ("concat", [1])),
        ("--pool head", SAM, CNN, ("head", [1])),
    ],
)
def test_heads_of_a_pool(places, capsys, words, encoder, pools, expected):
    make_encoder(places[0], encoder, pools)
    assert run(capsys, f"--kind heads {words} --epochs 1 --iterations 3")[::2] == (0, "")
    (row,) = rows()
    assert (row["probe"]["pool"], row["probe"]["n_last"]) == expected
    tried = {(n, with_mean) for n, with_mean, _, _ in row["chosen"]["val_acc"]}
    grid = {(n, with_mean) for n in expected[1] for with_mean in (False, True)}
    assert tried == (grid if expected[0] == "grid" else {(n, False) for n in expected[1]})


def test_a_vector_that_isnt_there_is_never_replaced(places, capsys):
    make_encoder(places[0], OPENCLIP, {"cls": 8, "mean": 8})
    for words in ("huix2024 --k 5", "wu2025 --iterations 2"):
        status, _, err = run(capsys, f"--protocol {words}")
        assert status == 1
        assert f"at layer 3 of {OPENCLIP}; there it has cls, mean" in err
    assert run(capsys, "--protocol huix2024 --k 5 --pool cls")[0] == 0
    (row,) = rows()
    assert row["probe_protocol"]["changed"] == ["k 5", "pool cls"]


def test_other_layers_have_the_pool_that_stands_for_the_papers(places, capsys):
    make_encoder(places[0], OPENCLIP, CLIP)
    assert run(capsys, "--protocol huix2024 --k 5 --layer all")[0] == 0
    found = {row["probe"]["layer"]: row["probe"]["pool"] for row in rows()}
    assert found == {0: "cls", 1: "cls", 2: "cls", 3: "proj"}


@pytest.mark.parametrize(
    ("words", "encoder", "prepared", "said"),
    [
        ("--protocol wu2025 --iterations 2 --seeds 0", OPENAI, "", "GELU"),
        ("--kind knn --k 5", OPENAI, "wu2025, but size 256", "GELU"),
        ("--kind knn --k 5", OPENAI, "", None),
        ("--protocol wu2025 --iterations 2 --seeds 0", "vit_base_patch16_224.dino", "", None),
        ("--protocol huix2024 --k 5", BLIP, "", "first patch token"),
    ],
)
def test_what_a_release_does_with_one_encoder_is_said(
    places, capsys, words, encoder, prepared, said
):
    notes = {"protocol": prepared} if prepared else {}
    make_encoder(places[0], encoder, VIT, **notes)
    assert run(capsys, words)[0] == 0
    (row,) = rows()
    marks = " ".join(row["marks"])
    assert said in marks if said else "release" not in marks.replace(BATCH_NORM, "")


def test_every_name_is_that_of_an_encoder_of_the_table():
    """A reading whose part of a name fits nothing would never be used."""
    names = [entry.encoder for entry in ENTRIES]
    readings = [protocol.reading for protocol in PROTOCOLS.values()]
    parts = [part for r in readings for part in (*r.special, *r.notes)]
    assert len(parts) >= 7
    for part in parts:
        assert any(part in name for name in names), part


def test_every_protocol_can_be_asked():
    for name, protocol in some(PROTOCOLS.items()):
        for kind in protocol.presets:
            config = asked(f"--protocol {name} --kind {kind}")
            assert config.kind.name == kind


def test_bigvision_is_ridge_of_a_fixed_alpha_in_nested_episodes(places, capsys):
    features = open_features(make_features(places[0]))
    out = answered(capsys, "--protocol bigvision --shots 1,5,10")
    assert "probed as bigvision, but shots 1/5/10" in out
    assert "the intercept is free, where the release has a bias feature" in out
    found = {row["probe"]["few_shot"]["shots"]: row for row in rows()}
    assert set(found) == {1, 5, 10}
    train, test = features.split == "train", features.split == "test"
    x, y = features.array(-1, "head").astype(np.float64), features.labels
    episodes = draw_episodes(
        FewShotConfig((1, 5, 10), draw="bigvision"),
        features.ids[train],
        y[train],
        Task("multi-class", ("a", "b", "c")),
    )
    for shots, row in found.items():
        assert row["probe"]["alpha"] == 1024
        assert row["score_type"] == "margin"
        assert len(row["episodes"]["acc"]) == 3
        for rows_of, acc in zip(episodes[shots], row["episodes"]["acc"], strict=True):
            scaler = StandardScaler().fit(x[train][rows_of])
            targets = np.eye(3)[y[train][rows_of]] * 2 - 1
            model = Ridge(alpha=1024).fit(scaler.transform(x[train][rows_of]), targets)
            said = model.predict(scaler.transform(x[test])).argmax(axis=1)
            assert acc == pytest.approx((said == y[test]).mean(), abs=1 / 60)


def test_bigvisions_shots_and_penalty_can_be_changed():
    config = asked("--protocol bigvision")
    assert (config.few_shot.shots, config.few_shot.draw) == ((1, 5, 10, 25), "bigvision")
    assert config.kind.alpha == 1024
    assert config.kind.at(8) == (128,)
    assert str(config.protocol) == "bigvision"
    changed = asked("--protocol bigvision --shots 5 --draw balanced --penalties 0.1,1")
    assert changed.kind.at(8) == (0.1, 1)
    assert changed.protocol.changed == ("penalties 0.1/1", "shots 5", "draw balanced")


def test_the_question_is_the_same_with_the_paper_named_and_without(places, capsys):
    make_features(places[0])
    words = "--iterations 20 --batch-size 16 --seeds 0"
    assert run(capsys, f"--protocol wu2025 {words}")[0] == 0
    assert run(capsys, f"--kind adamw --pool head {words}")[0] == 0
    assert len(rows()) == 1


def test_layers_are_trained_together_and_apart_alike(places, capsys):
    make_features(places[0])
    words = "--kind adamw --iterations 30 --batch-size 16 --seeds 0,7"
    assert run(capsys, f"{words} --layer all --all-test")[0] == 0
    together = {json.dumps(row["probe"]): row["metrics"]["acc"] for row in rows()}
    assert len(together) == 4
    assert run(capsys, f"{words} --layer 0")[0] == 0
    assert run(capsys, f"{words} --layer 1")[0] == 0
    assert {json.dumps(row["probe"]): row["metrics"]["acc"] for row in rows()} == together


def large_at_layer_0(root):
    """A feature file whose layer 0 is so large that --lr 1e36 overflows there, and only there."""
    spec = make_spec(300)
    rng = np.random.default_rng(0)
    content = {name: rng.normal(size=(300, width)) for name, width in spec.arrays.items()}
    content["layers/00/cls"] *= 1e4
    (root / "toys").mkdir(parents=True)
    return write_rows(root / "toys" / "toy_8_000000000000.h5", spec, content)


def test_heads_that_diverge_are_named_after_the_rows_of_the_others(places, capsys):
    large_at_layer_0(places[0])
    words = "--kind adamw --layer all --pool cls --all-test --iterations 30 --batch-size 10"
    status, out, err = run(capsys, f"{words} --lr 1e36 --weight-decay 0 --seeds 0,7")
    assert status == 1
    assert err == (
        "probe: toy on toys: training diverged at layer 0, cls (seed 0 after 10 iterations, seed 7 "
        "after 10 iterations); try --lr 1e+35\n"
    )
    assert {(r["probe"]["layer"], r["probe"]["training_seed"]) for r in rows()} == {
        (1, 0), (1, 7),
    }  # fmt: skip
    assert "2 rows with scores" in out


def test_sigmoids_of_several_classes_get_no_figure_of_calibration(places, capsys):
    make_features(places[0], n_layers=4)
    words = "--protocol baharoon2023 --batch-size 16 --epochs 6"
    assert run(capsys, words)[0] == 0
    out = answered(capsys, f"{words} --as-published")
    assert "scores of a sample don't sum to 1" in out
    found = {row["probe_protocol"]["as_published"]: row for row in rows()}
    of_probabilities = {"brier", "ece", "ece_tempered"}
    assert of_probabilities <= found[False]["metrics"].keys()
    assert not of_probabilities & found[True]["metrics"].keys()
    assert (found[True]["score_type"], found[True]["temperature"]) == ("unnormalised", None)
    (path,) = [p for p in places[1].glob("*/*.json") if json.loads(p.read_text()) == found[True]]
    with np.load(scores_file(path)) as stored:
        scores, labels = stored["test_scores"], stored["test_labels"]
    assert np.abs(scores.sum(axis=1) - 1).max() > 0.01
    assert found[True]["metrics"]["acc"]["value"] == (scores.argmax(axis=1) == labels).mean()


def test_what_is_missing_is_named(places, capsys):
    """Of four layers; of val images; of a device; and of an answer, where a layer is chosen."""
    make_features(places[0], n=(60, 0, 30))
    make_features(places[0], "others", n_layers=2)
    large_at_layer_0(places[0] / "large")
    auto = f"--layer auto --pool cls --iterations 30 --batch-size 10 --features {places[0]}/large"
    for words, said in (
        ("--kind adamw --data toys --iterations 3", "no val images to choose a checkpoint on"),
        ("--kind adamw --data others --device cuda:99", "--device cuda:99 can't be used"),
        (
            "--protocol dinov2 --data others --epochs 1 --iterations 2",
            "needs class tokens of the last 4 layers, and toy.full has 2",
        ),
        (
            f"--kind adamw {auto} --lr 1e36 --weight-decay 0 --seeds 0",
            "no layer can be chosen, for at layer 0, cls training diverged: seed 0",
        ),
    ):
        status, _, err = run(capsys, words)
        assert status == 1
        assert said in err
