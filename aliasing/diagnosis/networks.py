"""Anybody's network by name: from torchvision, from timm, from a fine-tuned file, or from a function of one's own."""

import json
import socket
import sys
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import partial
from importlib import import_module
from itertools import product
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

import torch
from safetensors import safe_open
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from ..datasets.photographs import imagenet_classes
from ..errors import DataError, UsageError, check_whole, reason
from ..held import held
from ..inference import batches, evaluating, form_of, placed, widened
from ..models import PRETRAINED, antialias, normalized
from ..models import pretrained as pretrained_of_package
from ..models.watch import copied
from .pictures import SMALLEST

SIZE = 224
_PATIENCE = 10  # seconds for a server to answer
# What is said of weights, and decides what is recommended.
_PRETRAINED, RANDOM, OF_MODULE = "pretrained weights", "random weights", "weights of the module"
TUNED, UNTUNED, WHOLE = "fine-tuned", "anti-aliased without fine-tuning", "of the anti-aliased network"
BINARY = ("no", "yes")  # what we call the classes of a single logit
NOTE = "aliasing"  # under which a fine-tuned file says what it is


@dataclass(frozen=True)
class Network:
    """A network that is ready to be measured."""

    name: str  # as it was asked for: the file's where a file was named
    module: nn.Module  # takes float images (N, 3, size, size) in [0, 1] and returns logits (N, classes)
    size: int  # side of its input in pixels
    weights: str  # where they come from, in words
    classes: tuple[str, ...] = ()  # their names; empty where they are unknown
    options: tuple[str, ...] = ()  # what a command line needs beside name and size, to get the same network


def of_module(name: str, module: nn.Module, size: int | None, weights: str = "pretrained") -> Network:
    """A copy of a module that its caller made, for images of ``size`` pixels, by default 224."""
    size = _side(size) or SIZE
    if not isinstance(module, nn.Module):
        raise UsageError(
            f"a network must be a name or a torch.nn.Module, got {type(module).__name__}; a function that makes one is "
            "to be called"
        )
    if weights not in ("pretrained", "none"):  # which may be meant for others
        raise UsageError(f"{name} is a module, which has its weights: load {weights} into it, or name MODULE:FACTORY")
    try:
        return Network(name, copied(module), size, OF_MODULE)
    except Exception as error:  # of anybody's network
        raise UsageError(f"{name} must be a module that copy.deepcopy can copy: {reason(error)}") from error


class Adapted(nn.Module):
    """A grey network that takes colours, one with a single logit that gives two, or probabilities made logits.

    In whatever shape they come for a single image.
    """

    def __init__(self, network: nn.Module, grey: bool, single: bool, shares: bool) -> None:
        super().__init__()
        self.network, self.grey, self.single, self.shares = network, grey, single, shares

    def forward(self, images: Tensor) -> Tensor:
        """Logits ``(N, classes)`` of images ``(N, 3, H, W)``."""
        if self.grey:  # luminance, as Pillow computes it
            images = (images * images.new_tensor([0.299, 0.587, 0.114])[:, None, None]).sum(1, keepdim=True)
        # Near 0 and 1 shares tie in half precision, and have no gradient.
        with torch.autocast(images.device.type, enabled=False) if self.shares else nullcontext():
            logits = widened(self.network(images))
        logits = logits.reshape(len(images), -1)  # which ``squeeze`` takes from a single image
        if self.shares and self.single:
            logits = logits.logit(torch.finfo(logits.dtype).eps)
        elif self.shares:  # softmax returns them as they were
            logits = logits.clamp(min=torch.finfo(logits.dtype).tiny).log()
        return torch.cat([torch.zeros_like(logits), logits], 1) if self.single else logits


@dataclass(frozen=True)
class _Source:
    """How to build a network: ``build(pretrained, **options)``, with what its library says about it."""

    build: Callable[..., nn.Module]
    size: int
    mean: Sequence[float]
    std: Sequence[float]
    classes: tuple[str, ...] = ()


def load(name: str, weights: str = "pretrained", size: int | None = None) -> Network:
    """The network called ``name``.

    Args:
        name: of torchvision or timm (``timm:NAME`` if both have it), or ``module:factory``, a function without
            arguments (or a module) that takes images in [0, 1]; for the others the standardisation their library
            names is put in front. ``+LAYER`` behind it, as in ``resnet18+bin-5``, anti-aliases it. Or a file that
            ``aliasing finetune`` wrote, which knows its network.
        weights: "pretrained", a safetensors file, or "none" for random weights (seed 0). Those of a factory are its own
            unless a file is named. Nothing falls back to random weights by itself.
        size: side of the input in pixels; by default what the library says, 224 for a factory.

    Raises:
        UsageError: no such network, or weights that do not fit.
        DataError: the pretrained weights cannot be fetched, or the file cannot be read.
    """
    asked, size = name, _side(size)
    if asked.endswith(".safetensors"):
        about = _note(asked, _open(asked)[1])
        name, weights, size = about["network"], asked, size or about["size"]
        if about["weights"] == OF_MODULE:
            raise UsageError(
                f"{asked} is of a module ({name}), which no name makes: name MODULE:FACTORY, which makes it, and the "
                "file with --weights"
            )
    plain, layer = split(name)
    options = () if weights == "pretrained" else ("--weights", weights)
    own = ":" in plain and not plain.startswith(("timm:", "torchvision:"))
    with torch.random.fork_rng(devices=[]):  # the same weights whenever it is asked for, with a layer or without
        torch.manual_seed(0)
        found = _factory(plain, size or SIZE) if own else _library(plain, weights, size)
    module, note, convert = found.module, found.weights, partial(antialias, example=found.size)
    if weights not in ("pretrained", "none"):
        tensors, about = _open(weights)
        note = f"weights of {Path(weights).name}"
        if NOTE in about:
            tuned = _note(weights, about)["network"]
            if tuned.partition("+")[2] not in (layer, ""):
                raise UsageError(
                    f"{weights} holds {tuned}, not {name}: name {tuned}, or the file instead of a network; fine-tuning "
                    "begins with weights of the original"
                )
            note = f"{TUNED} {name if asked == weights else note}"
            module, layer = (convert(module, layer) if layer else module).float(), ""  # as it was fine-tuned
        elif layer and set(_renamed(tensors, module)) != set(module.state_dict()):
            # Layers that learn add names of their own: the file is of the anti-aliased network.
            module, layer, note = convert(module, layer), "", f"{note}, {WHOLE}"
        _fill(module, tensors, weights)
    if layer:
        module = convert(module, layer)
        # Whether the weights in a file were learned with the layer, nobody says.
        note = f"{note}, {UNTUNED}" if weights in ("pretrained", "none") else f"{note}, anti-aliased"
    return replace(found, name=asked, module=module.eval(), weights=note, options=options)


def split(name: str) -> tuple[str, str]:
    """``NETWORK+LAYER`` as its two parts, the second empty where no layer is named."""
    plain, plus, layer = name.rpartition("+") if ".safetensors+" in name else name.partition("+")
    if plus and not layer:
        raise UsageError(f"expected NETWORK+LAYER, such as {plain}+tri-3, got {name!r}")
    if layer and plain.endswith(".safetensors"):
        raise UsageError(f"{plain} is of a network that has its layer: name the file alone, or NETWORK+{layer}")
    return plain, layer


def _side(size: int | None) -> int | None:
    """``size`` as an ``int``, NumPy's too, which neither PyTorch nor JSON takes everywhere."""
    return None if size is None else check_whole("size", size, SMALLEST)


def _library(name: str, weights: str, size: int | None) -> Network:
    source = _source(name)
    if weights == "pretrained":
        note, names = _PRETRAINED, source.classes
        try:
            network = source.build(True)
        except DataError:  # it says itself what is missing
            raise
        except Exception as error:  # each library wraps what its network access raises in classes of its own
            raise DataError(
                f"the pretrained weights of {name} are neither on this machine nor could they be fetched "
                f"({reason(error)}); "
                "name a file of weights with --weights FILE, or ask for random weights with --weights none"
            ) from error
    else:
        note, names, options = RANDOM, (), dict[str, Any]()
        if weights != "none":
            blank, (tensors, about) = source.build(False), _open(weights)
            last = list(blank.state_dict())[-1]
            # Behind whatever word was put before it; a second head of that name has a longer one.
            own = min((name for name in tensors if f".{name}".endswith(f".{last}")), key=len, default=None)
            options = {} if own is None else {"num_classes": tensors[own].shape[0]}  # of a fine-tuned network
            if NOTE in about and _note(weights, about)["weights"] == _PRETRAINED:
                names = source.classes
        network = source.build(False, **options)
    return Network(name, normalized(network, source.mean, source.std), size or source.size, note, names)


def _hub() -> AbstractContextManager[None]:
    """Where the hub that timm loads from does not answer, only what is on this machine is looked at."""
    hub = _installed("huggingface_hub.constants")
    return held("HF_HUB_OFFLINE", hub.HF_HUB_OFFLINE or not _answers(hub.ENDPOINT), hub) if hub else nullcontext()


def _installed(name: str) -> Any:
    """The module of that name, ``None`` where it is not installed."""
    try:
        return import_module(name)
    except ImportError:
        return None


def _answers(address: str) -> bool:
    if getproxies().get("https"):  # a proxy is there where the server itself cannot be seen
        return True
    with suppress(OSError):
        socket.create_connection((urlsplit(address).hostname, 443), _PATIENCE).close()
        return True
    return False


def _source(name: str) -> _Source:
    library, _, plain = name.rpartition(":")
    from torchvision import models as torchvision_models

    known = torchvision_models.list_models(module=torchvision_models)
    if library != "timm" and plain in known:
        recommended: Any = torchvision_models.get_model_weights(plain)
        best = recommended.DEFAULT
        preset = best.transforms()

        def build(pretrained: bool, **options: Any) -> nn.Module:
            if pretrained:
                cached = Path(torch.hub.get_dir()) / "checkpoints" / Path(best.url).name
                if not cached.exists() and not _answers(best.url):  # the library itself would wait for ever
                    raise OSError(f"{urlsplit(best.url).hostname} does not answer")
                return torchvision_models.get_model(plain, weights=best, progress=False)
            if plain in ("googlenet", "inception_v3"):  # as they are with pretrained weights, whatever those became
                options |= {"init_weights": True, "transform_input": True, "aux_logits": plain == "inception_v3"}
            return torchvision_models.get_model(plain, weights=None, **options)

        return _Source(build, preset.crop_size[0], preset.mean, preset.std, tuple(best.meta["categories"]))
    timm = _installed("timm")
    if timm is not None and library != "torchvision" and timm.is_model(plain):
        config = timm.get_pretrained_cfg(plain) or timm.models.PretrainedCfg()
        if config.num_classes == 0:  # DINO's, for one
            raise UsageError(
                f"{name} has no classifier, and the largest of its features is no answer: name one that has"
            )
        named = imagenet_classes() if config.num_classes == 1000 else ()

        def build_timm(pretrained: bool, **options: Any) -> nn.Module:
            if pretrained and plain in PRETRAINED:
                return pretrained_of_package(plain).network
            with _hub() if pretrained else nullcontext():
                return timm.create_model(plain, pretrained=pretrained, **options)

        return _Source(build_timm, config.input_size[1], config.mean, config.std, named)
    names = [*known, *(timm.list_models() if timm is not None else ())]
    near = get_close_matches(plain, dict.fromkeys(names), n=3)  # many are in both
    raise UsageError(
        f"no network {name!r} in torchvision ({len(known)} classifiers)"
        + (f" or timm ({len(names) - len(known)})" if timm is not None else "; timm is not installed")
        + (f"; did you mean {' or '.join(near)}?" if near else ".")
        + " Your own: MODULE:FACTORY, such as mynets:build; its weights: --weights FILE"
    )


@contextmanager
def _here() -> Iterator[None]:
    """Modules of the working directory can be imported meanwhile, also by what moves to another."""
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        yield
    finally:
        with suppress(ValueError):  # somebody else removed it
            sys.path.remove(here)


@_here()
def _factory(name: str, size: int) -> Network:
    """What ``module:factory`` makes; it and what it imports, also later, may lie in the working directory."""
    module, _, attribute = name.partition(":")
    if "/" in module or module.endswith(".py"):
        wanted = module.removesuffix(".py").strip("./").replace("/", ".")
        raise UsageError(
            f"expected MODULE:FACTORY, such as {wanted}:{attribute}, the module as for import; got {name!r}"
        )
    try:
        found = import_module(module)
    except ImportError as error:
        raise UsageError(f"cannot import {module!r} of {name!r} from here or from the environment: {error}") from error
    except (Exception, SystemExit) as error:
        raise UsageError(f"the module {module!r} of {name!r} fails when it is imported: {reason(error)}") from error
    if not hasattr(found, attribute):
        own = [key for key, value in vars(found).items() if getattr(value, "__module__", "") == module]
        raise UsageError(f"the module {module!r} has no {attribute!r}; it defines {', '.join(own) or 'nothing'}")
    factory = getattr(found, attribute)
    try:
        network = factory() if callable(factory) and not isinstance(factory, nn.Module) else factory
    except (Exception, SystemExit) as error:
        raise UsageError(
            f"{name} raised {reason(error)}; it is called without arguments and must return a network"
        ) from error
    if not isinstance(network, nn.Module):
        raise UsageError(f"{name} must give a torch.nn.Module, got {type(network).__name__}")
    return replace(of_module(name, network, size), weights="weights of the factory")  # it may give the same one again


def _open(path: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a file of weights, and what its header says of them."""
    if not Path(path).is_file():
        raise UsageError(f"weights must be 'pretrained', 'none' or a file of weights; there is no file {path!r}")
    try:
        with safe_open(path, framework="pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except Exception as error:  # the reader's own class of errors is not public
        problem = error
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # it fails in many ways
        raise DataError(
            f"{path} is no readable safetensors file ({problem}), nor one that torch.save wrote of tensors alone; "
            "torch.save(network.state_dict(), FILE) writes one"
        ) from error
    parts = {"": loaded} | (loaded if isinstance(loaded, dict) else {})  # checkpoints hold more than weights
    states = {
        str(key): part
        for key, part in parts.items()
        if isinstance(part, dict) and part and all(isinstance(value, Tensor) for value in part.values())
    }
    if len(states) != 1:
        raise DataError(f"{path} must hold one state_dict, and holds {', '.join(states) or 'none'}; save one alone")
    return next(iter(states.values())), {}


def _renamed(tensors: dict[str, Tensor], module: nn.Module) -> dict[str, Tensor]:
    """The tensors by their names in ``module``, if what wrapped it (DataParallel, Lightning) put a word before each."""
    names = list(module.state_dict())
    for name in tensors:
        front = name.removesuffix(names[0]) if names else name
        if front != name and {front + own for own in names} == set(tensors):
            return {own: tensors[front + own] for own in names}
    return tensors


def _note(path: str, about: dict[str, str]) -> dict[str, Any]:
    """What ``aliasing finetune`` wrote into its file."""
    try:
        return json.loads(about[NOTE])
    except (KeyError, ValueError) as error:
        raise UsageError(
            f"{path} does not say which network it is of; name the network, and the file with --weights"
        ) from error


def _fill(module: nn.Module, tensors: dict[str, Tensor], path: str) -> None:
    tensors = _renamed(tensors, module)
    state = OrderedDict(tensors)
    # Some networks ask for the version of their format, which these files cannot hold.
    state._metadata = module.state_dict()._metadata  # type: ignore[attr-defined]
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        own = module.state_dict()
        both = [key for key in own if key in tensors and own[key].shape != tensors[key].shape]
        differ = {
            "the file lacks": [key for key in own if key not in tensors],
            "the network lacks": [key for key in tensors if key not in own],
            "the file has": [f"{key} {tuple(tensors[key].shape)}, not {tuple(own[key].shape)}" for key in both],
        }
        said = "; ".join(f"{what} {_some(names)}" for what, names in differ.items() if names)
        raise UsageError(f"the weights of {path} are of another network: {said or reason(error)}") from error


def _some(names: list[str], most: int = 3) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


class _Sigmoids(TorchDispatchMode):
    """Keeps what sigmoids return, whoever calls them: a module, a function, a script. Not maps, which are large."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[Tensor] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        sigmoid = function in (torch.ops.aten.sigmoid.default, torch.ops.aten.sigmoid_.default)
        if sigmoid and max(result.shape[2:], default=1) == 1:
            self.found.append(result)
        return result


def adapted(network: Network, device: torch.device) -> Network:
    """``network`` on ``device``, after one image and two ran through it: before any work that could be lost.

    One that takes grey images, or returns one logit, probabilities, or those of a single image in no row, gets what it
    lacks put around it. Its kernels are channels_last, which is faster, unless it cannot run so: ``Tensor.view``
    refuses the maps behind such kernels.

    Raises:
        UsageError: it does not take images of its size, or returns something else than logits, or other ones again or
            beside another image.
    """
    side = f"(2, 3, {network.size}, {network.size})"
    tensors = [*network.module.parameters(), *network.module.buffers()]
    if any(nn.parameter.is_lazy(tensor) or tensor.is_meta for tensor in tensors):
        raise UsageError(
            f"{network.name} has no weights yet, in lazy modules or on the device meta: run it once, or load them"
        )
    grey, failures, before = False, [], form_of(network.module)
    for grey, form in product((False, True), (torch.channels_last, torch.contiguous_format)):
        placed(network.module, device, form)
        try:
            with torch.no_grad(), evaluating(network.module) as module, _Sigmoids() as sigmoids:
                noise = torch.rand((2, 3, network.size, network.size), generator=torch.Generator().manual_seed(0))
                noise[0] /= 4  # else the statistics of the two are alike
                noises = (x[:, :1] if grey else x for n in (2, 2, 1) for x in batches(module, noise[:n]))
                logits, again, alone = map(module, noises)
            break
        except Exception as error:  # of anybody's network
            failures.append(error)
    else:
        placed(network.module, device, before)
        first = next((part for part in network.module.modules() if isinstance(part, nn.Conv2d)), None)
        failure = failures[1::2][first is not None and first.in_channels == 1]  # of the kind of image that it is for
        raise UsageError(
            f"{network.name} does not take images {side} in [0, 1], or one alone: {reason(failure)}. "
            "Name its input size with --size N, or wrap it in a module that takes such images"
        ) from failure
    if not isinstance(logits, Tensor) or len(logits) != 2 or logits.ndim not in (1, 2):
        got = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise UsageError(
            f"{network.name} must return logits (2, classes) for images {side}, got {got}; "
            "wrap it in a module that returns the logits alone"
        )
    if not logits.is_floating_point():
        raise UsageError(
            f"{network.name} must return logits, one float per class, got {logits.dtype}; let it return the scores "
            "themselves, not the class that wins"
        )
    if not logits.isfinite().all():
        raise UsageError(f"{network.name} returns logits that are not finite for noise; are its weights loaded?")
    if not torch.allclose(logits, again, rtol=0, atol=0.01 * float(logits.abs().max())):
        raise UsageError(
            f"{network.name} returns other logits when the same image is given again, which no shift causes: something "
            "in it is random in evaluation mode, such as F.dropout without training=self.training, or remembers"
        )
    # Half precision and quantised activations round by the batch, by up to some hundredths of the largest logit.
    own, atol = logits[0].flatten(), 0.05 * float(logits.abs().max())
    if alone.numel() == own.numel() and not torch.allclose(alone.flatten(), own, rtol=0, atol=atol):
        raise UsageError(
            f"{network.name} returns other logits for an image alone than beside another, so its answers depend on the "
            "batch: something in it normalises by the batch in evaluation mode, such as BatchNorm2d with "
            "track_running_stats=False; give it statistics of its own"
        )
    single = logits.ndim == 1 or logits.shape[1] == 1
    # As logits, what a sigmoid returns would be above 0, and close to what it returns for any other image.
    shares = any(torch.equal(own.flatten(), logits.flatten()) for own in sigmoids.found)
    if not (shares or single):
        missed, step = (widened(logits).sum(1) - 1).abs(), max(1e-3, torch.finfo(logits.dtype).eps)
        shares = bool((logits >= 0).all() and (missed < step).all())
    if not (grey or single or shares or alone.ndim < 2):
        return network
    classes = network.classes or (BINARY if single else ())
    return replace(network, module=Adapted(network.module, grey, single, shares).eval(), classes=classes)
