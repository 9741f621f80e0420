"""What one feature file is made of: an encoder, a source of images, a transform."""

from collections.abc import Callable
from dataclasses import dataclass

from extract.datasets.sources import Source
from extract.encoders.encoder import Description
from extract.prepare.protocols import Preprocessing

Say = Callable[[str], None]


@dataclass
class Job:
    """One encoder on one data set. It can be pickled, for another process to do."""

    description: Description
    source: Source
    preprocessing: Preprocessing

    @property
    def label(self) -> str:
        return f"{self.description.entry.name} on {self.source.name}"
