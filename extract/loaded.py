"""What a job needs when its turn comes: the encoder with its weights, the images, their transform."""

from cache import RequestError
from extract.config import ExtractConfig
from extract.datasets.arrays.official import download
from extract.datasets.dataset import Dataset
from extract.datasets.statistics import dataset_statistics
from extract.encoders.encoder import (
    Description,
    Encoder,
    find_weights,
    load_encoder,
    weights_digest,
)
from extract.job import Job, Say
from extract.key import make_transform, weights_words
from extract.machine.devices import choose_device, set_precision
from extract.machine.digests import DigestMemory
from extract.machine.progress import Progress
from extract.prepare.transforms import Transform


class LazyEncoder:
    """An encoder whose weights are digested at once, but loaded only when there is work to do."""

    def __init__(self, description: Description, config: ExtractConfig, memory: DigestMemory):
        self.description, self.config = description, config
        self.device = choose_device(config.device)
        set_precision(config.precision, self.device)
        self.weights = find_weights(description, config.weights, config.seed, download=True)
        self.refused = False  # whether its weights turned out not to fit
        self._encoder: Encoder | None = None
        if self.weights.path is None:
            self._encoder, digest = load_encoder(description, self.weights)
            self._encoder.to(self.device, config.precision)
        else:
            digest = weights_digest(self.weights, memory)
        self.words = weights_words(self.weights, digest)

    def get(self, say: Say) -> Encoder:
        """The encoder on its device."""
        if self._encoder is None:
            self.refused = True
            self._encoder, digest = load_encoder(self.description, self.weights)
            self.check(digest)
            for line in self._encoder.said:
                say(f"  weights: {line}")
            self._encoder.to(self.device, self.config.precision)
            self.refused = False
        return self._encoder

    def check(self, digest: str) -> None:
        """Refuse weights that aren't those whose digest the key holds.

        Raises:
            RequestError: their file changed.
        """
        if weights_words(self.weights, digest) != self.words:
            raise RequestError(f"{self.weights.path} changed while it was read; run again")


def open_images(job: Job, memory: DigestMemory) -> Dataset:
    """The images of a job, downloaded where they aren't here yet.

    Raises:
        RequestError: they can't be had, or read.
    """
    source = job.source
    if source.file and not source.present:
        with Progress(f"download {source.file.path.name}", None, "bytes") as progress:
            download(source.file, progress.reach)
    return source.open(memory)


def find_transform(
    job: Job, dataset: Dataset, memory: DigestMemory, say: Say = lambda line: None
) -> Transform:
    """The transform of a job's images, with their own mean and std where its protocol wants them.

    Raises:
        RequestError: there are no training images to take the mean of.
    """
    p, statistics = job.preprocessing, None
    if p.of_data_set:
        statistics = dataset_statistics(job.source, dataset, memory, say)
    return make_transform(job.description.size, p, dataset.n_channels, statistics)
