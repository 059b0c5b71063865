"""Layers and converted networks through the exporters, run at a second size too where they were made for any."""

import io

import onnxruntime
import pytest
import timm
import torch
from torch import Tensor, nn

from aliasing import layers
from aliasing.models import antialias
from tests.layers.cases import LAYERS
from tests.models.shared import Custom, images

GRID = ("aps", "lps")  # depends on the data: only torch.export takes it
SIZES = ((12, 17), (9, 20))
# What an exporter cannot do it refuses; none gives other numbers.
REFUSED = {
    ("flc", "onnx dynamo, any size"): "Failed to convert the exported program to an ONNX model",
    ("asap", "onnx dynamo, any size"): "Failed to convert the exported program to an ONNX model",
    ("ddac", "onnx"): "Unfold",
    ("max", "export, any size"): "Guard",
    ("tips", "export, any size"): "Guard",
}
EXPORTERS = ("onnx", "onnx, any size", "onnx dynamo", "onnx dynamo, any size", "export", "export, any size", "trace")


def through(exporter: str, network: nn.Module, x: Tensor):
    """``network`` as the exporter made it, a function of tensors."""
    size = torch.export.Dim.AUTO
    dynamic = ({2: size, 3: size},) if "any size" in exporter else None
    if exporter.startswith("onnx"):
        file = io.BytesIO()
        new = "dynamo" in exporter
        options: dict = {"dynamic_shapes": dynamic} if new else {"opset_version": 17}
        if not new and dynamic:
            options["dynamic_axes"] = {"x": {2: "h", 3: "w"}}
        program = torch.onnx.export(
            network, (x,), None if new else file, input_names=["x"], dynamo=new, verbose=False, **options
        )
        if new:
            program.save(file)
        session = onnxruntime.InferenceSession(file.getvalue())
        return lambda x: torch.from_numpy(session.run(None, {"x": x.numpy()})[0])
    if exporter.startswith("export"):
        return torch.export.export(network, (x,), dynamic_shapes=dynamic, strict=False).module()
    return torch.jit.trace(network, x)


def check(exporter: str, network: nn.Module) -> None:
    exported = through(exporter, network, images(2, 3, *SIZES[0]))
    for size in SIZES if "any size" in exporter or exporter == "trace" else SIZES[:1]:
        x = images(2, 3, *size)
        with torch.no_grad():
            torch.testing.assert_close(exported(x), network(x), rtol=1e-4, atol=1e-5)


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
        elif name not in GRID or exporter == "export":
            taken.append(layer)
    check(exporter, Custom(lambda n, x: torch.stack([layer(x) for layer in n.taken]), taken=nn.ModuleList(taken)))


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
