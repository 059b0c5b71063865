"""Where a network drops samples, and what goes in and comes out there."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from math import ceil
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ..errors import UsageError
from ..inference import batches, check_images, evaluating, finite, widened
from ..layers import Call, Downsample, outermost, recorded
from ..layers.base import per_axis
from ..models.watch import tensors


@dataclass(frozen=True)
class Sample:
    """One batch passing one downsampling site.

    Attributes:
        site: dotted name of the module.
        strides: subsampling factors of rows and of columns.
        x: the map (N, C, H, W) in front of the sampling. For a strided convolution that is the map which the same
            convolution gives at stride 1.
        y: what the site returns, as a rule (N, C, ceil(H/strides[0]), ceil(W/strides[1])).
        operator: the site as a function of maps like ``x``, on the grid chosen for ``x``.
    """

    site: str
    strides: tuple[int, int]
    x: Tensor
    y: Tensor
    operator: Callable[[Tensor], Tensor]


def sites(model: nn.Module) -> dict[str, nn.Module]:
    """The downsampling sites of ``model`` by name, in the order of the modules.

    Outermost ``Downsample`` layers of stride > 1, and in networks of others the strided convolutions and pools.
    """
    inner = {id(part) for layer in outermost(model).values() for part in layer.modules() if part is not layer}
    return {name: part for name, part in model.named_modules() if id(part) not in inner and max(strides_of(part)) > 1}


def some_sites(model: nn.Module) -> dict[str, nn.Module]:
    """``sites``, of which there must be one."""
    if not (found := sites(model)):
        raise UsageError(
            f"{type(model).__name__} has no downsampling site: no downsampling layer, strided convolution or pool"
        )
    return found


KINDS = (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d, Downsample)  # modules that may be sites


def strides_of(module: nn.Module) -> tuple[int, int]:
    """The strides of a site, 1 for any other module."""
    if isinstance(module, Downsample):
        return (module.strides[0], module.strides[1]) if module.dims == 2 else (1, 1)
    down, right = per_axis(module.stride) if isinstance(module, KINDS) else (1, 1)
    return down, right


def sampled(model: nn.Module, images: Tensor, batch_size: int = 256, one_each: bool = False) -> Iterator[list[Sample]]:
    """For each batch of images, in order, what passed every site (a site that is used twice occurs twice).

    Raises:
        UsageError: ``model`` downsamples nowhere, a map is not finite or, with ``one_each``, a site does not see one
            map for each image: nobody knows whose they are.
    """
    found = some_sites(model)
    others = {name: module for name, module in found.items() if not isinstance(module, Downsample)}
    for batch in batches(model, check_images(images), batch_size):
        with evaluating(model), torch.no_grad(), recorded(model) as calls, ExitStack() as hooks:
            passed: list[Any] = calls  # layers and the other sites in the order in which they are used
            for name, module in others.items():
                hook = _hook(name, module, passed)
                # In front of the owner's hooks, of which ``operator`` knows nothing.
                hooks.enter_context(module.register_forward_hook(hook, with_kwargs=True, prepend=True))
            model(batch)
        samples = [
            Sample(own.name, strides_of(own.layer), own.x, own.y, _resting(own.layer, own.again))
            if isinstance(own, Call)
            else own
            for own in passed
            if not isinstance(own, Call) or own.name in found
        ]
        for sample in samples:
            if one_each and len(sample.x) != len(batch):
                raise UsageError(f"{sample.site!r} sees {len(sample.x)} maps for {len(batch)} images: not one for each")
            finite(sample.x, f"maps in front of {sample.site}")
            finite(sample.y, f"outputs of {sample.site}")
        yield samples


def per_site(
    model: nn.Module, images: Tensor, measure: Callable[[Sample], Tensor], batch_size: int = 256
) -> dict[str, Tensor]:
    """``measure(sample)`` (N, ...) for all images, by site; the mean over its uses where a site is used repeatedly."""
    values: dict[str, list[Tensor]] = {name: [] for name in sites(model)}
    for batch in sampled(model, images, batch_size, one_each=True):
        for site, parts in values.items():
            own = [measure(sample).double().cpu() for sample in batch if sample.site == site]
            if own:
                parts.append(torch.stack(own).mean(0))
    if not any(values.values()):
        raise UsageError(f"no downsampling site of {type(model).__name__} is seen at work in a forward pass")
    return {site: torch.cat(parts) for site, parts in values.items() if parts}


def _resting(layer: nn.Module, operator: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """``operator`` in evaluation mode, whatever mode the network is in by then: else it would move its statistics."""

    def rested(z: Tensor) -> Tensor:
        with evaluating(layer), torch.no_grad():
            return operator(z)

    return rested


class Dense(TorchFunctionMode):
    """Convolutions have stride 1 within, whose modules do not know: some choose their padding by their stride."""

    replaced: dict[str, Any] | None = None  # the arguments of the last one

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function is F.conv2d:
            names = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
            self.replaced = dict(zip(names, args, strict=False)) | (kwargs or {})
            args, kwargs = (), self.replaced | {"stride": 1}
        return function(*args, **(kwargs or {}))


def subsampling(strides: tuple[int, int]) -> Callable[[Tensor], Tensor]:
    """Keep the first of so many rows and columns."""
    return lambda z: z[:, :, :: strides[0], :: strides[1]]


def _hook(name: str, module: nn.Module, samples: list[Sample]) -> Callable[..., None]:
    strides = strides_of(module)

    # Maps are copied: activations that work in place would change them before they are looked at.
    def hook(_: nn.Module, args: tuple, kwargs: dict, output: Any) -> None:
        x, y = (next(tensors(part)) for part in ([args, kwargs], output))  # a pool may return indices as well
        x, y = (part[None] if part.ndim == 3 else part for part in (x, y))  # of a single image
        if isinstance(module, nn.Conv2d):  # what it would return at stride 1, of which it keeps every stride-th pixel
            with Dense():
                x = module.forward(x)
            operator = subsampling(strides)
            if tuple(y.shape[2:]) != tuple(ceil(side / step) for side, step in zip(x.shape[2:], strides, strict=True)):
                raise UsageError(f"the map of {name} at stride 1 is not known: {type(module).__name__} has its own way")
        else:
            x, operator = x.clone(), lambda z: next(tensors(module.forward(z)))
        samples.append(Sample(name, strides, x, y.clone(), operator))

    return hook


def check_names(layers: Sequence[str]) -> None:
    """Raise ``UsageError`` for a single name: its letters may be names as well, as "1" and "0" are of "10"."""
    if isinstance(layers, str):
        raise UsageError(f"layers must be a list of names, such as [{layers!r}], got {layers!r}")


def outputs(
    model: nn.Module, images: Tensor, layers: Sequence[str], batch_size: int = 256
) -> Iterator[dict[str, Tensor]]:
    """For each batch of images the outputs (n, C, H, W) of the named modules; the last one where used repeatedly.

    The name of the network itself is "". In at least float32.
    """
    check_names(layers)
    modules: dict[str, nn.Module] = dict(model.named_modules())
    if missing := [name for name in layers if name not in modules]:
        raise UsageError(f"no module named {missing[0]!r}; this network has {', '.join(filter(None, modules))}")
    layers_of_ours = outermost(model).keys() & set(layers)  # blocks may call their ``sample``, which no hook sees
    for batch in batches(model, check_images(images), batch_size):
        seen: dict[str, Tensor] = {}
        with evaluating(model), torch.no_grad():
            if others := set(layers) - layers_of_ours:
                with ExitStack() as stack:
                    for name in others:
                        stack.enter_context(modules[name].register_forward_hook(partial(_keep, seen, name)))
                    model(batch.clone())
            if layers_of_ours:  # in a pass of its own: where a layer is recorded, a pool in front of it is a dense one
                with recorded(model) as calls:
                    model(batch.clone())
                seen |= {call.name: call.y for call in calls}
        if silent := [name for name in layers if name not in seen]:
            raise UsageError(f"module {silent[0]!r} was not called in the forward pass")
        for name, maps in seen.items():
            if maps.shape[:1] != batch.shape[:1]:
                raise UsageError(f"{name!r} gives {tuple(maps.shape)} for {len(batch)} images: not one row for each")
        yield {name: widened(finite(seen[name], f"outputs of {name or 'the network'}")) for name in layers}


def _keep(seen: dict[str, Tensor], name: str, module: nn.Module, inputs: Any, y: Any) -> None:
    if not isinstance(y, Tensor):
        raise UsageError(f"{name or 'the network'!r} must return one tensor, this returns {type(y).__name__}")
    seen[name] = y.clone()


def collected(
    model: nn.Module,
    images: Tensor,
    layers: Sequence[str],
    batch_size: int = 256,
    reduce: Callable[[Tensor], Tensor] = lambda maps: maps,
) -> dict[str, Tensor]:
    """``outputs`` for all images (N, ...) at once; ``reduce`` says what is kept of those of a batch."""
    parts: dict[str, list[Tensor]] = {name: [] for name in layers}
    for batch in outputs(model, images, layers, batch_size):
        for name, maps in batch.items():
            parts[name].append(reduce(maps))
    return {name: torch.cat(part) for name, part in parts.items()}
