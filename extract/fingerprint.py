"""Features of one fixed picture: they tell later whether an encoder still computes the same."""

import numpy as np
import torch
from numpy.typing import NDArray

from cache.format.fingerprint import summarise
from extract.encoders.encoder import Encoder
from extract.forward import naming_memory
from extract.prepare.transforms import Transform

PICTURE_SIDE = 96  # px of the fingerprint's picture


def fingerprint_picture(n_channels: int) -> NDArray[np.uint8]:
    """(1, 96, 96) grey or (1, 96, 96, 3): waves and edges at several scales, different by channel.

    Made of integers alone, so it is the same everywhere. It must never change: every stored
    fingerprint would look like drift.
    """
    y, x = np.mgrid[:PICTURE_SIDE, :PICTURE_SIDE]
    planes = [
        (x * (3 + c) + y * (5 - c)) % 97 + 120 * ((x // 12 + y // (8 + c)) % 2)
        for c in range(n_channels)
    ]
    picture = np.stack(planes, axis=-1).astype(np.uint8)[None]
    return picture[..., 0].copy() if n_channels == 1 else picture


def make_fingerprint(
    encoder: Encoder, transform: Transform, n_channels: int
) -> dict[str, list[float]]:
    """Features of one fixed picture, shortened: other libraries or weights would move them.

    Args:
        encoder: with its weights, on its device.
        transform: of the data set.
        n_channels: of the data set's images.

    Returns:
        As ``cache.format.fingerprint.summarise`` gives it; empty where the features overflow.
    """
    images = torch.from_numpy(transform.on_host(fingerprint_picture(n_channels)))
    device = next(encoder.model.parameters()).device
    with naming_memory(encoder, device, len(images)):
        features = encoder(transform(images.to(device)))
    vectors = {name: vector[0].cpu().numpy().ravel() for name, vector in features.items()}
    if not all(np.isfinite(vector).all() for vector in vectors.values()):
        return {}  # the first batch will say what overflowed
    return summarise(vectors)
