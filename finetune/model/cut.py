"""Decapitation: an encoder that ends after one of its blocks (Huix et al. 2024)."""

import dataclasses

from torch import nn

from cache.errors import RequestError
from extract.encoders.anatomy import Anatomy
from extract.encoders.libraries.families import RAW_MAPS, TimmModel
from extract.encoders.outline import Network


def cut_after(network: Network, anatomy: Anatomy, block: int, name: str) -> Anatomy:
    """Delete every block behind one, in place; they aren't computed any more.

    The encoder's final norm then works on the last kept block, as DINOv2's does in the paper. Where
    it has another width (Swin, FocalNet), there is none.

    Args:
        network: changed in place.
        anatomy: of the whole encoder.
        block: the last that is kept, from 0.
        name: the encoder's, for messages.

    Returns:
        The anatomy of what is left, but for the widths of ``head`` and ``proj``.

    Raises:
        RequestError: no such block, or the encoder isn't a row of blocks.
    """
    container = _blocks(network.module, anatomy)
    if container is None:
        raise RequestError(
            f"--cut-after is for transformers, whose blocks stand in one row; {name} "
            f"({anatomy.family}) takes --mode full, head{', partial' if anatomy.taps else ''} or "
            "bitfit without it"
        )
    if block >= anatomy.n_layers:
        raise RequestError(
            f"--cut-after {block}: {name} has blocks 0 to {anatomy.n_layers - 1}; the last one cuts "
            "nothing off"
        )
    del container[block + 1 :]
    trunk: TimmModel = getattr(network, "model", network.module)
    if anatomy.norm_rule == "each stage":
        del trunk.stage_norms[block + 1 :]
    elif anatomy.width[block] != anatomy.width[-1]:
        trunk.norm = nn.Identity()
    taps = anatomy.taps[: block + 1]
    return dataclasses.replace(
        anatomy, n_layers=block + 1, width=anatomy.width[: block + 1], taps=taps
    )


def _blocks(module: nn.Module, anatomy: Anatomy) -> nn.Sequential | nn.ModuleList | None:
    """The container whose items are the layers, in order; None where there is none."""
    if not anatomy.known or anatomy.family in RAW_MAPS or len(anatomy.taps) < 2:
        return None
    parent, _, number = anatomy.taps[0].module.rpartition(".")
    names = [f"{parent}.{i}" for i in range(anatomy.n_layers)]
    last = anatomy.taps[-1].module
    if number != "0" or [tap.module for tap in anatomy.taps[:-1]] != names[:-1]:
        return None
    # SEEM's last map is known as the output of an Identity behind the last stage.
    if last != names[-1] and any(True for _ in module.get_submodule(last).parameters()):
        return None
    container = module.get_submodule(parent)
    if not isinstance(container, nn.Sequential | nn.ModuleList):
        return None
    return container if len(container) == len(names) else None
