"""Convert networks of timm, torchvision and transformers, and write what became of each to a table.

python benchmarks/conversion.py data/benchmarks/conversion.csv [--shard I/N]

Networks have random weights; nothing is downloaded. ``converted`` means: with ``subsample`` the network computes what
it computed before (``difference``: largest change of its output on an input it was not converted with, relative to
the largest value), and with ``bin-5`` its output has the same shape. Rows that are there are not computed again.
"""

import argparse
import csv
import fcntl
import os
import re
import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import torch
from torch import nn

from aliasing import antialias
from aliasing.errors import UsageError
from aliasing.models.watch import call, tensors

LIMIT = 40  # seconds of the processor for one network
FIELDS = ("library", "network", "outcome", "replaced", "left", "functions", "difference", "seconds", "note")
SMALL = re.compile(
    r"(atto|femto|pico|nano|tiny|micro|mini|small|lite|xxs|_xs|_s\b|_s\d?$|_050|_075|_035|b0|_t\d?\b|18|26|14|10t|_8t|a0|s0|m0|m1|_002|_004"
    r"|_0_5|0_5|34|101_26|22k_b|53|cifar|_s_|26ts|vgg11|vgg13|39|x0|_w18|w_small|121|_a1|lcnet|tinynet|50x1|l0|f0)"
)

# The smallest of families whose names do not tell that they are small.
OTHERS = """
resnetv2_50 nf_resnet50 cspresnet50 cspresnext50 csatv2 dpn48b efficientformer_l1 fbnetc_100 fbnetv3_b
gcresnet33ts haloregnetz_b hardcorenas_a hieradet_small levit_128s poolformer_s12 poolformerv2_s12 regnetv_040
regnetz_005 resnetrs50 rexnet_100 rexnetr_100 sebotnet33ts_256 sedarknet21 sehalonet33ts selecsls42 seresnetaa50d
skresnext50_32x4d spnasnet_100 tresnet_m wide_resnet50_2 xception41 xception41p
"""


def timm_networks() -> Iterator[tuple[str, Callable[[], nn.Module]]]:
    """Small ones of every family with convolutions."""
    import timm

    patches = re.compile(
        r"^(vit|deit|beit|eva|cait|swin|flexivit|samvit|naflex|volo|xcit|mixer|gmlp|resmlp|aimv2|hiera)"
    )
    large = re.compile(r"26[49]|_384|_512|408|maxx|maxvit_(?!nano)|crossvit_18|_21m|50_26w|gap|lite[1-4]|_s[234]$|8e$")
    for name in timm.list_models():
        if SMALL.search(name) and not patches.match(name) and not large.search(name):
            yield name, partial(timm.create_model, name, pretrained=False, num_classes=10)
    for name in (*OTHERS.split(), "vit_tiny_patch16_224", "swin_tiny_patch4_window7_224"):
        yield name, partial(timm.create_model, name, pretrained=False, num_classes=10)


def torchvision_networks() -> Iterator[tuple[str, Callable[[], nn.Module]]]:
    """Classifiers, segmentation and detectors."""
    import torchvision.models as library

    large = re.compile(
        r"^vit_|swin|maxvit|v2_[lm]$|\d\dgf|[xy]_8gf|152|101|161|201|b[4-7]$|convnext_(base|large)|quantized|keypoint|mask|"
        "fpn_v2|vgg1[69]|ssd300|mc3|r3d|mvit|s3d|r2plus|raft"
    )
    for name in library.list_models():
        if large.search(name):
            continue
        more: dict[str, object] = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
        if "rcnn" in name or "retina" in name or "fcos" in name or "ssd" in name:
            more["num_classes"] = 5
        if "fpn" in name:
            more |= {"min_size": 64, "max_size": 96}
        if any(part in name for part in ("rcnn", "retina", "fcos", "ssd", "deeplab", "fcn", "lraspp")):
            more["weights_backbone"] = None
        yield name, partial(library.get_model, name, weights=None, **more)


def transformers_networks() -> Iterator[tuple[str, Callable[[], nn.Module]]]:
    """Small ones of the families with strided convolutions."""
    import transformers as t

    def small(kind: str, task: str, **options: object) -> tuple[str, Callable[[], nn.Module]]:
        return f"{kind}{task}", lambda: getattr(t, kind + task)(getattr(t, f"{kind}Config")(**options))

    sizes = {"hidden_sizes": [16, 32, 48, 64], "depths": [1, 1, 1, 1]}
    yield small("ResNet", "ForImageClassification", embedding_size=16, **sizes)
    yield small("RegNet", "ForImageClassification", embedding_size=16, groups_width=8, **sizes)
    yield small("ConvNext", "ForImageClassification", **sizes)
    yield small("MobileNetV2", "ForImageClassification", image_size=64, depth_multiplier=0.35)
    yield small("MobileNetV1", "ForImageClassification", image_size=64, depth_multiplier=0.25)
    yield small("EfficientNet", "ForImageClassification", image_size=64, hidden_dim=1280, width_coefficient=1.0,
                depth_coefficient=0.5)  # fmt: skip
    yield small("Segformer", "ForSemanticSegmentation", decoder_hidden_size=32, hidden_sizes=[16, 16, 32, 32])
    yield small("RTDetrResNet", "Backbone", embedding_size=16, **sizes)
    yield small("Yolos", "ForObjectDetection", hidden_size=48, num_hidden_layers=2, num_attention_heads=2,
                intermediate_size=64, image_size=[64, 64])  # fmt: skip


def attempt(build: Callable[[], nn.Module], library: str, name: str) -> dict[str, object]:
    """One row."""
    torch.manual_seed(0)
    network = build().eval()
    detector = any(part in name for part in ("rcnn", "retina", "fcos", "ssd"))
    size = getattr(network, "default_cfg", {}).get("input_size", (3, 64, 64))
    for side in (64, 96, 128, size[-1], 224):
        x = torch.rand(1, size[0], side, side)
        example = [x[0]] if detector else x
        try:
            with torch.no_grad():
                call(network, example)
            break
        except (RuntimeError, ValueError, AssertionError, IndexError, TypeError):
            continue
    else:
        return {"outcome": "not run", "note": "the network itself takes no such input"}
    same, report = antialias(network, "subsample", example=example, return_report=True)
    other = [torch.rand_like(x)[0]] if detector else torch.rand_like(x)
    with torch.no_grad():
        one, two = (list(tensors(call(n, other))) for n in (network, same))
        blurred = list(tensors(call(antialias(network, "bin-5", example=example), other)))
    pairs = list(zip(one, two, strict=True))
    difference = max(
        float((a - b).abs().max() / a.abs().max().clamp_min(1e-12)) if a.numel() else 0.0 for a, b in pairs
    )
    shapes = detector or [y.shape for y in one] == [y.shape for y in blurred]
    outcome = "converted" if difference < 1e-3 and shapes else "WRONG"
    functions = sum("function call" in change.what for change in report.replaced)
    notes = sorted({change.note.split(":")[0] for change in report.left})
    counts = {"replaced": len(report.replaced), "left": len(report.left), "functions": functions}
    return {"outcome": outcome, "difference": f"{difference:.1e}", "note": "; ".join(notes), **counts}


def _late(*_: object) -> None:
    raise TimeoutError(f"more than {LIMIT} s of the processor")


def main() -> None:
    """Write the table, a row per network."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("table", type=Path)
    parser.add_argument("--shard", default="1/1")
    arguments = parser.parse_args()
    number, count = map(int, arguments.shard.split("/"))
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    signal.signal(signal.SIGPROF, _late)
    with arguments.table.open("a", newline="") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # shards that begin together: the others append to what the first wrote
        if not file.seek(0, os.SEEK_END):
            csv.DictWriter(file, FIELDS, lineterminator="\n").writeheader()
    with arguments.table.open(newline="") as file:
        done = {(row["library"], row["network"]) for row in csv.DictReader(file)}
    sources = {"transformers": transformers_networks, "torchvision": torchvision_networks, "timm": timm_networks}
    todo = [(library, *one) for library, names in sources.items() for one in names()][number - 1 :: count]
    with arguments.table.open("a", newline="") as file:
        writer = csv.DictWriter(file, FIELDS, restval="", lineterminator="\n")
        for library, name, build in todo:
            if (library, name) in done:
                continue
            start, row = time.process_time(), {}
            signal.setitimer(signal.ITIMER_PROF, LIMIT)
            try:
                row = attempt(build, library, name)
            except UsageError as error:
                nothing = str(error).startswith("nothing to anti-alias")
                note = str(error).splitlines()[-1 if nothing else 0].strip(" -")[:200]
                row = {"outcome": "nothing to convert" if nothing else "refused", "note": note}
            except Exception as error:
                row = {"outcome": "failed", "note": f"{type(error).__name__}: {str(error)[:200]}".replace("\n", " ")}
            finally:
                signal.setitimer(signal.ITIMER_PROF, 0)
            seconds = f"{time.process_time() - start:.1f}"
            writer.writerow({"library": library, "network": name, "seconds": seconds, **row})
            file.flush()
            print(library, name, row["outcome"], row.get("difference", ""), seconds, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
