"""Layers and converted networks through the exporters, at two sizes: from one program if it was made for any."""

import pytest
import timm
import torch
from torch import nn

from aliasing import layers
from aliasing.models import antialias
from benchmarks.exporters import EXPORTERS, for_any, outcomes
from tests.layers.cases import LAYERS
from tests.toys import Custom

SIZES = ((12, 17), (9, 20))
# What an exporter cannot do it refuses; none gives other numbers.
REFUSED = {
    ("flc", "onnx dynamo, any size"): "Failed to convert the exported program to an ONNX model",
    ("asap", "onnx dynamo, any size"): "Failed to convert the exported program to an ONNX model",
    ("ddac", "onnx"): "Unfold",
    **{(name, "export, any size"): "Guard" for name in ("max", "tips", "aps", "lps")},
}


def check(exporter: str, network: nn.Module) -> None:
    """Made at each size, or at one for any, it computes the same there, and refuses what it was not made for."""
    for made in SIZES[:1] if for_any(exporter) else SIZES:
        for size, outcome in outcomes(exporter, network, 3, made, SIZES):
            if size != made and not for_any(exporter):
                assert isinstance(outcome, Exception)
            elif isinstance(outcome, Exception):
                raise outcome
            else:
                assert outcome <= 1e-5


@pytest.mark.filterwarnings("ignore")
@pytest.mark.slow
@pytest.mark.parametrize("exporter", EXPORTERS)
def test_layers(exporter: str) -> None:
    """All that an exporter takes together, since most of the time of an export is not the layer's."""
    torch.manual_seed(0)
    taken = []
    for name in LAYERS:
        layer = layers.create(name, 3, **({"groups": 1} if name == "ddac" else {})).eval()
        if words := REFUSED.get((name, exporter)) or REFUSED.get((name, exporter.removesuffix(", any size"))):
            with pytest.raises(Exception, match=words):
                check(exporter, layer)
        else:
            taken.append(layer)
    all_taken = Custom(lambda n, x: torch.stack([layer(x) for layer in n.taken]), taken=nn.ModuleList(taken))
    check(exporter, all_taken.eval())  # exporters give all modules the mode of the outermost


NETWORKS = {
    "strided": lambda: nn.Sequential(
        *(nn.Conv2d(3, 4, 3, 2, 1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 1, 2), nn.MaxPool2d(2))
    ),
    # Where a layer needs more or fewer pixels than there are, which depends on the size of the map.
    "same": lambda: nn.Sequential(timm.layers.Conv2dSame(3, 4, 3, 2), nn.ReLU(), nn.AvgPool2d(2)),
    "ceil_mode": lambda: nn.Sequential(nn.MaxPool2d(3, 2, ceil_mode=True), nn.AvgPool2d(3, 2, ceil_mode=True)),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "exporter", [pytest.param(e, marks=() if e == "trace" else pytest.mark.slow) for e in EXPORTERS]
)
@pytest.mark.parametrize("name", NETWORKS)
def test_converted_networks(name: str, exporter: str) -> None:
    torch.manual_seed(0)
    network = antialias(NETWORKS[name]().eval())
    if (name, exporter) == ("strided", "onnx dynamo, any size"):  # it translates no remainder by the larger of two
        with pytest.raises(torch.onnx.OnnxExporterError, match="translating node %remainder"):
            check(exporter, network)
    else:
        check(exporter, network)
