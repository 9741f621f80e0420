"""A real ViT trained on real BreastMNIST, and volumes of AdrenalMNIST3D.

Two epochs of BreastMNIST's 546 images at 56 px take a quarter of a minute of one core for each way
of training. At seed 0 the frozen encoder's head reaches a loss on val of 0.45 and an AUC of 0.82.
"""

import json
import time
from pathlib import Path

import numpy as np
import pytest
from answering import scores_file
from finetuning import VIT, read_log
from numpy.testing import assert_allclose
from safetensors.torch import load_file

from cache import open_features
from extract.cli import main as extract
from finetune.cli import main as finetune
from finetune.model.parts import find_parts
from finetune.model.reading import Reader
from finetune.training import training
from probe.cli import main as probe

pytestmark = [pytest.mark.real, pytest.mark.slow]

N_TRAIN, BATCH, N_EPOCHS = 546, 16, 2
SHORT = f"--seeds 0 --batch-size {BATCH} --epochs {N_EPOCHS}"
FROZEN = f"{SHORT} --mode head"
# The rates are those of a search on val, by decades.
TUNED = {
    "full": f"{SHORT} --mode full --encoder-lr 1e-5",
    "lora": f"{SHORT} --mode lora --encoder-lr 5e-4",
    "bitfit": f"{SHORT} --mode bitfit --encoder-lr 1e-3",
}


class Bench:
    """A folder that the commands write into, and the words that name encoder and images.

    Args:
        root: the folder.
        images: flags of ``extract`` and ``finetune``.
    """

    def __init__(self, root, images):
        self.root, self.images = root, images
        self.trained = {}

    def places(self, *names):
        return [word for name in names for word in (f"--{name}", str(self.root / name))]

    def finetune(self, words):
        """Train, once; returns the row with its scores, and the log's lines."""
        if words not in self.trained:
            started = time.perf_counter()
            before = self.rows()
            assert finetune([*f"{self.images} {words}".split(), *self.all_places]) == 0
            (path,) = self.rows() - before
            self.trained[words] = path, time.perf_counter() - started
        path, _ = self.trained[words]
        row = read_row(path)
        return row, read_log(self.trial(row) / "log.jsonl")

    @property
    def all_places(self):
        return self.places("features", "results", "runs")

    def trial(self, row):
        return Path(row["chosen"]["checkpoint"]).parent

    def extract(self, words=""):
        """Exact features; what the words say counts more than ``images``."""
        before = set((self.root / "features").glob("*/*.h5"))
        words = f"{self.images} --precision fp32 --store float32 {words}"
        assert extract([*words.split(), *self.places("features")]) == 0
        (path,) = set((self.root / "features").glob("*/*.h5")) - before
        return path

    def probe(self, words, features):
        before = self.rows()
        assert probe([*words.split(), *self.places("results"), str(features)]) == 0
        (path,) = self.rows() - before
        return read_row(path)

    def rows(self):
        return set((self.root / "results").glob("*/*.json"))


def read_row(path):
    row = json.loads(path.read_text())
    with np.load(scores_file(path)) as scores:
        row["scores"] = {name: scores[name] for name in scores.files}
    return row


def assert_same_answers(own, other):
    """The same head to rounding: the same check was the best, and all scores agree."""
    assert own["chosen"]["iteration"] == other["chosen"]["iteration"]
    for split in ("val", "test"):
        assert np.array_equal(own["scores"][f"{split}_ids"], other["scores"][f"{split}_ids"])
        found, wanted = (row["scores"][f"{split}_scores"] for row in (own, other))
        assert_allclose(found, wanted, atol=2e-5)


@pytest.fixture(scope="module")
def breast(tmp_path_factory, real_data, real_weights):
    words = "--model vit_small_patch14_dinov2 --size 56 --data breastmnist --source-size 28"
    words += f" --weights {real_weights} --data-root {real_data} --device cpu"
    return Bench(tmp_path_factory.mktemp("breast"), words)


@pytest.fixture(scope="module")
def untuned(breast):
    """Features of the encoder as it is before any training."""
    return breast.extract()


def test_a_frozen_encoder_is_a_probe(breast, untuned):
    own, _ = breast.finetune(FROZEN)
    words = f"--kind adamw --pool head --seeds 0 --batch-size {BATCH} --epochs {N_EPOCHS}"
    assert_same_answers(own, breast.probe(words, untuned))


def assert_beats(log, frozen):
    """Better on val than the frozen encoder's head at its best, by loss and by AUC."""
    loss, frozen_loss = (min(line["val"]["loss"] for line in lines) for lines in (log, frozen))
    auc, frozen_auc = (max(line["val"]["auc"] for line in lines) for lines in (log, frozen))
    assert loss < 0.95 * frozen_loss, "loss"
    assert auc > frozen_auc + 0.02, "AUC"


@pytest.mark.parametrize("mode", TUNED)
def test_a_tuned_encoder_beats_the_frozen_one_on_val(breast, mode):
    """The same head, first weights, order and number of steps."""
    (_, tuned), (_, frozen) = breast.finetune(TUNED[mode]), breast.finetune(FROZEN)
    assert [line["iteration"] for line in tuned] == [line["iteration"] for line in frozen]
    assert_beats(tuned, frozen)


def test_an_encoder_without_gradients_is_refused_and_would_fail(
    breast, tmp_path, monkeypatch, capsys
):
    own = Bench(tmp_path, breast.images)
    read = Reader.__call__
    monkeypatch.setattr(Reader, "__call__", lambda self, images: read(self, images).detach())
    # Where parameters work is found by their gradients, and that isn't asked about here.
    monkeypatch.setattr(
        "finetune.model.classifier.find_parts", lambda reader, size: find(reader, size, read)
    )
    assert finetune([*f"{own.images} {TUNED['full']}".split(), *own.all_places]) == 1
    assert "after the first backward pass the gradients of all" in capsys.readouterr().err

    monkeypatch.setattr(training, "check_gradients", lambda classifier: None)
    (_, detached), (_, frozen) = own.finetune(TUNED["full"]), breast.finetune(FROZEN)
    for line, same in zip(detached, frozen, strict=True):
        assert line["val"]["loss"] == pytest.approx(same["val"]["loss"], abs=1e-6)
    with pytest.raises(AssertionError, match="loss"):
        assert_beats(detached, frozen)


def find(reader, size, read):
    with pytest.MonkeyPatch.context() as undone:
        undone.setattr(Reader, "__call__", read)
        return find_parts(reader, size)


@pytest.mark.parametrize("mode", ["full", "lora"])
def test_a_tuned_encoder_goes_back_into_extract(breast, untuned, mode):
    """Its features times its head are the row's scores; and layers can be compared, by CKA."""
    row, _ = breast.finetune(TUNED[mode])
    trial = breast.trial(row)
    tuned = open_features(breast.extract(f"--weights {trial / 'encoder.safetensors'}"))
    head = load_file(trial / "head.safetensors")
    is_test = tuned.split == "test"
    logits = tuned.array(-1, "head")[is_test] @ head["weight"].numpy().T + head["bias"].numpy()
    scores = 1 / (1 + np.exp(-logits.astype(np.float64)))
    assert_allclose(scores[:, 0], row["scores"]["test_scores"][:, 1], atol=2e-5)

    before = open_features(untuned)
    assert np.array_equal(before.ids, tuned.ids)
    alike = [
        cka(before.array(layer, "mean")[is_test], tuned.array(layer, "mean")[is_test])
        for layer in range(12)
    ]
    assert 0 < alike[-1] < alike[0] <= 1 + 1e-6
    assert alike[-1] < 0.99


def cka(x, y):
    """Linear CKA (Kornblith et al. 2019) of (n, D) and (n, E)."""
    x, y = (features.astype(np.float64) - features.mean(axis=0) for features in (x, y))
    return np.linalg.norm(x.T @ y) ** 2 / (np.linalg.norm(x.T @ x) * np.linalg.norm(y.T @ y))


@pytest.mark.parametrize("words", [FROZEN, *TUNED.values()])
def test_a_row_says_what_training_and_inference_took(breast, words):
    row, log = breast.finetune(words)
    _, seconds = breast.trained[words]
    chosen, n_steps = row["chosen"], N_TRAIN // BATCH * N_EPOCHS
    best = max(log, key=lambda line: (line["val"]["acc"], -line["iteration"]))
    assert chosen["iteration"] == best["iteration"] <= chosen["of"] == n_steps
    assert 0 < chosen["seconds"] == best["seconds"] <= log[-1]["seconds"] < seconds
    assert chosen["images_per_s"] == pytest.approx(
        chosen["iteration"] * BATCH / chosen["seconds"], rel=0.01
    )
    assert 0 < chosen["seconds_per_test_image"] * len(row["scores"]["test_ids"]) < seconds


# ---------------------------------------------------------------------------- volumes


@pytest.fixture(scope="module")
def adrenal(tmp_path_factory, real_data):
    """The first volumes of each split: all 1 584 are 44 352 slices."""
    root = tmp_path_factory.mktemp("adrenal")
    with np.load(real_data / "adrenalmnist3d.npz") as real:
        few = {
            f"{split}_{what}": real[f"{split}_{what}"][:n]
            for split, n in (("train", 60), ("val", 24), ("test", 30))
            for what in ("images", "labels")
        }
    np.savez(root / "few.npz", **few)
    return Bench(root, f"{VIT} --data npz:{root / 'few.npz'} --device cpu")


def test_a_frozen_encoder_of_volumes_is_a_probe(adrenal):
    """Slices are averaged before the head, as a probe averages what extract stored."""
    own, _ = adrenal.finetune("--mode head --seeds 0 --batch-size 8 --epochs 1")
    words = "--kind adamw --pool head --seeds 0 --batch-size 8 --epochs 1"
    other = adrenal.probe(words, adrenal.extract())
    assert own["probe"]["aggregate"] == other["probe"]["aggregate"] == "mean"
    assert len(own["scores"]["test_ids"]) == 30
    assert_same_answers(own, other)


def test_volumes_train_an_encoder(adrenal):
    row, log = adrenal.finetune("--mode full --seeds 0 --batch-size 8 --epochs 1 --checks 1")
    assert [line["iteration"] for line in log] == [7]
    assert row["chosen"]["trains"]["encoder"]["n_training"] > 0
    assert log[0]["images_per_s"] == pytest.approx(7 * 8 * 28 / log[0]["seconds"], rel=0.01)
