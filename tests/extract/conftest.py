"""What follows from an encoder's architecture alone is found out once for all tests but its own."""

import pytest
from knowing import once

from extract.encoders.libraries import timm

OUTLINE = once(timm.outline, lambda entry, size: repr((entry, size)))


@pytest.fixture(autouse=True)
def _outlines_are_known(request, monkeypatch):
    if "encoders" not in request.path.parts:
        monkeypatch.setattr(timm, "outline", OUTLINE)
