"""DICOM files for the tests, made with pydicom."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import Dataset, uid
from pydicom.dataset import FileMetaDataset


def make_dataset(pixels: NDArray[Any], **tags: Any) -> Dataset:
    """(H, W), (n, H, W), (H, W, 3) or (n, H, W, 3) as a secondary capture; tags are added last."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = uid.SecondaryCaptureImageStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    dataset.SOPClassUID, dataset.SOPInstanceUID = uid.SecondaryCaptureImageStorage, "1.2.3"
    dataset.PatientID = "P1"
    colour = pixels.shape[-1] == 3
    shape = pixels.shape[:-1] if colour else pixels.shape
    dataset.Rows, dataset.Columns = shape[-2:]
    if len(shape) == 3:
        dataset.NumberOfFrames = shape[0]
    dataset.SamplesPerPixel = 3 if colour else 1
    if colour:
        dataset.PlanarConfiguration = 0
    dataset.PhotometricInterpretation = "RGB" if colour else "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 8 * pixels.dtype.itemsize
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
    dataset.PixelData = np.ascontiguousarray(pixels).tobytes()
    for name, value in tags.items():
        setattr(dataset, name, value)
    if "BitsStored" in tags and "HighBit" not in tags:
        dataset.HighBit = dataset.BitsStored - 1
    return dataset


def write_dicom(path: Path, pixels: NDArray[Any], **tags: Any) -> Path:
    """As ``make_dataset``, in a file."""
    return save(path, make_dataset(pixels, **tags))


def save(path: Path, dataset: Dataset) -> Path:
    dataset["PixelData"].VR = "OB" if dataset.BitsAllocated == 8 else "OW"
    dataset.save_as(path, enforce_file_format=True)
    return path


def transcode(plain, path, syntax):
    """A file as gdcm writes it anew in a transfer syntax, which is named as gdcm has it."""
    gdcm = pytest.importorskip("gdcm")
    reader, change = gdcm.ImageReader(), gdcm.ImageChangeTransferSyntax()
    writer = gdcm.ImageWriter()
    reader.SetFileName(str(plain))
    assert reader.Read()
    change.SetTransferSyntax(gdcm.TransferSyntax(getattr(gdcm.TransferSyntax, syntax)))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer.SetFileName(str(path))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    assert writer.Write()
    return path
