"""An encoder that is loaded when it is first needed."""

from cache import RequestError
from extract.config import ExtractConfig
from extract.encoders.encoder import (
    Description,
    Encoder,
    choose_device,
    find_weights,
    load_encoder,
    set_precision,
    weights_digest,
)
from extract.job import Say
from extract.key import weights_words
from extract.machine.digests import DigestMemory


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
            if weights_words(self.weights, digest) != self.words:
                raise RequestError(f"{self.weights.path} changed while it was read; run again")
            for line in self._encoder.said:
                say(f"  weights: {line}")
            self._encoder.to(self.device, self.config.precision)
            self.refused = False
        return self._encoder
