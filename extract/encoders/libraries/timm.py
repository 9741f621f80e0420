"""timm's models, and those of our own that are built like them."""

import contextlib
import dataclasses
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from cache import RequestError
from cache.commands.names import first_line
from extract.encoders.anatomy import Statistics
from extract.encoders.libraries.architectures import ARCHITECTURES
from extract.encoders.libraries.families import TimmModel, study
from extract.encoders.outline import Loaded, Network, Outline
from extract.encoders.sizes import SizeError, near_sizes
from extract.encoders.table.entry import Entry
from extract.encoders.weights import checkpoints
from extract.encoders.weights.published import SAFE, Hub, Place

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # timm's own deprecations, at import
    import timm
    import timm.layers
    import timm.models._builder as timm_builder
    from timm.models import PretrainedCfg


class TimmNetwork(Network):
    """A timm model; ``project`` is what a CLIP puts behind it."""

    def __init__(self, module: TimmModel, project: nn.Module | None = None) -> None:
        # One module of both, so that device and precision reach the projection too.
        whole = nn.ModuleDict({"trunk": module, "project": project}) if project else module
        super().__init__(whole)
        self.model: TimmModel = module
        self.project = project

    def __call__(self, images: Tensor) -> Mapping[str, Tensor]:
        return self._finish(self.model.forward_features(images))

    def _finish(self, final: Tensor) -> Mapping[str, Tensor]:
        head = self.model.forward_head(final, pre_logits=True).flatten(1)
        return {"head": head} | ({"proj": self.project(head)} if self.project else {})

    def norm_tokens(self, tokens: Tensor) -> Tensor:
        return self.model.norm(tokens)

    def norm_pooled(self, vectors: Tensor) -> Tensor:
        return self.model.fc_norm(vectors)

    def norm_stage(self, layer: int, features: Tensor) -> Tensor:
        norms = getattr(self.model, "stage_norms", None)
        return (self.model.norm if norms is None else norms[layer])(features)

    @property
    def final_norms(self) -> list[nn.Module]:
        norms = [getattr(self.model, name, None) for name in ("norm", "fc_norm")]
        norms += list(getattr(self.model, "stage_norms", None) or [])[-1:]
        return [norm for norm in norms if norm is not None and any(True for _ in norm.parameters())]

    def file_tensors(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        if self.project is None:
            return dict(tensors)
        # The projection is the tower's head, or the trunk's own classifier: then it is there twice.
        of_trunk = any(module is self.project for module in self.model.modules())
        return {
            f"visual.{name.replace('project.', 'head.', 1) if beside else name}": value
            for name, value in tensors.items()
            for beside in [name.startswith("project.")]
            if not (beside and of_trunk)
        }

    def maps(self, images: Tensor, last_normed: bool) -> tuple[Mapping[str, Tensor], list[Tensor]]:
        final, maps = self.model.forward_intermediates(images, norm=last_normed)
        return self._finish(final), maps


def outline(entry: Entry, size: int | None) -> Outline:
    """What a timm model gives at a size.

    Args:
        entry: of the table, or made from a name.
        size: side of the input, pixels; None means the encoder's own.

    Raises:
        RequestError: the architecture doesn't take the size, or can't be used.
    """
    architecture, config = _configuration(entry)
    own_size = config.input_size[-1]
    size = size or own_size

    def arguments(at: int) -> dict[str, Any]:
        return {**entry.arguments, **_size_arguments(architecture, config, at)}

    def try_size(at: int) -> TimmModel:
        with torch.device("meta"):
            model = _create(architecture, arguments(at)).eval()
        if at != own_size:  # SigLIP's own 384 isn't a multiple of 14: its last pixels are unseen
            check_patches(model, at)
        return model

    try:
        anatomy = study(try_size(size), size)
    except RequestError:
        raise
    except (AssertionError, ValueError, RuntimeError, ZeroDivisionError) as error:
        near = near_sizes(size, own_size, lambda at: study(try_size(at), at))
        if not near:
            raise _unlike_others(entry, error) from error
        raise SizeError(entry.encoder, size, first_line(error), near, own_size) from error
    except (TypeError, AttributeError) as error:  # a method that timm's other models have
        raise _unlike_others(entry, error) from error
    chosen = arguments(size)

    def build() -> Network:
        return TimmNetwork(_create(architecture, chosen).eval())

    def load(tensors: dict[str, Tensor], source: str, layout: str | None) -> Loaded:
        said: list[str] = []

        def put(model: nn.Module, filter_fn: Callable[..., Any] | None = None) -> None:
            said.extend(
                checkpoints.load_strictly(
                    model,
                    tensors,
                    source=source,
                    classifier=_classifier(model, architecture, config, chosen),
                    filter_fn=filter_fn,
                    layout=layout,
                )
            )

        if architecture in ARCHITECTURES:
            model = _create(architecture, chosen)
            put(model)
        else:
            with _loading_by(put):
                model = _create(architecture, chosen, pretrained=True, pretrained_cfg=config)
        return TimmNetwork(model.eval()), said

    return Outline(
        size=size,
        own_size=own_size,
        arguments=chosen,
        statistics=_statistics(entry, config),
        anatomy=anatomy,
        place=_place(entry, config),
        build=build,
        load=load,
        licence=entry.pretraining.licence or config.license or "",
    )


def _unlike_others(entry: Entry, error: Exception) -> RequestError:
    return RequestError(
        f"{entry.encoder} isn't built like timm's other encoders ({first_line(error)}), so it "
        "can't be used at any size"
    )


def _classifier(
    model: nn.Module, architecture: str, config: PretrainedCfg, arguments: Mapping[str, Any]
) -> tuple[str, ...]:
    """Modules of the classifier: what timm says, and what the model would have only with one.

    timm names the linear layer alone; LeViT, EfficientViT, RepViT and their like have a norm
    beside it, which comes and goes with it.
    """
    named = config.classifier or ()
    modules = {named} if isinstance(named, str) else {*named}
    if architecture not in ARCHITECTURES:
        with torch.device("meta"):
            whole = _create(architecture, arguments, num_classes=2)
        modules |= _owners(whole) - _owners(model)
    return tuple(sorted(modules))


def _owners(model: nn.Module) -> set[str]:
    """Names of the modules that have tensors of their own."""
    return {name.rpartition(".")[0] for name in model.state_dict()}


def _configuration(entry: Entry) -> tuple[str, PretrainedCfg]:
    """The architecture's name, and timm's configuration with what the entry knows better."""
    name = entry.network or entry.encoder
    config = None if name in ARCHITECTURES else timm.get_pretrained_cfg(name)
    config = config or PretrainedCfg(num_classes=0)
    changes: dict[str, Any] = {}
    if entry.network and entry.network != entry.encoder:
        # Another's weights in timm's architecture: nothing of timm's own tag holds for them.
        changes = {"hf_hub_id": None, "url": None, "file": None, "license": None}
        if config.fixed_input_size is False and name in ARCHITECTURES:
            changes["input_size"] = (3, 224, 224)
    if entry.size:
        changes["input_size"] = (3, entry.size, entry.size)
    return name, dataclasses.replace(config, **changes)


def _statistics(entry: Entry, config: PretrainedCfg) -> Statistics | None:
    if entry.statistics:
        return entry.statistics
    known = config.has_weights and config.mean is not None and config.std is not None
    if not known:  # timm fills a default in, which is nobody's statement about any weights
        return None
    return Statistics(tuple(config.mean), tuple(config.std), config.interpolation)


def _place(entry: Entry, config: PretrainedCfg) -> Place | None:
    if entry.weights or not config.hf_hub_id:
        return entry.weights
    if config.custom_load == "hf":  # no file of tensors, but something that timm runs
        return None
    files = (config.hf_hub_filename,) if config.hf_hub_filename else SAFE
    return Hub(config.hf_hub_id, files)


def _size_arguments(architecture: str, config: PretrainedCfg, size: int) -> dict[str, Any]:
    # SAM resizes its position tables on the fly but can't load them at another img_size.
    takes_size = config.fixed_input_size and not architecture.startswith("samvit")
    return {"img_size": size} if takes_size else {}


def _create(architecture: str, arguments: Mapping[str, Any], **options: Any) -> TimmModel:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if architecture in ARCHITECTURES:
            return ARCHITECTURES[architecture](**arguments)
        arguments = {name: _class_of(value) for name, value in arguments.items()}
        # num_classes 0: a classifier of some other data set is no part of the features.
        return timm.create_model(architecture, **{"num_classes": 0, **arguments, **options})


def _class_of(value: Any) -> Any:
    """ "timm.layers.SwiGLUPacked" -> the class; the key and the table hold its name."""
    if isinstance(value, str) and value.startswith(("timm.layers.", "torch.nn.")):
        module, _, name = value.rpartition(".")
        return getattr({"timm.layers": timm.layers, "torch.nn": nn}[module], name)
    return value


def check_patches(model: nn.Module, size: int) -> None:
    """Refuse a side that patches don't fill: some models would silently cut the rest off.

    Raises:
        ValueError: the size isn't a multiple of the patch size.
    """
    patch = getattr(getattr(model, "patch_embed", None), "patch_size", None)
    for side in patch if isinstance(patch, Sequence) else [patch]:
        if isinstance(side, int) and size % side:
            raise ValueError(f"not a multiple of the patch size {side} of {type(model).__name__}")


@contextlib.contextmanager
def _loading_by(load: Callable[..., None]) -> Iterator[None]:
    """Let timm build a pretrained model, but load the weights by ``load(model, filter_fn)``.

    timm hands its loader the architecture's own key filter, which is nowhere else to be had: it
    is an argument inside each architecture's builder. Only strictness is ours.
    """
    called = []

    def note_and_load(model: nn.Module, *arguments: Any, **options: Any) -> None:
        called.append(True)
        load(model, options.get("filter_fn"))

    original = timm_builder.load_pretrained
    timm_builder.load_pretrained = note_and_load
    try:
        yield
    finally:
        timm_builder.load_pretrained = original
    if not called:
        raise RequestError(
            f"this timm ({timm.__version__}) builds pretrained models in a way that medprobe "
            "doesn't know; install the version named in pyproject.toml"
        )
