"""Gradient checkpointing: blocks run a second time in the backward pass, instead of being kept."""

from typing import Any

import torch

from cache.commands.names import first_line
from cache.errors import RequestError
from extract.encoders.outline import Network
from finetune.model.reading import Reader


def checkpoint_gradients(network: Network, name: str) -> None:
    """Let an encoder's own library do it. The numbers stay, memory gives way to time.

    Raises:
        RequestError: the library can't for this encoder.
    """
    model: Any = getattr(network, "model", network.module)  # a trunk of timm's, or all
    # transformers; the second is the older name, which newer releases warn about.
    for enable in ("activation_checkpointing_enable", "gradient_checkpointing_enable"):
        if hasattr(model, enable) and model.supports_gradient_checkpointing:
            getattr(model, enable)({"use_reentrant": False})
            return
    # open_clip's ModifiedResNet has the method, and passes it over.
    if hasattr(model, "set_grad_checkpointing") and type(model).__name__ != "ModifiedResNet":
        try:
            model.set_grad_checkpointing()
        except AssertionError:  # timm's families that have none
            pass
        else:
            return
    raise RequestError(
        f"--grad-checkpointing: {name} ({type(model).__name__}) has none; leave the flag out and "
        "take a smaller --micro-batch"
    )


def try_checkpointing(reader: Reader, size: int, name: str) -> None:
    """Switch it on and make sure that what the head sees still comes out.

    timm's ResNet then runs its stages' blocks one by one, so that no module's output is the layer;
    open_clip's rarer blocks fail.

    Args:
        reader: of an encoder on the meta device.
        size: side of its images.
        name: the encoder's, for messages.

    Raises:
        RequestError: it doesn't.
    """
    checkpoint_gradients(reader.network, name)
    parameter = next(reader.encoder.parameters())
    images = torch.zeros(1, 3, size, size, device=parameter.device)
    try:
        with torch.enable_grad():
            reader(images)
    except (RuntimeError, TypeError) as error:
        raise RequestError(
            f"--grad-checkpointing: with it {name} doesn't give its last layer "
            f"({first_line(error)}); take --pool head, or leave the flag out and take a smaller "
            "--micro-batch"
        ) from error
