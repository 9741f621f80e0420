"""Masks in files: found beside their images, read as numbers, cut and turned as images are."""

import dataclasses
import itertools
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cache import RequestError
from cache.format.sample_tables import SPLITS
from cache.masks import Masks, open_masks, write_masks
from extract.datasets.dataset import Dataset
from extract.datasets.files import definitions
from extract.datasets.files.formats.stored import UnreadableImage
from extract.datasets.files.images import Reading, open_dataset, open_files
from extract.datasets.files.listing import Listing
from extract.datasets.files.mask_classes import MaskClasses
from extract.datasets.files.mask_files import read_values
from extract.datasets.files.options import TableOptions
from extract.datasets.files.seg_folders import list_seg_folder
from extract.datasets.files.tables import list_table
from extract.datasets.masks import describe_masks
from extract.datasets.volumes import Slicing

nibabel = pytest.importorskip("nibabel")
RNG = np.random.default_rng(0)


def save(path: Path, values: np.ndarray, **more) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path, **more)
    return path


def save_nifti(path: Path, values: np.ndarray, affine: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(values, affine), path)
    return path


def image(height: int = 6, width: int = 9) -> np.ndarray:
    return RNG.integers(0, 256, (height, width), np.uint8)


def opened(listing: Listing, tmp_path: Path, **reading) -> Dataset:
    if listing.split is None:  # too few for a rule
        listing = dataclasses.replace(listing, split=np.zeros(len(listing.ids), np.uint8))
    return open_dataset(open_files(listing, Reading(**reading), tmp_path / "index"))


def written(dataset: Dataset, tmp_path: Path) -> Masks:
    assert dataset.masks is not None
    folder = tmp_path / "features" / dataset.name
    return open_masks(write_masks(folder, dataset.name, dataset.row_ids, dataset.masks))


# ---------------------------------------------------------------------------- values of files

INDICES = RNG.integers(0, 3, (5, 7), np.uint8)


def palette(**more):
    def write(path: Path) -> None:
        coloured = Image.fromarray(INDICES).convert("P")
        coloured.putpalette([200, 0, 0, 0, 200, 0, 0, 0, 200])
        coloured.save(path, **more)

    return write


@pytest.mark.parametrize(
    ("ending", "write", "wanted"),
    [
        ("png", lambda path: save(path, INDICES), INDICES),
        ("png", palette(), INDICES),
        ("png", palette(bits=2), INDICES),
        ("png", palette(bits=4), INDICES),
        ("png", lambda path: save(path, INDICES > 0), INDICES > 0),
        ("png", lambda path: save(path, INDICES.astype(np.uint16) * 1000), INDICES * 1000.0),
        ("bmp", lambda path: save(path, INDICES), INDICES),
        ("tiff", lambda path: save(path, INDICES.astype(np.int32)), INDICES),
        ("tiff", lambda path: save(path, INDICES.astype(np.float32)), INDICES),
        ("tif", lambda path: save(path, INDICES, compression="tiff_lzw"), INDICES),
        ("gif", lambda path: save(path, INDICES), INDICES),
    ],
)
def test_values_are_what_was_stored(tmp_path, ending, write, wanted) -> None:
    path = tmp_path / f"mask.{ending}"
    write(path)
    values = read_values(path)
    assert values.shape == (1, *INDICES.shape)
    assert np.array_equal(values[0], wanted)


def test_grey_of_few_bits_is_not_stretched(tmp_path) -> None:
    """A PNG of 2 and of 4 bit, which Pillow shows from 0 to 255, written by hand."""
    import struct
    import zlib

    for bits in (1, 2, 4):
        values = (np.arange(8) % 2**bits).astype(np.uint8)
        packed = np.packbits(np.unpackbits(values[:, None], axis=1)[:, 8 - bits :].ravel())
        chunks = [
            (b"IHDR", struct.pack(">IIBBBBB", 8, 1, bits, 0, 0, 0, 0)),
            (b"IDAT", zlib.compress(b"\0" + packed.tobytes())),
            (b"IEND", b""),
        ]
        data = b"\x89PNG\r\n\x1a\n" + b"".join(
            struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
            for name, body in chunks
        )
        path = tmp_path / f"{bits}.png"
        path.write_bytes(data)
        assert read_values(path)[0, 0].tolist() == values.tolist()


def test_jpeg_is_refused(tmp_path) -> None:
    with pytest.raises(RequestError, match="store it as PNG"):
        read_values(save(tmp_path / "mask.jpg", INDICES))


@pytest.mark.parametrize("n_colours", [1, 3])
def test_half_transparent_masks_are_refused(tmp_path, n_colours):
    values = np.full((2, 2, n_colours + 1), 2, np.uint8)
    for alpha in (255, 128):
        values[..., -1] = alpha
        Image.fromarray(values).save(tmp_path / f"{alpha}.png")
    assert set(read_values(tmp_path / "255.png").ravel()) == {2}
    with pytest.raises(UnreadableImage, match="half transparent"):
        read_values(tmp_path / "128.png")


def classes(*names: str, **more) -> MaskClasses:
    return MaskClasses.of(TableOptions(mask_classes=names, **more))


@pytest.mark.parametrize(
    ("of", "values", "wanted"),
    [
        (classes(), [[0, 255]], [[0, 1]]),
        (classes(), [[0, 1]], [[0, 1]]),
        (classes("lung", "background"), [[0, 7]], [[0, 1]]),
        (classes(mask_ignore="9"), [[0, 9, 2]], [[0, 255, 1]]),
        (classes("a", "b", "c"), [[2, 1, 0]], [[2, 1, 0]]),
        (classes("0=a", "40=b", "80=b", "-1=c"), [[0, 40, 80, -1]], [[0, 1, 1, 2]]),
        (classes("1=a", "2=b", mask_ignore="0"), [[0.0, 1.0, 2.0]], [[255, 0, 1]]),
        (classes("#000000=a", "#ff0000=b"), [[[0, 0, 0], [255, 0, 0]]], [[0, 1]]),
        (classes("a", "b", "c"), [[[2, 2, 2], [1, 1, 1]]], [[2, 1]]),  # grey stored as RGB
    ],
)
def test_what_values_mean(of, values, wanted) -> None:
    array = np.array(values)
    array = array.astype(np.uint8) if array.ndim == 3 else array
    assert of.numbers(array).tolist() == wanted


@pytest.mark.parametrize(
    ("of", "values", "message"),
    [
        (
            classes("a", "b", "c"),
            [[0, 3, 3]],
            r"values 3 \(2 px\) are no classes, where 0 is a, 1 is b",
        ),
        (classes(), [[0, 1, 2]], r"values 1 \(1 px\), 2 \(1 px\) are no classes.*VALUE=NAME"),
        (classes("a", "b", "c"), [[0.5]], "aren't whole numbers"),
        (classes("#000000=a", "#ff0000=b"), [[[0, 0, 9]]], r"#000009 \(1 px\)"),
        (classes(), [[[0, 0, 0], [255, 0, 0]]], "in colour .2 colours.*#ff0000=NAME"),
    ],
)
def test_values_that_mean_nothing(of, values, message) -> None:
    array = np.array(values)
    array = array.astype(np.uint8) if array.ndim == 3 else array
    with pytest.raises(RequestError, match=message):
        of.numbers(array)


def test_the_other_value_is_one_in_all_masks() -> None:
    of = classes()
    of.numbers(np.array([[0, 255]]))
    with pytest.raises(RequestError, match=r"255 is foreground \(as in masks before\)"):
        of.numbers(np.array([[0, 1]]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mask_classes": ("a",)}, "two classes at least"),
        ({"mask_classes": ("a", "1=b")}, "in all its words or in none"),
        ({"mask_classes": ("0=a", "0=b")}, "names the value 0 twice"),
        ({"mask_classes": ("a", "b", "a")}, "a name twice"),
        ({"mask_classes": ("x=a", "1=b")}, "whole numbers or #rrggbb"),
        ({"mask_classes": ("#00=a", "#ff0000=b")}, "#rrggbb"),
        ({"mask_classes": ("a", "b"), "mask_ignore": "1"}, "is a class of --mask-classes"),
        ({"mask_classes": ("a", "b"), "mask_background": "c"}, "one of a, b, or none"),
        ({"mask_background": "c"}, "give both"),
        *(
            ({"mask_spacing": words}, "takes mm")
            for words in (("0",), ("x",), ("1", "1", "1", "1"))
        ),
    ],
)
def test_words_that_make_no_sense(options, message) -> None:
    with pytest.raises(RequestError, match=message):
        MaskClasses.of(TableOptions(**options))


def test_which_class_is_background() -> None:
    assert classes("Background", "b").background == 0
    assert classes("a", "b").background is None
    assert classes("a", "b", mask_background="b").background == 1
    assert classes("background", "b", mask_background="none").background is None


# ---------------------------------------------------------------------------- folders


@pytest.mark.parametrize(
    ("image_path", "mask_path"),
    [
        ("images/{}.png", "masks/{}.png"),
        ("images/{}.jpg", "masks/{}_mask.png"),
        ("imgs/{}.tif", "labels/{}_seg.tiff"),
        ("Images/p/{}.png", "Masks/p/{}.png"),
        ("train/images/{}.png", "train/masks/{}.png"),
        ("images/Training/{}.png", "masks/Training/{}.png"),
        ("images/Train/{}.png", "masks/training/{}.png"),
    ],
)
def test_layouts(tmp_path, image_path, mask_path) -> None:
    masks = {}
    for name in ("a", "b", "c"):
        save(tmp_path / "s" / image_path.format(name), image())
        masks[name] = RNG.integers(0, 2, (6, 9), np.uint8)
        save(tmp_path / "s" / mask_path.format(name), masks[name] * 255)
    listing = list_seg_folder(tmp_path / "s")
    dataset = opened(listing, tmp_path)
    found = written(dataset, tmp_path)
    assert found.class_names == ("background", "foreground")
    assert dataset.target.is_unlabelled
    assert sorted(found.ids.tolist()) == sorted(dataset.row_ids.tolist())
    for i, name in enumerate(found.ids.tolist()):
        assert np.array_equal(found.mask(i), masks[Path(name).stem])
    if "rain" in image_path:
        assert listing.split is not None
        assert {SPLITS[s] for s in dataset.samples.split} == {"train"}
    else:
        assert listing.split is None


def seg_folder(root: Path, **masks: np.ndarray | None) -> Path:
    """Images of 6 x 9 px, with these masks."""
    for name, mask in masks.items():
        save(root / "images" / f"{name}.png", image())
        if mask is not None:
            save(root / "masks" / f"{name}.png", mask)
    return root


ONES = np.ones((6, 9), np.uint8)


@pytest.mark.parametrize(
    ("words", "spacing"),
    [
        ((), [np.nan, np.nan, np.nan]),
        (("0.7",), [0.7, 0.7, np.nan]),
        (("0.7", "0.8"), [0.7, 0.8, np.nan]),
        (("0.7", "0.8", "3"), [0.7, 0.8, 3]),
    ],
)
def test_spacing_of_pictures_is_what_is_said(tmp_path, words, spacing) -> None:
    root = seg_folder(tmp_path / "s", a=ONES, b=0 * ONES)
    listing = list_seg_folder(root, options=TableOptions(mask_spacing=words))
    found = written(opened(listing, tmp_path), tmp_path)
    np.testing.assert_allclose(found.spacing, np.tile(spacing, (2, 1)), rtol=1e-6)


def test_images_without_masks_are_counted(tmp_path) -> None:
    root = seg_folder(tmp_path / "s", a=ONES, b=None, c=0 * ONES)
    listing = list_seg_folder(root)
    assert (
        "masks of 2 of 3 files, to be read as: 0 is background, the one other value foreground"
        in listing.masks.words
    )
    dataset = opened(listing, tmp_path)
    found = written(dataset, tmp_path)
    assert found.ids.tolist() == ["images/a.png", "images/c.png"]
    said = describe_masks(found, dataset)
    assert "masks of 2 images: background 50.00%, foreground 50.00%" in said
    assert "1 image without a mask; 1 are background alone" in said


def test_all_background_is_said(tmp_path) -> None:
    dataset = opened(list_seg_folder(seg_folder(tmp_path / "s", a=0 * ONES, b=0 * ONES)), tmp_path)
    assert "nothing to segment" in describe_masks(written(dataset, tmp_path), dataset)


@pytest.mark.parametrize(
    ("masks", "message"),
    [
        ({"a": ONES[:5]}, "mask masks/a.png is 9 x 5 px, and its image images/a.png 9 x 6 px"),
        ({"a": ONES, "b": 2 * ONES}, r"mask masks/b.png: values 2 \(54 px\)"),
        ({"a": None}, "has no masks"),
    ],
)
def test_masks_that_do_not_fit(tmp_path, masks, message) -> None:
    with pytest.raises(RequestError, match=message):
        written(opened(list_seg_folder(seg_folder(tmp_path / "s", **masks)), tmp_path), tmp_path)


def test_layouts_that_are_none(tmp_path) -> None:
    root = seg_folder(tmp_path / "s", a=ONES)
    save(root / "masks" / "lonely.png", ONES)
    save(root / "cover.png", ONES)
    notes = list_seg_folder(root).notes
    assert "left out: 1 masks without an image (masks/lonely.png)" in notes
    assert "left out: 1 files beside them (cover.png)" in notes
    save(root / "masks" / "a.tif", ONES)
    with pytest.raises(RequestError, match=r"masks/a.png and masks/a.tif are masks of one name"):
        list_seg_folder(root)
    (root / "masks" / "a.tif").unlink()
    save(root / "train" / "images" / "x.png", ONES)
    with pytest.raises(RequestError, match="folders of splits and others beside them"):
        list_seg_folder(root)
    with pytest.raises(RequestError, match="no folder at"):
        list_seg_folder(tmp_path / "none")
    with pytest.raises(RequestError, match="--label-col is for tables"):
        list_seg_folder(root, options=TableOptions(label_cols=("x",)))


def test_a_mask_that_changed_is_seen_and_others_are_not_read_again(tmp_path, monkeypatch) -> None:
    import os

    root = seg_folder(tmp_path / "s", a=ONES, b=0 * ONES)
    for path in root.rglob("*.png"):
        os.utime(path, (1e9, 1e9))  # long ago: a file's time can be trusted
    listing = list_seg_folder(root)
    first = written(opened(listing, tmp_path), tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr("extract.datasets.files.mask_files.read_values", None)  # not to be called
        assert written(opened(listing, tmp_path), tmp_path).path == first.path
    save(root / "masks" / "b.png", ONES)
    os.utime(root / "masks" / "b.png", (1.1e9, 1.1e9))  # long ago, too: its time must tell
    second = written(opened(listing, tmp_path), tmp_path)
    assert second.path != first.path
    assert second.counts[:, 1].tolist() == [54, 54]


# ---------------------------------------------------------------------------- tables


def table(tmp_path: Path, *lines: str) -> Path:
    for name in ("a", "b"):
        save(tmp_path / f"{name}.png", image())
        save(tmp_path / "m" / f"{name}.png", RNG.integers(0, 3, (6, 9), np.uint8))
    path = tmp_path / "table.csv"
    path.write_text("\n".join(["path,mask,patient", *lines]))
    return path


OPTIONS = TableOptions(mask_col="mask", mask_classes=("background", "liver", "spleen"))


def test_a_column_of_masks(tmp_path) -> None:
    path = table(tmp_path, "a.png,m/a.png,1", "b.png,,2")
    listing = list_table(path, OPTIONS)
    assert listing.target.is_unlabelled
    found = written(opened(listing, tmp_path), tmp_path)
    assert found.ids.tolist() == ["a.png"]
    assert found.class_names == ("background", "liver", "spleen")
    assert np.array_equal(found.mask(0), np.asarray(Image.open(tmp_path / "m" / "a.png")))
    # Labels of images, where the table has some, are kept beside masks.
    path.write_text("path,mask,label\na.png,m/a.png,x\nb.png,m/b.png,y\n")
    assert list_table(path, OPTIONS).target.class_names == ("x", "y")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("a.png,../secret.png,1", "column mask, line 2: '../secret.png' is no path below"),
        ("a.png,/etc/passwd,1", "is no path below"),
        ("a.png,m/none.png,1", "column mask, line 2: no file m/none.png"),
        ("a.png,,1", "column mask is empty in every row"),
    ],
)
def test_masks_that_a_table_does_not_have(tmp_path, line, message) -> None:
    with pytest.raises(RequestError, match=message):
        list_table(table(tmp_path, line), OPTIONS)


@pytest.mark.posix
def test_a_link_that_leads_out(tmp_path) -> None:
    path = table(tmp_path / "in", "a.png,m/link.png,1")
    save(tmp_path / "out.png", ONES)
    (tmp_path / "in" / "m" / "link.png").symlink_to(tmp_path / "out.png")
    with pytest.raises(RequestError, match="leads out of"):
        list_table(path, OPTIONS)


def test_definitions_keep_what_is_said_of_masks(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("MEDPROBE_DATASETS", str(tmp_path / "sets"))
    root = seg_folder(tmp_path / "s", a=ONES)
    options = TableOptions(
        mask_classes=("0=none", "1=lesion"), mask_ignore="9", mask_background="none"
    )
    definitions.save("lesions", "seg-folder", root, options)
    kept = definitions.load("lesions")
    assert kept is not None
    assert kept.options == options
    assert kept.list().masks.classes == MaskClasses.of(options)


# ---------------------------------------------------------------------------- volumes

SIDES = (3.0, 1.0, 0.5)  # mm along the patient's axes: left to right, back to front, feet to head
VOXELS = (4, 6, 5)
ORIENTATIONS = [
    (order, flips)
    for order in itertools.permutations(range(3))
    for flips in ((1, 1, 1), (-1, 1, 1), (1, -1, -1))
]


def volume(order: tuple[int, ...], flips: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Levels that tell each place of the patient from every other, stored along other axes."""
    levels = np.arange(np.prod(VOXELS), dtype=np.uint8).reshape(VOXELS)
    stored = levels.transpose(order)[tuple(slice(None, None, flip) for flip in flips)]
    affine = np.eye(4)
    affine[:3, :3] = 0
    for axis, (of, flip) in enumerate(zip(order, flips, strict=True)):
        affine[of, axis] = flip * SIDES[of]
        affine[of, 3] = 10.0 if flip > 0 else 10.0 + SIDES[of] * (VOXELS[of] - 1)
    return np.ascontiguousarray(stored), affine


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize(("order", "flips"), ORIENTATIONS)
def test_slices_of_a_volume_and_of_its_mask_stay_aligned(tmp_path, axis, order, flips) -> None:
    stored, affine = volume(order, flips)
    save_nifti(tmp_path / "s" / "images" / "v.nii.gz", stored, affine)
    # Stored otherwise than its image, it lies where that lies.
    other, its_affine = volume((2, 0, 1), (1, -1, 1))
    save_nifti(tmp_path / "s" / "masks" / "v.nii", (other % 3).astype(np.float32), its_affine)
    options = TableOptions(mask_classes=("background", "a", "b"))
    listing = list_seg_folder(tmp_path / "s", options=options)
    for neighbours in (False, True):
        dataset = opened(listing, tmp_path, slicing=Slicing(axis, neighbours))
        found = written(dataset, tmp_path)
        assert found.ids.tolist() == dataset.row_ids.tolist()
        (levels,) = dataset.stream([(0, dataset.n_rows)])
        for i, level in enumerate(levels):
            middle = level[..., 1] if neighbours else level
            assert np.array_equal(found.mask(i), middle % 3)
        upright = SIDES[::-1]
        rows, columns = (mm for i, mm in enumerate(upright) if i != axis)
        assert np.allclose(found.spacing, (rows, columns, upright[axis]))


def test_a_volume_is_read_once_for_all_its_slices(tmp_path, monkeypatch) -> None:
    from extract.datasets.files import mask_files

    for name in ("v", "w"):
        stored = np.zeros((3, 4, 40), np.uint8)
        for folder in ("images", "masks"):
            save_nifti(tmp_path / "s" / folder / f"{name}.nii.gz", stored, np.eye(4))
    read = []
    real = mask_files.read_values
    monkeypatch.setattr(mask_files, "read_values", lambda path: read.append(path) or real(path))
    found = written(opened(list_seg_folder(tmp_path / "s"), tmp_path), tmp_path)
    assert (len(found), len(read)) == (80, 2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda affine: affine @ np.diag([1, 1, 1.2, 1]), "voxels of"),
        (lambda affine: affine + np.outer([9, 0, 0, 0], [0, 0, 0, 1]), "first voxels at"),
        (lambda affine: affine @ np.diag([-1, 1, 1, 1]), "first voxels at"),
    ],
)
def test_headers_that_lie_apart(tmp_path, change, message) -> None:
    stored, affine = volume((0, 1, 2), (1, 1, 1))
    save_nifti(tmp_path / "s" / "images" / "v.nii", stored, affine)
    save_nifti(tmp_path / "s" / "masks" / "v.nii", stored % 2, change(affine))
    with pytest.raises(RequestError, match=f"lies elsewhere than its image.*{message}"):
        opened(list_seg_folder(tmp_path / "s"), tmp_path)


def test_a_picture_is_no_mask_of_a_volume(tmp_path) -> None:
    stored, affine = volume((0, 1, 2), (1, 1, 1))
    save_nifti(tmp_path / "s" / "images" / "v.nii", stored, affine)
    save(tmp_path / "s" / "masks" / "v.png", ONES)
    with pytest.raises(RequestError, match="store both as NIfTI"):
        opened(list_seg_folder(tmp_path / "s"), tmp_path)


@pytest.mark.parametrize(
    ("tags", "spacing"),
    [
        ({"PixelSpacing": [0.5, 0.25]}, (0.5, 0.25)),
        ({"ImagerPixelSpacing": [0.5, 0.25]}, (np.nan, np.nan)),
        ({"PixelSpacing": [0, 0.25]}, (np.nan, np.nan)),
        ({}, (np.nan, np.nan)),
    ],
)
def test_dicom_says_how_far_pixels_lie_apart(tmp_path, tags, spacing) -> None:
    making_dicom = pytest.importorskip("making_dicom")
    for folder in ("images", "masks"):
        (tmp_path / "s" / folder).mkdir(parents=True)
    making_dicom.write_dicom(tmp_path / "s" / "images" / "a.dcm", image(), **tags)
    save(tmp_path / "s" / "masks" / "a.png", ONES)
    found = written(opened(list_seg_folder(tmp_path / "s"), tmp_path), tmp_path)
    assert np.array_equal(found.spacing, [[*spacing, np.nan]], equal_nan=True)
