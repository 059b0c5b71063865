"""Which fine-tuning of a trained network keeps most of its answers, and what it costs.

python -m benchmarks.finetuning data/benchmarks/finetuning.json

EfficientNet-Lite0 with ``tri-3`` learns on Imagenette's training pictures, as in the study "finetuned" but on a fifth
as many, by every one of ``RECIPES``. Its answers are those on other training pictures of Imagenette, of which the study
reports nothing, so that a recipe can be chosen by them; what is forgotten shows on the pictures of all classes that the
study reports as well, as there are no others.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterable
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from aliasing import antialias
from aliasing.datasets import ImageSet
from aliasing.datasets.photographs import IMAGENETTE_RANKS
from aliasing.diagnosis.networks import load
from aliasing.files import write_atomically
from aliasing.finetuning import LR, Data, Lesson, Plan, answers, averaged, measure
from aliasing.measurements import loaded
from aliasing.metrics import Estimate
from aliasing.optimizers import Optimizers
from aliasing.runner import threads

from . import about

NETWORK, LAYER, SIZE = "tf_efficientnet_lite0", "tri-3", 144
Chosen = Callable[[nn.Module], Iterable[Tensor]]


def everything(network: nn.Module) -> Iterable[Tensor]:
    """All weights."""
    return network.parameters()


def without_classifier(network: nn.Module) -> Iterable[Tensor]:
    """All weights but those of the linear layer."""
    return (p for part in network.modules() if not isinstance(part, nn.Linear) for p in part.parameters(recurse=False))


def filters(network: nn.Module) -> Iterable[Tensor]:
    """The weights that see more than one pixel: of convolutions of 3 x 3 and 5 x 5."""
    return (part.weight for part in network.modules() if isinstance(part, nn.Conv2d) and part.kernel_size != (1, 1))


def norms(network: nn.Module) -> Iterable[Tensor]:
    """Factor and offset of each batch norm."""
    return (p for part in network.modules() if isinstance(part, nn.BatchNorm2d) for p in part.parameters())


# Which weights, at which largest rate, for how many epochs. The first is what ``finetune`` does; the second only
# corrects the statistics of the batch norms, as all do before they begin. Few weights are given a larger rate.
RECIPES: tuple[tuple[Chosen, float, int], ...] = (
    (everything, LR, 1),
    (everything, LR, 0),
    (without_classifier, LR, 1),
    (norms, 3e-3, 1),
    (filters, 3e-3, 1),
    (everything, LR, 3),
    (without_classifier, LR, 3),
)


class PartLesson(Lesson):
    """A lesson that moves only the ``chosen`` weights."""

    chosen: Chosen = staticmethod(everything)

    def _optimizer(self, student: nn.Module) -> Optimizers:
        optimizer = super()._optimizer(student)
        student.requires_grad_(False)
        for weight in self.chosen(student):
            weight.requires_grad_(True)
        return optimizer


def compare(
    learn: ImageSet, held: ImageSet, others: ImageSet, recipes: Iterable[tuple[Chosen, float, int]] = RECIPES
) -> list[dict[str, Any]]:
    """A row for the original and for each recipe: what moves, seconds of a core, measures of ``held`` and ``others``.

    Each measure is an estimate over pictures, and so is its difference from that of the first recipe.
    """
    original = load(NETWORK, "pretrained", SIZE).module
    data = Data(learn.images, held.images, held.labels, SIZE)
    rest = Data(learn.images, others.images, others.labels, SIZE)
    plan = Plan(NETWORK, "pretrained", LAYER, len(learn), SIZE, 1, LR, 32, 0)
    taught, expected = averaged(original, data, plan.batch_size), answers(original, data)

    def measured(network: nn.Module) -> dict[str, Tensor]:
        found = measure(network, data, expected)
        return found | {"accuracy on all classes": (answers(network, rest).argmax(1) == others.labels).double()}

    def told(row: dict[str, Any], found: dict[str, Tensor]) -> None:
        for name, values in found.items():
            row[name] = Estimate.mean(values)
            if first:
                row[f"{name}, minus the first"] = Estimate.difference(values, first[name])
        rows.append(row)
        print(json.dumps(row), flush=True)

    rows, first, converted = list[dict[str, Any]](), dict[str, Tensor](), antialias(original, LAYER)
    told({"weights": "the original"}, measured(original))
    for chosen, lr, epochs in recipes:
        student, started = deepcopy(converted), time.process_time()
        lesson = PartLesson(replace(plan, epochs=epochs, lr=lr), data, original, taught)
        lesson.chosen, lesson.steps = chosen, lesson.steps if epochs else 0
        lesson.teach(student)
        row = {"weights": chosen.__name__.replace("_", " "), "lr": lr, "epochs": epochs}
        row |= {"moved": sum(p.numel() for p in chosen(student)), "seconds": time.process_time() - started}
        found = measured(student)
        told(row, found)
        first = first or found
    return rows


def main() -> None:
    """Write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("table", type=Path)
    table = parser.parse_args().table  # before the work, which takes an hour
    known = loaded({"name": "imagenette", "size": 160, "origin": "train"}, "train")
    rows = torch.randperm(len(known), generator=torch.Generator().manual_seed(0))
    learn, held = (known[rows[own]] for own in (slice(2048), slice(2048, 2548)))
    held = replace(held, labels=torch.tensor(IMAGENETTE_RANKS)[held.labels])
    others = loaded({"name": "imagenet-sample-1000", "size": 160}, "train")[:]
    with threads(1):
        found = compare(learn, held, others)
    about_it = about("cpu") | {"network": NETWORK, "layer": LAYER, "learned": len(learn)}
    write_atomically(table, json.dumps(about_it | {"rows": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
