"""From stored pixels to the encoder's input.

By default the whole image is scaled to size x size in float32 on the device, with the encoder's own
interpolation, antialiased, clamped to 0..255 and not rounded, then normalised. ``crop_pct`` is
ignored: cropping would change the features of centred findings by 5 to 26 %. The other rules are
those of published pipelines, to compare with; Pillow's own resize, on the host, meets them exactly, or
torchvision's of float tensors, on the device.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from cache import RequestError
from cache.format.spec import PICTURE_SHAPE
from cache.geometry import CROPPED, Geometry
from extract.config import (
    BACKENDS,
    CHANNELS,
    COLOUR,
    FIRST_FILTER,
    INTENSITIES,
    INTERPOLATIONS,
    RESIZES,
)

BLACK_PADDED = ("pad", "pad-fit")
MEAN_PADDED = ("pad-after-norm", "longest")
DISTORTING = ("scale", "scale-crop")  # whatever an image's shape is, it becomes a square
PICTURE_SIDE = PICTURE_SHAPE[0]
UNNOTICED = 1.02  # a stretch that nobody sees: 512 x 502 px are as good as square

# Grey levels. In float32 the resize of a constant image leaves up to 5e-4 between its pixels (3000
# sizes tried), and that stretched to 0..1 would be noise.
FLAT = 1e-2

PILLOW = {
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
    "nearest": Image.Resampling.NEAREST,
}


@dataclass(frozen=True)
class Transform:
    """All that happens to an image before the encoder sees it. Part of the key.

    The order is: resize, crop, intensity to 0..1, black padding, mean and std, padding with the
    mean colour.

    Pillow or the device: both weigh the same pixels alike, but Pillow rounds and clips to 0..255
    after its horizontal pass and again after its vertical one. In grey levels of 0..255, before
    normalisation, they differ by

    * bilinear: at most 1 level, half of it each pass, for any image, and 1e-4 more for each pixel of
      the source's longer side, whose positions the device knows in float32;
    * bicubic: at most 1.2 where the first pass clips nothing, and the same for positions. The
      negative weights sum to at most 0.1344 (at a ratio of 1.08), so beside an edge that pass clips
      up to 34.3 levels off, and 36 bound any image. Measured from 28 to 512 px: 8.4 on
      scikit-learn's two photographs, 4.7 on BreastMNIST (each 0.3 in the mean), 31.2 on noise of
      black and white pixels;
    * nearest: nothing, but where an output pixel lies exactly between two source pixels either of
      them may be taken.

    The backend "tensor" is torchvision's resize of float tensors, which clips nothing: bicubic, which
    weighs by a = -0.75 where it isn't antialiased, goes below black and above white beside edges, and
    an intensity rule stretches that. "nearest" takes the pixel at the corner there.

    A constant image gives zeros under "min-max", as in MedSAM's code, and under "min-max per
    channel", where the code of Baharoon et al. divides by zero.
    """

    size: int  # side of the output, pixels
    mean: tuple[float, ...]  # of values in 0..1
    std: tuple[float, ...]
    interpolation: str = "bicubic"
    antialias: bool = True  # of no effect on nearest
    resize: str = "scale"  # the whole image, aspect ratio given up
    channels: str = "grey repeated to RGB"
    intensity: str = "uint8 / 255"
    backend: str = "device"  # in the key as part of ``resize``
    # Side that images are prepared at, where the encoder doesn't take it: the middle is cut out, or
    # mean colour put around it. None: ``size``.
    content: int | None = None

    def __post_init__(self) -> None:
        for name, known in (
            ("interpolation", INTERPOLATIONS),
            ("resize", RESIZES),
            ("channels", (*CHANNELS.values(), COLOUR)),
            ("intensity", tuple(INTENSITIES.values())),
            ("backend", BACKENDS),
        ):
            found = getattr(self, name)
            if found not in known:
                flag = "resize-backend" if name == "backend" else name
                raise RequestError(
                    f"{name} {found!r} is unknown; medprobe has {', '.join(known)}: choose one "
                    f"with --{flag}"
                )
        if self.backend == "pil" and not self.antialias and self.interpolation != "nearest":
            raise RequestError(
                f"Pillow's {self.interpolation} is always antialiased, and antialias is off; "
                "resize on the device, or leave antialias on"
            )
        if len(self.mean) != 3 or len(self.std) != 3:
            raise RequestError(
                f"the encoder takes {len(self.mean)} channels; medprobe gives three (RGB)"
            )

    @cached_property
    def geometry(self) -> Geometry:
        """Where an image's pixels go."""
        corner = self.interpolation == "nearest" and self.backend == "tensor"
        return Geometry(self.resize, self.size, self.content, corner)

    @property
    def side(self) -> int:
        """Of what images are prepared to, before they are cut or padded to ``size``."""
        return self.geometry.side

    @property
    def key(self) -> dict[str, Any]:
        """For the feature key; the size has its own entry there."""
        values = asdict(self)
        values.pop("size")
        # No entry of its own: the digest of the key names the files made before there was a choice.
        values["resize"] += {"device": "", "pil": " (PIL)", "tensor": " (tensor)"}[
            values.pop("backend")
        ]
        values["antialias"] = self._antialiased
        if self.content is None:
            values.pop("content")
        return values | {"mean": list(self.mean), "std": list(self.std)}

    def __str__(self) -> str:
        mean, std = ("/".join(f"{v:.3g}" for v in values) for values in (self.mean, self.std))
        antialias = "antialiased" if self._antialiased else "not antialiased"
        fitted = ""
        if self.content is not None:
            fitted = f", {'cut' if self.content > self.size else 'padded'} to {self.size} px"
        return (
            f"{self.key['resize']} to {self.side} px{fitted} ({self.interpolation}, {antialias}) · "
            f"{self.channels} · {self.intensity} · mean {mean} · std {std}"
        )

    @property
    def _antialiased(self) -> bool:
        # nearest reads one pixel each, whatever was asked for; so equal features have equal keys.
        return self.antialias and self.interpolation != "nearest"

    def on_host(self, images: NDArray[Any]) -> NDArray[Any]:
        """Resize and crop by Pillow, before the batch goes to the device.

        Args:
            images: (B, H, W) or (B, H, W, 3), uint8 or float32 levels of 0..255.

        Returns:
            (B, h, w) or (B, h, w, 3): size x size, or what is still to be padded. The images
            themselves where nothing is to be resized or the device does it.
        """
        if self.backend != "pil":
            return images
        source = images.shape[1:3]
        height, width = self.geometry.resized(*source)
        rows, columns = self.geometry.kept(height, width)
        kept = (rows.stop - rows.start, columns.stop - columns.start)
        if source == (height, width) == kept:
            return images
        prepared = np.empty((len(images), *kept, *images.shape[3:]), dtype=images.dtype)
        for image, place in zip(images, prepared, strict=True):
            place[...] = self._by_pillow(image, (width, height))[rows, columns]
        return prepared

    def _by_pillow(self, image: NDArray[Any], target: tuple[int, int]) -> NDArray[Any]:
        """One image (H, W) or (H, W, 3) at another (width, height)."""
        if image.dtype == np.uint8:
            return np.asarray(Image.fromarray(image).resize(target, PILLOW[self.interpolation]))
        # Pillow's float images have one channel, and its bicubic doesn't clip them.
        planes = [image] if image.ndim == 2 else [image[..., c] for c in range(image.shape[-1])]
        resized = [
            np.asarray(
                Image.fromarray(np.ascontiguousarray(plane)).resize(
                    target, PILLOW[self.interpolation]
                )
            )
            for plane in planes
        ]
        return np.clip(resized[0] if image.ndim == 2 else np.stack(resized, axis=-1), 0, 255)

    def __call__(self, images: Tensor) -> Tensor:
        """Prepare a batch.

        Args:
            images: (B, H, W) or (B, H, W, 3), uint8 or float32 levels of 0..255, on the device to
                compute on; with the backend "pil" as ``on_host`` gave them.

        Returns:
            (B, 3, size, size) float32.

        Raises:
            RequestError: colour images for the first filter alone, or images that ``on_host``
                should have resized.
        """
        x, white = self._content(images)
        if self.resize in BLACK_PADDED:
            x = self._padded(x)
        x = self._normalised(x, white)
        if self.resize in MEAN_PADDED:
            x = self._padded(x)
        return self._to_filters(self._fitted(x))

    def levels(self, images: Tensor) -> Tensor:
        """All but mean and std: what an augmentation of prepared images works on.

        Args:
            images: as ``__call__`` takes them.

        Returns:
            (B, C, size, size) float32 levels of 0..255, padding included; C is 1 of grey images,
            but 3 where they are padded with a mean colour that isn't grey. ``from_levels`` makes
            the encoder's input of them, to rounding that of ``__call__``.

        Raises:
            RequestError: as ``__call__``.
        """
        x, white = self._content(images)
        x = (x if white == 255 else x * 255).clamp(0, 255)  # only the backend "tensor" goes beyond
        if self.resize in BLACK_PADDED:
            x = self._padded(x)
        if self.resize not in MEAN_PADDED and self.content is None:
            return x
        mean, _ = self._statistics(x, 255.0)
        if x.shape[1] == 1 and (mean == mean[:, :1]).all():
            mean = mean[:, :1]
        x = x - mean
        return self._fitted(self._padded(x) if self.resize in MEAN_PADDED else x) + mean

    def from_levels(self, levels: Tensor) -> Tensor:
        """The encoder's input from prepared images.

        Args:
            levels: (B, 1 or 3, size, size) of 0..255, of any type, on the device to compute on.

        Returns:
            (B, 3, size, size) float32.
        """
        return self._to_filters(self._normalised(levels.float(), 255.0))

    def pictures(self, inputs: Tensor, side: int = PICTURE_SIDE) -> Tensor:
        """What the encoder sees, as pictures for people; the same square as its grid of patches.

        Args:
            inputs: (B, 3, size, size) as ``__call__`` gave them.
            side: of the pictures, pixels.

        Returns:
            (B, side, side, 3) uint8; grey images have three equal channels. Larger inputs are
            averaged over areas, smaller ones enlarged bilinearly.
        """
        mean, std = self._statistics(inputs, 255.0)
        padded = self.resize in MEAN_PADDED or self.content is not None
        is_grey = self.channels != COLOUR and not (padded and bool((mean != mean[:, :1]).any()))
        n = 1 if is_grey else mean.shape[1]
        levels = (inputs[:, :n] * std[:, :n] + mean[:, :n]).clamp_(0, 255)
        if levels.shape[-2:] != (side, side):
            levels = F.interpolate(
                levels, (side, side), mode="bilinear", align_corners=False, antialias=True
            )
        pictures = levels.round().to(torch.uint8).expand(-1, 3, -1, -1)
        return pictures.permute(0, 2, 3, 1)

    def _content(self, images: Tensor) -> tuple[Tensor, float]:
        """Resized, cropped and stretched, (B, 1 or 3, h, w) float32; and which level is white."""
        grey = images.ndim == 3
        if self.channels == FIRST_FILTER and not grey:
            raise RequestError(
                f"{FIRST_FILTER!r} takes grey images, found {images.shape[-1]} channels; use "
                "'RGB' for them"
            )
        x = images[:, None] if grey else images.permute(0, 3, 1, 2)
        x = self._from_host(x) if self.backend == "pil" else self._on_device(x)
        if self.intensity == INTENSITIES["255"]:
            return x, 255.0
        return self._stretched(x), 1.0

    def _statistics(self, x: Tensor, white: float) -> tuple[Tensor, Tensor]:
        """(1, C, 1, 1) mean and std in the levels of x, of the channels that have a filter."""
        filters = 1 if self.channels == FIRST_FILTER else 3
        mean = torch.tensor(self.mean[:filters], device=x.device).view(1, -1, 1, 1)
        std = torch.tensor(self.std[:filters], device=x.device).view(1, -1, 1, 1)
        return white * mean, white * std

    def _normalised(self, x: Tensor, white: float) -> Tensor:
        """Mean off, divided by std, in one pass; a grey channel is repeated by broadcasting."""
        mean, std = self._statistics(x, white)
        return (x - mean).div_(std)

    def _to_filters(self, x: Tensor) -> Tensor:
        """(B, 3, size, size); of a single filter's channel the others are zeros."""
        # Zeros add nothing to a convolution: only the first input channel's filter counts.
        return F.pad(x, (0, 0, 0, 0, 0, 2)) if self.channels == FIRST_FILTER else x

    def _on_device(self, x: Tensor) -> Tensor:
        """Resize and crop (B, C, H, W) to float32 levels of 0..255, not rounded."""
        target = self.geometry.resized(*x.shape[-2:])
        resizes = x.shape[-2:] != target
        # Plane by plane: interleaved channels are resized up to three times slower (CPU, 224 to
        # 518 px: 10 ms an image against 3.3).
        x = (x.contiguous() if resizes else x).float()  # (B, 1 or 3, H, W)
        if resizes:
            nearest, is_plain = self.interpolation == "nearest", self.backend == "tensor"
            x = F.interpolate(
                x,
                target,
                # torch's "nearest" takes the pixel at the corner; Pillow's is "nearest-exact".
                mode="nearest-exact" if nearest and not is_plain else self.interpolation,
                align_corners=None if nearest else False,
                # Without it, torch's bicubic has another kernel too: a = -0.75 instead of -0.5.
                antialias=self._antialiased,
            )
            x = x if is_plain else x.clamp_(0, 255)  # bicubic overshoots at edges
        if self.resize in CROPPED:
            rows, columns = self.geometry.kept(*target)
            x = x[..., rows, columns]
        return x

    def _from_host(self, x: Tensor) -> Tensor:
        """(B, C, h, w), resized and cropped already, to float32 levels of 0..255."""
        height, width = x.shape[-2:]
        cropped = self.resize in CROPPED
        done = (self.side, self.side) if cropped else self.geometry.resized(height, width)
        if (height, width) != done:
            raise RequestError(
                f"expected images resized by Pillow ({self.resize} to {self.side} px), found "
                f"{height} x {width} px; give the batch to on_host first"
            )
        return x.float()

    def _stretched(self, x: Tensor) -> Tensor:
        """Each image's, or channel's, darkest value to 0 and its brightest to 1."""
        of = (1, 2, 3) if self.intensity == INTENSITIES["min-max"] else (2, 3)
        low, high = x.amin(of, keepdim=True), x.amax(of, keepdim=True)
        span = high - low
        flat = span < FLAT
        return (x - low).div_(span.masked_fill(flat, 1)).masked_fill_(flat, 0)

    def _fitted(self, x: Tensor) -> Tensor:
        """(B, C, side, side) of mean 0 -> (B, C, size, size): its middle, or zeros around it."""
        return x if self.content is None else F.pad(x, self.geometry.fitted * 2)

    def _padded(self, x: Tensor) -> Tensor:
        """Put zeros around (B, C, h, w), as the rule says where."""
        below, right = self.side - x.shape[-2], self.side - x.shape[-1]
        if not below and not right:
            return x
        top, left = (self.geometry.before(n) for n in x.shape[-2:])
        return F.pad(x, (left, right - left, top, below - top))


def describe_distortion(
    shapes: Sequence[tuple[int, ...]], resize: str, what: str = "images"
) -> list[str]:
    """A line on how far a resize rule stretches images; none where nobody sees it.

    Args:
        shapes: (height, width) of each image.
        resize: the rule.
        what: the images are called.
    """
    if resize not in DISTORTING:
        return []
    stretch = [max(shape) / min(shape) for shape in shapes]
    n = sum(factor > UNNOTICED for factor in stretch)
    if not n:
        return []
    most = int(np.argmax(stretch))
    height, width = shapes[most]
    return [
        f"{resize} distorts {n:_} of the {len(shapes):_} {what}, at most {stretch[most]:.3g}-fold "
        f"({height} x {width} px); --resize pad-fit keeps their shape"
    ]
