"""A network that others trained, anti-aliased and fine-tuned towards its own answers: what it is like afterwards."""

import json
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor

from ..datasets.photographs import IMAGENETTE_RANKS
from ..finetuning import MOVES, Data, Lesson, Plan, answers, averaged, measure
from ..inference import correct
from ..metrics import Estimate
from ..models import antialias
from .subject import Subject, loaded, packed

_averaged: dict[tuple, Tensor] = {}


def fine_tuned(
    subject: Subject, held_out: dict[str, Any], others: dict[str, Any], count: int, size: int, epochs: float, lr: float
) -> dict[str, Any]:
    """The run's network with its layer ("none": the control), fine-tuned on ``count`` pictures of its data set or not.

    Measured on windows of ``size`` pixels of ``held_out``, of which the network has seen none, and its accuracy on the
    middle windows of ``others``, pictures of all its classes. Texts are by picture.
    """
    run, original = subject.run, subject.network
    layer = run.network["layer"]
    train = subject.split("train", count)
    test, rest = loaded(held_out, "test")[:], loaded(others, "train")[:]
    labels = torch.tensor(IMAGENETTE_RANKS)[test.labels] if held_out["name"] == "imagenette" else test.labels
    data = Data(train.images, test.images, labels, size)
    student = deepcopy(original) if layer == "none" else antialias(original, layer)
    if run.network["tuned"]:
        plan = Plan(run.network["name"], run.network["weights"], layer, len(train), size, epochs, lr, 32, run.seed)
        key = (run.network["name"], json.dumps(run.dataset), count, size)  # the same answers for every layer and seed
        if key not in _averaged:
            _averaged.clear()
            _averaged[key] = averaged(original, data, plan.batch_size)
        Lesson(plan, data, original, _averaged[key]).teach(student)
    found = measure(student, data, answers(original, data))
    middle = slice((rest.images.shape[-1] - size) // 2, (rest.images.shape[-1] + size) // 2)
    found["accuracy on all classes"] = correct(student, rest.images[:, :, middle, middle], rest.labels, 32).double()
    values: dict[str, Any] = {}
    for name, own in found.items():
        key_of = name.replace(" ", "_").replace(",", "")
        values[key_of] = Estimate.mean(own)
        values[f"{key_of}_by_image"] = packed(own if name == MOVES else own > 0)
    return values
