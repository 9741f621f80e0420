"""Files of images read as `extract` does: one frame, or none."""

import pytest

from extract.datasets.files.decode import inspect, read_image
from extract.datasets.files.formats.stored import UnreadableImage
from extract.datasets.files.windows import Window


def read_one(path, window=None):
    """The levels of a file's only frame."""
    [frame] = read_image(path, window and Window.parse(window), None)
    return frame


def unreadable(path, reason, window=None, slicing=None):
    """A file is refused for this reason when it is looked at."""
    with pytest.raises(UnreadableImage, match=reason):
        inspect(path, window and Window.parse(window), slicing)
