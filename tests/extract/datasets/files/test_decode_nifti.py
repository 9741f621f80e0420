"""NIfTI: which way is up, scaling, and files that aren't right."""

import itertools
import struct
import sys

import nibabel
import numpy as np
import pytest
from decoding import unreadable
from nibabel.orientations import axcodes2ornt, ornt_transform

from cache import RequestError
from extract.datasets.files.decode import inspect, read_image
from extract.datasets.files.formats.stored import UnreadableImage
from extract.datasets.files.windows import Window
from extract.datasets.volumes import Slicing

VOXELS = np.random.default_rng(0).integers(0, 1000, (4, 5, 6)).astype(np.int16)
IDENTITY = np.eye(4)  # towards right, anterior, superior
RAW = Window.parse("0,1000")
UPRIGHT = VOXELS.transpose(2, 1, 0)[::-1, ::-1, ::-1]  # of VOXELS in RAS


def save(path, voxels=VOXELS, affine=IDENTITY, kind=nibabel.Nifti1Image):
    nibabel.save(kind(voxels, affine), path)
    return path


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
def test_values(tmp_path, name, kind):
    path = save(tmp_path / name, kind=kind)
    np.testing.assert_allclose(read_image(path, RAW, None), UPRIGHT * 0.255, rtol=1e-5)
    facts = inspect(path, RAW, None)
    assert (facts.n_frames, facts.height, facts.width, facts.n_channels) == (6, 5, 4, 1)
    assert (facts.low, facts.high, facts.kind) == (VOXELS.min(), VOXELS.max(), "int16")
    assert facts.notes == ()


def test_which_way_is_up(tmp_path):
    voxels = np.zeros((4, 5, 6), np.int16)  # towards right, anterior, superior
    voxels[3, 2, 1], voxels[0, 4, 1], voxels[1, 1, 5] = 100, 200, 300
    levels = read_image(save(tmp_path / "a.nii", voxels), RAW, None)
    right, anterior, superior = (
        np.argwhere(levels == np.float32(v * 0.255))[0] for v in (100, 200, 300)
    )
    assert right[2] == 0  # the patient's right is on the left
    assert anterior[1] == 0  # the front is on top
    assert superior[0] == 0  # the head comes first


@pytest.mark.parametrize("axes", list(itertools.permutations(range(3))))
@pytest.mark.parametrize("flips", list(itertools.product([0, 1], repeat=3)))
def test_any_order_of_axes_is_the_same_picture(tmp_path, axes, flips):
    codes = [("RAS", "LPI")[flip][axis] for axis, flip in zip(axes, flips, strict=True)]
    image = nibabel.Nifti1Image(VOXELS, np.diag([2, 0.7, 3, 1]))
    turned = image.as_reoriented(ornt_transform(axcodes2ornt("RAS"), axcodes2ornt(codes)))
    assert nibabel.aff2axcodes(turned.affine) == tuple(codes)
    nibabel.save(turned, tmp_path / "a.nii")
    np.testing.assert_allclose(
        read_image(tmp_path / "a.nii", RAW, None), UPRIGHT * 0.255, rtol=1e-5
    )


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_slices(tmp_path, axis):
    path = save(tmp_path / "a.nii")
    for neighbours in (False, True):
        slicing = Slicing(axis, neighbours)
        levels = read_image(path, RAW, slicing, 1, 3)
        np.testing.assert_allclose(levels, slicing.take(UPRIGHT, 1, 3) * 0.255, rtol=1e-5)
        facts = inspect(path, RAW, slicing)
        assert facts.n_frames == UPRIGHT.shape[axis]
        assert levels.shape[1:3] == (facts.height, facts.width)


def test_scaling_is_nibabels(tmp_path):
    image = nibabel.Nifti1Image(VOXELS * 0.37 - 50, np.eye(4))
    image.set_data_dtype(np.int16)
    nibabel.save(image, tmp_path / "a.nii.gz")
    stored = nibabel.load(tmp_path / "a.nii.gz")
    assert stored.dataobj.slope != 1
    plain = np.asarray(stored.dataobj).transpose(2, 1, 0)[::-1, ::-1, ::-1]
    low, high = np.percentile(plain, [5, 95])
    levels = read_image(tmp_path / "a.nii.gz", Window.parse("percentile:5,95"), None)
    expected = np.clip((plain - low) / (high - low), 0, 1) * 255
    np.testing.assert_allclose(levels, expected, rtol=1e-4, atol=1e-3)
    slope, intercept = stored.dataobj.slope, stored.dataobj.inter
    expected = (plain - (-32768 * slope + intercept)) / (65535 * slope) * 255
    levels = read_image(tmp_path / "a.nii.gz", Window.parse("full"), None)
    np.testing.assert_allclose(levels, expected, rtol=1e-4)


def test_no_natural_range(tmp_path):
    with pytest.raises(RequestError, match="a.nii: its int16 values .* --window LO,HI or") as e:
        inspect(save(tmp_path / "a.nii"), None, None)
    assert not isinstance(e.value, UnreadableImage)
    small = save(tmp_path / "b.nii", VOXELS.astype(np.uint8))
    np.testing.assert_array_equal(read_image(small, None, None), UPRIGHT.astype(np.uint8))


def test_dimensions(tmp_path):
    single = save(tmp_path / "a.nii", VOXELS[..., None])
    np.testing.assert_allclose(read_image(single, RAW, None), UPRIGHT * 0.255, rtol=1e-5)
    flat = save(tmp_path / "b.nii", VOXELS[:, :, 0])
    assert inspect(flat, RAW, None).n_frames == 1
    series = save(tmp_path / "c.nii", np.stack([VOXELS, VOXELS], axis=-1))
    unreadable(series, "2 volumes in one file; store each in its own", "0,1000")


def test_not_finite(tmp_path):
    voxels = VOXELS.astype(np.float32)
    voxels[0], voxels[1, 0, 0] = np.nan, np.inf
    path = save(tmp_path / "a.nii", voxels)
    levels = read_image(path, Window.parse("min-max"), None)
    assert not levels[..., -1].any()  # NaN is black
    assert inspect(path, Window.parse("min-max"), None).notes == ("not-finite",)


def test_unknown_orientation_is_noted(tmp_path):
    path = save(tmp_path / "a.nii", affine=None)
    assert inspect(path, RAW, None).notes == ("no-orientation",)


@pytest.mark.parametrize("lost", [1, 8, 60])
@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_truncated(tmp_path, name, lost):
    path = save(tmp_path / name)
    path.write_bytes(path.read_bytes()[:-lost])
    unreadable(path, "Expected 240 bytes|ended before", "0,1000")


def test_gzips_checksum_is_compared(tmp_path):
    path = save(tmp_path / "a.nii.gz")
    data = bytearray(path.read_bytes())
    data[-6] ^= 1
    path.write_bytes(data)
    unreadable(path, "CRC", "0,1000")


def damaged(path, layout, offset, *values):
    data = bytearray(save(path).read_bytes())
    struct.pack_into(layout, data, offset, *values)
    path.write_bytes(data)
    return path


def test_odd_headers(tmp_path, capfd):
    for name, layout, offset, values, reason in [
        ("a.nii", "<4s", 344, [b"ni1"], "n\\+1 or n\\+2"),
        ("b.nii", "<4h", 40, [3, 30000, 30000, 30000], "30000 x 30000 pixels"),
        ("c.nii", "<4h", 40, [3, 0, 5, 6], "nothing to see"),
        ("d.nii", "<12f", 280, [0.0] * 12, "affine"),
        ("e.nii", "<h", 70, [32], "complex64 aren't grey levels"),
        ("f.nii", "<h", 70, [999], "data code 999"),
    ]:
        unreadable(damaged(tmp_path / name, layout, offset, *values), reason, "0,1000")
    assert capfd.readouterr().err == ""  # nibabel would tell what it mends


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_not_nifti(tmp_path, name):
    for data in (b"", b"voxels"):
        (tmp_path / name).write_bytes(data)
        unreadable(tmp_path / name, "not NIfTI|[Nn]ot a gzipped", "0,1000")


def test_missing_package(tmp_path, monkeypatch):
    path = save(tmp_path / "a.nii")
    monkeypatch.setitem(sys.modules, "nibabel", None)
    with pytest.raises(
        RequestError, match=r"a.nii needs nibabel: pip install 'medprobe\[medical\]'"
    ):
        inspect(path, RAW, None)
