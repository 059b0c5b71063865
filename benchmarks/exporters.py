"""Put every layer through every exporter, and write what came of it to a table.

python -m benchmarks.exporters data/benchmarks/exporters.csv

A row is a program made at one size of map and run at one: the largest ``difference`` of its output from the layer's,
for noise in [0, 1), or the line it was ``refused`` with. Programs for ``any size`` and traces may take every size; one
made for a single size has to refuse the others.
"""

import argparse
import csv
import io
import logging
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from aliasing import layers

EXPORTERS = ("onnx", "onnx, any size", "onnx dynamo", "onnx dynamo, any size", "export", "export, any size", "trace")
SIZES = ((12, 17), (65, 48), (2, 3))
DRAWS = 5
FIELDS = ("layer", "exporter", "made", "size", "difference", "refused")

Size = tuple[int, int]


def for_any(exporter: str) -> bool:
    """Whether its programs are said to take other sizes than they were made at."""
    return "any size" in exporter or exporter == "trace"


def through(exporter: str, network: nn.Module, x: Tensor) -> Callable[[Tensor], Tensor]:
    """``network`` as the exporter made it from the example ``x``."""
    size = torch.export.Dim.AUTO
    dynamic = ({2: size, 3: size},) if "any size" in exporter else None
    if exporter.startswith("onnx"):
        import onnxruntime

        file: Any = io.BytesIO()
        new = "dynamo" in exporter
        options: dict = {"dynamic_shapes": dynamic} if new else {"opset_version": 17}
        if not new and dynamic:
            options["dynamic_axes"] = {"x": {2: "h", 3: "w"}}
        program: Any = torch.onnx.export(
            network, (x,), None if new else file, input_names=["x"], dynamo=new, verbose=False, **options
        )
        if new:
            program.save(file)
        quiet = onnxruntime.SessionOptions()
        quiet.log_severity_level = 4  # what is refused is raised, too
        session = onnxruntime.InferenceSession(file.getvalue(), quiet)
        return lambda x: torch.from_numpy(session.run(None, {"x": x.numpy()})[0])
    if exporter.startswith("export"):
        return torch.export.export(network, (x,), dynamic_shapes=dynamic, strict=False).module()
    return torch.jit.trace(network, x)


@torch.no_grad()
def outcomes(
    exporter: str, network: nn.Module, channels: int, made: Size, sizes: Sequence[Size]
) -> Iterator[tuple[Size, float | Exception]]:
    """By size: the largest difference between ``network`` and its program made at ``made``, or the error it raises."""
    generator = torch.Generator().manual_seed(0)
    program = through(exporter, network, torch.rand((2, channels, *made), generator=generator))
    for size in sizes:
        x = torch.rand((DRAWS, 2, channels, *size), generator=generator)
        try:
            pairs = [(network(batch), program(batch)) for batch in x]
        except Exception as error:
            yield size, error
        else:
            alike = all(y.shape == z.shape for y, z in pairs)
            yield size, max(float((y - z).abs().max()) for y, z in pairs) if alike else float("inf")


def rows(layer: str, channels: int = 8) -> Iterator[dict[str, str]]:
    """Those of one layer."""
    torch.manual_seed(0)
    network = layers.create(layer, channels).eval()
    for exporter in EXPORTERS:
        for made in SIZES[:2] if for_any(exporter) else SIZES:
            key = {"layer": layer, "exporter": exporter, "made": "{} x {}".format(*made)}
            try:
                found = list(outcomes(exporter, network, channels, made, SIZES))
            except Exception as error:
                found = [(size, error) for size in SIZES]
            for size, outcome in found:
                told = (
                    {"refused": reason(outcome)} if isinstance(outcome, Exception) else {"difference": f"{outcome:.1e}"}
                )
                yield key | {"size": "{} x {}".format(*size)} | told


def reason(error: BaseException) -> str:
    """One line of an error's first cause: the first, or an interpreter's last, since its first names only itself."""
    while error.__cause__ is not None:
        error = error.__cause__
    first, *others = [line.strip() for line in str(error).strip().splitlines()] or [""]
    line = others[-1] if "interpreter" in first else f"{type(error).__name__}: {first}"
    return re.sub(r"\[ONNXRuntimeError\] : \d+ : \w+ : ", "", line)[:160]


def main() -> None:
    """Write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("table", type=Path)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    with arguments.table.open("w", newline="") as file:
        writer = csv.DictWriter(file, FIELDS, restval="", lineterminator="\n")
        writer.writeheader()
        for layer in layers.CATALOGUE:
            writer.writerows(rows(layer))


if __name__ == "__main__":
    main()
