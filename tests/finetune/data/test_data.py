"""Images for training: unpacked once, read in any order, and prepared as extract prepares them."""

import functools
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import extract.cli
import extract.plan
import finetune.data.images
from cache import open_features
from cache.catalogue import list_files
from cache.errors import BrokenCache, RequestError
from cache.leak_memory import count_leaks
from extract.config import ExtractConfig
from extract.datasets.files.options import TableOptions
from extract.machine.digests import DigestMemory
from extract.plan import make_plan
from extract.prepare.transforms import Transform
from finetune.data.batches import Draw, Loader
from finetune.data.images import find_transform, open_images, rows_of
from finetune.data.pixels import Pixels, PixelWriter
from probe.questions.laying import lay_over
from probe.questions.leaks import with_leaks
from probe.questions.overlay import OverlayConfig

CPU = torch.device("cpu")
SIZE = 32
DESCRIBE = functools.cache(extract.plan.describe)


@pytest.fixture(autouse=True)
def _describe_once(monkeypatch):
    """The one encoder of these tests, which takes a second to describe."""
    monkeypatch.setattr(extract.plan, "describe", DESCRIBE)


def plan(tmp_path, data, **settings):
    config = ExtractConfig(
        ("test_vit",),
        size=SIZE,
        data=(data,),
        weights="random",
        workers=0,
        features=tmp_path / "features",
        **settings,
    )
    (job,) = make_plan(config).jobs
    return job, config


def opened(tmp_path, data, said=None, stored=False, **settings):
    """A data set, and its transform."""
    job, config = plan(tmp_path, data, **settings)
    memory, say = DigestMemory(tmp_path / ".digests.json"), ([] if said is None else said).append
    transform = find_transform(job, memory, say)
    return open_images(job, config, transform, memory, say, with_stored=stored), transform


@pytest.fixture
def arrays(tmp_path, write_npz):
    """300 images: a unit of 256 and one of 44."""
    return f"npz:{write_npz(tmp_path / 'tiny.npz', counts=(200, 40, 60), side=12)}"


@pytest.fixture
def folder(tmp_path):
    """Images of many shapes and two classes."""
    rng = np.random.default_rng(3)
    for i in range(20):
        path = tmp_path / "mine" / "ab"[i % 2] / f"{i:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        shape = (20, 30) if i % 4 else (10 + i, 24)
        Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)).save(path)
    return f"folder:{tmp_path / 'mine'}"


# ---------------------------------------------------------------------------- pixels


@pytest.fixture
def written(tmp_path):
    """Images of three shapes and two types, in one file."""
    rng = np.random.default_rng(0)
    shapes = [(3, 5), (3, 5), (4, 2, 3), (3, 5), (7, 1)]
    images = [rng.integers(0, 256, shape, dtype=np.uint8) for shape in shapes]
    images[3] = rng.normal(size=(3, 5)).astype(np.float32)
    with PixelWriter(tmp_path / "x.pixels", {"a": 1}) as writer:
        for image in images:
            writer.add(image[None])
        writer.finish()
    return tmp_path / "x.pixels", images


def test_rows_come_back_in_any_order(written):
    path, images = written
    pixels = Pixels(path)
    assert (len(pixels), pixels.key) == (5, {"a": 1})
    rows = [4, 1, 0, 1, 2, 3]
    groups = pixels.take(np.array(rows))
    assert [len(group) for group in groups] == [1, 3, 1, 1]  # neighbours of one shape and type
    for row, image in zip(rows, [image for group in groups for image in group], strict=True):
        assert image.dtype == images[row].dtype
        np.testing.assert_array_equal(image, images[row])
        assert image.flags.writeable
    assert pixels.take(np.array([], np.int64)) == []


def test_a_file_that_was_cut_off_is_refused(written):
    path, _ = written
    whole = path.read_bytes()
    for length in (0, 10, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(BrokenCache, match=r"x\.pixels is damaged"):
            Pixels(path)


def test_a_spoiled_image_is_found_when_it_is_read(written):
    path, _ = written
    raw = bytearray(path.read_bytes())
    raw[16] ^= 1  # of the second image
    path.write_bytes(raw)
    pixels = Pixels(path)
    pixels.take(np.array([0, 2]))
    with pytest.raises(BrokenCache, match="image 1 doesn't match its checksum"):
        pixels.take(np.array([0, 1]))


def test_a_writer_that_is_left_early_leaves_what_was_there(written):
    path, _ = written
    before = path.read_bytes()
    with PixelWriter(path, {}) as writer:
        writer.add(np.zeros((1, 2, 2), np.uint8))
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == [path.name]


# ---------------------------------------------------------------------------- images


def extracted(tmp_path: Path, data: str) -> Path:
    """The feature file that extract makes of the same images."""
    words = ["--model", "test_vit", "--size", str(SIZE), "--weights", "random", "--data", data]
    root = tmp_path / "extracted"
    assert extract.cli.main([*words, "--features", str(root)]) == 0
    (path,) = root.glob("*/*.h5")
    return path


def test_tables_and_leaks_are_those_of_a_feature_file(tmp_path, arrays):
    images, _ = opened(tmp_path, arrays)
    features = open_features(extracted(tmp_path, arrays))
    assert images.features.header.tables == features.header.tables
    np.testing.assert_array_equal(images.features.hashes, features.hashes)
    np.testing.assert_array_equal(images.features.thumbnails, features.thumbnails)
    assert count_leaks(images.features) is not None
    asked = [
        with_leaks(lay_over(OverlayConfig(), found)[0], ["train", "val", "test"], print)
        for found in (images.features, features)
    ]
    assert asked[0].leaks.summary() == asked[1].leaks.summary()  # type: ignore[union-attr]
    assert asked[0].samples == asked[1].samples
    for name in ("images_digest", "source_size", "slicing", "reading"):
        key_name = {"images_digest": "images", "slicing": "slices"}.get(name, name)
        assert getattr(images.dataset, name) == features.key.get(key_name)


def test_images_are_unpacked_once(tmp_path, arrays, monkeypatch):
    said = []
    opened(tmp_path, arrays, said)
    assert [line for line in said if "unpacking 300 images" in line]
    monkeypatch.setattr(finetune.data.images, "_unpack", None)
    said.clear()
    images, _ = opened(tmp_path, arrays, said)
    assert said == []
    with np.load(tmp_path / "tiny.npz") as file:
        every = np.concatenate([file[f"{split}_images"] for split in ("train", "val", "test")])
    np.testing.assert_array_equal(
        images.pixels.take(np.array([299, 0, 210]))[0], every[[299, 0, 210]]
    )


def test_pillow_resizes_once_and_both_forms_may_be_kept(tmp_path, arrays):
    alone, _ = opened(tmp_path, arrays, resize_backend="pil")
    both, _ = opened(tmp_path, arrays, resize_backend="pil", stored=True)
    rows = np.array([3, 1])
    assert both.stored.take(rows)[0].shape == (2, 12, 12)
    for images in (alone, both):
        assert images.pixels.take(rows)[0].shape == (2, SIZE, SIZE)
    assert alone.stored is None
    assert alone.pixels.path == both.pixels.path
    assert len(list((tmp_path / "features" / ".images" / "tiny").glob("*.pixels"))) == 2


def test_a_corrected_label_rewrites_tables_alone(tmp_path, folder, monkeypatch):
    before, _ = opened(tmp_path, folder)
    place = int(np.flatnonzero(before.features.labels == 1)[0])
    name = before.features.ids[place].rsplit("/", 1)[-1]
    mine = tmp_path / "mine"
    (mine / "b" / name).rename(mine / "a" / name)
    monkeypatch.setattr(finetune.data.images, "_unpack", None)
    said = []
    after, _ = opened(tmp_path, folder, said)
    assert any("tables rewritten, images kept" in line for line in said)
    assert after.features.labels[place] == 0
    assert after.pixels.path == before.pixels.path


@pytest.mark.parametrize("n_written", [0, 270])
def test_an_interrupted_pass_is_made_good(tmp_path, arrays, monkeypatch, n_written):
    real, n = PixelWriter.add, 0

    def stopping(self, images):
        nonlocal n
        n += len(images)
        if n > n_written:
            raise KeyboardInterrupt
        real(self, images)

    monkeypatch.setattr(PixelWriter, "add", stopping)
    with pytest.raises(KeyboardInterrupt):
        opened(tmp_path, arrays)
    assert not list(tmp_path.rglob("*.pixels*"))
    monkeypatch.undo()
    images, _ = opened(tmp_path, arrays)
    assert len(images.pixels) == 300
    assert images.features.hashes is not None


def test_torn_files_are_made_anew(tmp_path, arrays):
    images, _ = opened(tmp_path, arrays)
    assert list_files(tmp_path / "features") == []  # probe never takes them for features
    pixels, tables = images.pixels.path, images.features.path
    whole, labels = pixels.read_bytes(), images.features.labels
    pixels.write_bytes(whole[:-100])
    assert opened(tmp_path, arrays)[0].pixels.path.read_bytes() == whole
    tables.write_bytes(tables.read_bytes()[:3000])
    said = []
    again, _ = opened(tmp_path, arrays, said)
    assert np.array_equal(again.features.labels, labels)
    assert any("is damaged and made anew" in line for line in said)


def test_of_two_at_once_one_unpacks_and_the_other_waits(tmp_path, arrays):
    said = []
    barrier = threading.Barrier(2)
    found = []

    def work():
        barrier.wait()
        found.append(opened(tmp_path, arrays, said)[0])

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 2
    assert sum("unpacking" in line for line in said) == 1
    left = [path.name for path in (tmp_path / "features").rglob("*") if path.is_file()]
    assert sorted(Path(name).suffix for name in left) == [".h5", ".pixels"]


def test_too_small_a_disk_is_refused_with_a_cure(tmp_path, arrays, write_npz, monkeypatch):
    large = f"npz:{write_npz(tmp_path / 'large.npz', side=2 * SIZE)}"
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr(finetune.data.images.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(RequestError, match=r"1\.0 kB free; free some .*--resize-backend pil"):
        opened(tmp_path, large)
    for data, settings in [(large, {"resize_backend": "pil"}), (arrays, {})]:  # larger than stored
        with pytest.raises(RequestError, match=r"free some space, or choose another .*DIR$"):
            opened(tmp_path, data, **settings)


def test_where_nothing_can_be_written_is_one_line_with_a_cure(tmp_path, arrays, monkeypatch):
    def fill(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as disk:
        disk.setattr(finetune.data.images.PixelWriter, "add", fill)
        with pytest.raises(OSError, match=r"No space left on device.*--features DIR"):
            opened(tmp_path, arrays)
    assert not [*(tmp_path / "features").rglob("*.pixels*")]
    shutil.rmtree(tmp_path / "features")
    (tmp_path / "features").mkdir()
    (tmp_path / "features" / ".images").write_text("a file")
    with pytest.raises(OSError, match=r"can't write unpacked images .*--features DIR"):
        opened(tmp_path, arrays)


# ---------------------------------------------------------------------------- batches


def as_extract_feeds(tmp_path: Path, data: str, transform: Transform, **settings: object):
    """(N, 3, size, size): each image by itself through the transform, decoded anew."""
    job, _ = plan(tmp_path, data, **settings)
    dataset = job.source.open(DigestMemory(tmp_path / ".digests.json"))
    inputs = []
    for images in dataset.stream([(0, dataset.n_rows)]):
        for image in images:
            inputs.append(transform(torch.from_numpy(transform.on_host(image[None].copy()))))
    return torch.cat(inputs)


@pytest.mark.parametrize("settings", [{}, {"resize_backend": "pil"}, {"resize": "pad-after-norm"}])
@pytest.mark.parametrize("kind", ["arrays", "folder"])
def test_the_encoder_sees_what_extract_shows_it(tmp_path, kind, settings, request):
    data = request.getfixturevalue(kind)
    images, transform = opened(tmp_path, data, **settings)
    wanted = as_extract_feeds(tmp_path, data, transform, **settings)
    order = np.random.default_rng(1).permutation(len(wanted))
    draws = [Draw(0, order[i : i + 7]) for i in range(0, len(order), 7)]
    found = list(Loader(images, transform, None, CPU).batches(draws))
    assert [batch.samples.tolist() for batch in found] == [d.samples.tolist() for d in draws]
    assert all(batch.sample is None for batch in found)
    assert torch.equal(torch.cat([batch.images for batch in found]), wanted[order])


def test_a_sample_of_several_rows_comes_whole(tmp_path):
    rng = np.random.default_rng(5)
    for sample, n_rows in {"p": 3, "q": 1, "r": 2, "s": 1}.items():
        for i in range(n_rows):
            path = tmp_path / "mine" / "ab"[sample in "qs"] / sample / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 256, (16, 16), dtype=np.uint8)).save(path)
    data, settings = f"folder:{tmp_path / 'mine'}", {"table": TableOptions(samples="folders")}
    images, transform = opened(tmp_path, data, **settings)
    every = as_extract_feeds(tmp_path, data, transform, **settings)
    row_sample = images.features.row_sample
    samples = np.array([3, 0, 2])
    rows, sample = rows_of(images, samples)
    assert rows.tolist() == [r for s in samples for r in np.flatnonzero(row_sample == s)]
    (batch,) = Loader(images, transform, None, CPU).batches([Draw(0, samples)])
    assert batch.sample.tolist() == sample.tolist()
    assert row_sample[rows].tolist() == samples[sample].tolist()
    assert torch.equal(batch.images, every[rows])


def test_what_fails_ahead_is_raised_here(tmp_path, arrays):
    images, transform = opened(tmp_path, arrays)
    batches = Loader(images, transform, None, CPU).batches([Draw(0, np.array([0, 10_000]))])
    with pytest.raises(IndexError):
        next(batches)
