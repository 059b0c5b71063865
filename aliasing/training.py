"""One training loop for every study: bytes on the device, batched augmentation, exact resumption.

All randomness of an epoch is drawn on the CPU from a generator seeded by (seed, epoch), so a run that was
interrupted and continued ends with the same bits as one that was not. The loop knows no layer by name. It calls three
methods of any module that has them: ``no_weight_decay()``, parameters to leave alone; ``on_epoch(progress)``, at the
start of each epoch; and ``auxiliary_losses(...)``, terms to add to the loss (see ``layers.TIPS`` and ``layers.LPS``).
"""

import json
import math
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from . import distributed
from .adversary import Problem, signed_step
from .datasets import ImageFiles, ImageSet
from .datasets.randaugment import randaugment
from .errors import DataError, UsageError, unknown
from .files import copies, read_tensors, write_tensors
from .held import held
from .inference import as_float, check_labels, placed
from .metrics import attack_accuracy
from .optimizers import Optimizers
from .options import check_types
from .precision import bfloat16_products
from .shifts import shift_images
from .streams import image_seeds, sent


class TrainingError(RuntimeError):
    """A training that cannot give a usable network, such as one whose loss is no longer finite."""


@dataclass(frozen=True)
class Recipe:
    """How a network is trained; part of a run's identity. What is 0 by default is off."""

    epochs: int = 4  # passes over the training set; 0 for a network that was trained elsewhere
    batch_size: int = 128  # images per step
    precision: Literal["float32", "bfloat16"] = "float32"  # bfloat16: automatic mixed precision
    # SGD with Nesterov momentum, AdamW, or Muon (Jordan et al. 2024): orthogonalised momentum for convolutions, with
    # filters kept at unit norm, which a normalisation behind them makes free, and SGD for everything else.
    optimizer: Literal["sgd", "adamw", "muon"] = "sgd"
    lr: float = 0.2  # peak learning rate
    rest_lr: float = 0.0  # that of what "muon" leaves to SGD
    momentum: float = 0.9  # of SGD and Muon
    weight_decay: float = 5e-4  # not applied to vectors, such as biases and factors of batch norms
    # Linear up over ``warmup``, then linear down to zero, by half a cosine, or divided by ten after each third.
    schedule: Literal["one-cycle", "cosine", "steps"] = "one-cycle"
    warmup: float = 0.25  # share of the steps over which the rate rises
    label_smoothing: float = 0.1  # as in Szegedy et al. 2016
    flip: bool = False  # mirror each image left-right with probability one half
    shift: int = 0  # largest random shift of the augmentation in pixels per axis, uniform on -shift..shift
    shift_mode: Literal["circular", "standard"] = "circular"  # wrap around, or zero fill
    randaugment: int = 0  # operations per image of RandAugment, see ``datasets.randaugment``
    clip_norm: float = 0.0  # largest norm of the gradient
    adversary: float = 0.0  # radius (fraction of 1, l_inf) of single-step adversarial training (Wong et al. 2020)
    adversary_wake: float = 0.0  # share of the epochs before the adversary begins
    probe: int = 0  # training images attacked after every epoch, within ``adversary``, for the history
    # Weight alpha of the layers' own losses, ``(1 - alpha) * task + always + alpha * weighed``, means over the layers
    # (TIPS: Saha & Gokhale 2025, Eq. 5 as read by a third party).
    auxiliary: float = 0.0
    auxiliary_wake: float = 0.4  # share of the epochs before ``weighed`` begins
    auxiliary_form: Literal["code", "linear", "two_sided"] = "code"  # which reading, see ``layers.regularisers``
    target: Literal["labels", "masks"] = "labels"  # "masks" for networks that classify every pixel
    ignore: int = 255  # mask value that is not trained on; what enters in a standard shift has it

    def __post_init__(self) -> None:
        check_types("recipe", Recipe, vars(self))
        for one in fields(self):
            if one.type is float:  # 1 and 1.0 are one recipe, and have one id
                object.__setattr__(self, one.name, float(getattr(self, one.name)))
        for name, value in vars(self).items():
            low, high = 2 if name == "batch_size" else 0, _HIGHEST.get(name, math.inf)
            if isinstance(value, int | float) and not (low <= value <= high and math.isfinite(value)):
                most = f" and <= {high}" if high < math.inf else ""
                raise UsageError(f"a recipe needs {name} >= {low}{most}, got {value}")
        if (self.rest_lr > 0) != (self.optimizer == "muon"):
            raise UsageError(f"rest_lr belongs to optimizer='muon', got {self.rest_lr} with {self.optimizer!r}")
        if self.randaugment and self.target == "masks":
            raise UsageError("randaugment moves images without their masks; use flip and shift with target='masks'")
        if self.probe and not self.adversary:
            raise UsageError(f"probe attacks within the radius of an adversary: got probe={self.probe}, adversary=0")
        if self.optimizer == "muon" and self.target == "masks":
            raise UsageError("muon sets the scale of filters, of which a U-Net has some without a norm behind; use sgd")
        if self.adversary and self.target == "masks":
            raise UsageError("an adversary attacks labels, those of ignored pixels too; use target='labels'")


_SHARES = ("momentum", "warmup", "label_smoothing", "adversary", "adversary_wake", "auxiliary", "auxiliary_wake")
_HIGHEST = dict.fromkeys(_SHARES, 1) | {"ignore": 255}


def pick_device(device: str = "auto") -> torch.device:
    """The device named, or for "auto" the first CUDA device, Apple's GPU, or the CPU, whichever is there.

    Raises:
        UsageError: the device is not of this machine.
    """
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if device == "auto":
        return torch.device(next(kind for kind, there in available.items() if there))
    kind, colon, index = str(device).partition(":")
    if kind not in available or (colon and not (kind == "cuda" and index.isdecimal())):
        raise unknown("device", device, ("auto", "cpu", "cuda", "cuda:N", "mps"))
    if not available[kind] or (colon and int(index) >= torch.cuda.device_count()):
        raise UsageError(f"device {device!r} asked for, but this machine has no such one; use --device auto or cpu")
    return torch.device(device)


def augment(images: Tensor, recipe: Recipe, generator: torch.Generator) -> Tensor:
    """Flip and shift each image of a batch (N, C, H, W) by its own draw; the draws come from the CPU ``generator``."""
    if not recipe.flip and not recipe.shift:
        return images
    mirrored = torch.rand(len(images), 1, generator=generator) < 0.5 * recipe.flip
    shifts = torch.randint(-recipe.shift, recipe.shift + 1, (2, len(images)), generator=generator).T
    images = torch.where(sent(mirrored[..., None, None], images.device), images.flip(3), images)
    return shift_images(images, sent(shifts, images.device), recipe.shift_mode)


def _learning_rate(recipe: Recipe, progress: float, peak: float) -> float:
    """The rate after a share ``progress`` in [0, 1] of all steps, of parameters whose rate rises to ``peak``."""
    if progress < recipe.warmup:
        return peak * progress / recipe.warmup
    if recipe.schedule == "steps":
        return peak * 0.1 ** int(3 * progress)
    left = (1 - progress) / (1 - recipe.warmup)
    return peak * (left if recipe.schedule == "one-cycle" else 0.5 - 0.5 * math.cos(math.pi * left))


def train(
    network: nn.Module,
    data: ImageSet | ImageFiles,
    recipe: Recipe,
    seed: int,
    device: torch.device | str = "cpu",
    checkpoint: Path | str | None = None,
    on_epoch: Callable[[dict], None] = lambda entry: None,
    about: Mapping[str, Any] = MappingProxyType({}),
) -> list[dict]:
    """Train ``network`` in place and return its history, one entry per epoch (loss, training accuracy, seconds).

    Processes that have ``joined`` (see ``distributed``) each take a share of every batch; the process of rank 0 writes
    the checkpoint. A last batch with fewer than two images for each process is left out of the epoch.

    Args:
        network: takes floats (N, 3, H, W) in [0, 1] and returns logits (N, classes).
        data: training images (bytes) and labels; moved to ``device`` once, or read while training.
        recipe: how to train.
        seed: decides the order of the images, their augmentation and any noise inside the network.
        device: where to train.
        checkpoint: file rewritten after every epoch, on CUDA where that takes a tenth of the time at most, and at the
            end; if it exists, training continues from it.
        on_epoch: called with each new history entry.
        about: what else tells this training from others; written to the checkpoint, and has to be what it says.

    Raises:
        TrainingError: the loss is not finite.
        DataError: the checkpoint is damaged, of another network, data set, recipe or seed, or not all processes see it.
        UsageError: a batch has fewer than two images for each process, the data have classes that the network lacks, or
            the recipe weighs losses that no layer has, or none in training mode.
    """
    device, world = torch.device(device), distributed.world()
    checkpoint = None if checkpoint is None else Path(checkpoint)
    placed(network, device)
    read = _reader(data, recipe, device)
    count, steps = len(data), math.ceil(len(data) / recipe.batch_size)
    # Batch normalisation is undefined on a single image.
    least = 2 * world.size
    if recipe.epochs and (largest := min(count, recipe.batch_size)) < least:
        raise UsageError(
            f"a batch needs {least} images or more, two for each process; {data.name} has {largest} in one"
        )
    # Layers that have a loss of their own, which keep their inputs for it.
    layers: list[Any] = [m for m in network.modules() if recipe.auxiliary and hasattr(m, "auxiliary_losses")]
    if recipe.auxiliary and not layers:
        raise UsageError(f"auxiliary={recipe.auxiliary} weighs losses that no layer of this network has; tips has them")
    last = _last_class(data, recipe)
    # Muon scales the filters when it is made: not those of a network that is refused, or not to be trained.
    kind = recipe.optimizer if recipe.epochs else "sgd"
    optimizer = Optimizers(network, kind, recipe.lr, recipe.rest_lr, recipe.momentum, recipe.weight_decay)
    run, history = {**asdict(recipe), "seed": seed, "images": count, "data": data.name, **about}, []
    if checkpoint and checkpoint.exists():
        history = load_weights(checkpoint, network, optimizer, run)
    if len(set(epochs := world.all(len(history)))) > 1:
        raise DataError(f"the processes found {epochs} epochs in {checkpoint}; its folder must be one they all share")
    model = distributed.shared(network, device)
    mixed = torch.autocast(device.type, torch.bfloat16, enabled=recipe.precision == "bfloat16")
    # Elsewhere nothing is in bfloat16, and to look at each operation takes as long as a small network itself.
    rounded = recipe.precision == "bfloat16" or recipe.optimizer == "muon"
    ignored = recipe.ignore if recipe.target == "masks" else -100  # of labels, none
    devices = [device] if device.type == "cuda" else []
    written, took = -math.inf, 0.0  # the last checkpoint: when, and seconds

    def check(module: nn.Module, inputs: tuple, logits: Tensor) -> None:  # those that an attack asks for as well
        if last >= logits.shape[1]:  # on CUDA the loss would end the process, and only say "assert"
            told = f"{data.name} has classes 0 to {last}, but the network {logits.shape[1]}"
            raise UsageError(f"{told}: give it num_classes={last + 1}")

    for epoch in range(len(history), recipe.epochs):
        # For each epoch anew: ``on_epoch`` may look at, copy or save the network, and is to find it as it was given.
        products = bfloat16_products(device) if rounded else nullcontext()
        checked = network.register_forward_hook(check)
        with torch.random.fork_rng(devices=devices), held("record_input", True, *layers), products, checked:
            started = time.perf_counter()
            epoch_seed = seed * 100_003 + epoch
            # Noise inside the network, such as LPS's Gumbel noise.
            torch.manual_seed(epoch_seed + world.rank * 1_000_003)
            generator = torch.Generator().manual_seed(epoch_seed)
            order = torch.randperm(count, generator=generator)
            if world.size > 1:  # one order for all, but not one augmentation
                generator.manual_seed(epoch_seed + (world.rank + 1) * 1_000_003)
            network.train()
            for module in network.modules():
                if hasattr(module, "on_epoch"):
                    module.on_epoch(epoch / max(recipe.epochs - 1, 1))  # type: ignore[operator]
            total_loss, correct = torch.zeros((), device=device), torch.zeros((), device=device)
            batches = [batch for batch in order.split(recipe.batch_size) if len(batch) >= least]
            used = sum(map(len, batches))
            mine = read([batch[world.rank :: world.size] for batch in batches], generator)
            for step, (batch, target) in enumerate(mine):
                batch = augment(batch, recipe, generator)
                if recipe.randaugment:
                    batch = randaugment(batch, recipe.randaugment, generator)
                if recipe.target == "masks":  # they moved with the images, as a fourth channel
                    batch, target = batch[:, :3], batch[:, 3].long() ^ ignored
                batch = as_float(batch).contiguous(memory_format=torch.channels_last)
                if recipe.adversary and epoch / recipe.epochs >= recipe.adversary_wake:
                    with mixed:
                        problem = Problem(network, batch, target, recipe.adversary)
                        batch = signed_step(problem, generator, 1.25 * recipe.adversary)
                progress = (epoch * steps + step + 1) / (recipe.epochs * steps + 1)
                optimizer.set_rates(partial(_learning_rate, recipe, progress))
                with mixed:
                    logits = model(batch)
                loss = F.cross_entropy(
                    logits.float(), target, ignore_index=ignored, label_smoothing=recipe.label_smoothing
                )
                counts = target != ignored
                counted, whole = counts.sum(), len(batches[step])
                # Gradients are averaged over processes, of which some may have an image less than others.
                total = world.sum(counted)
                if world.size > 1 and recipe.target == "masks" and total > counted == 0:
                    loss = 0 * logits.float().sum()  # the mean of no pixel, of which even nothing would be NaN
                # The task's loss is a mean over what counts, those of layers over images.
                loss, share = world.size * counted / total * loss, world.size * len(batch) / whole
                with mixed:
                    loss = _with_auxiliary(loss, layers, recipe, epoch / recipe.epochs, generator, share)
                network.zero_grad()
                loss.backward()
                if recipe.clip_norm:
                    nn.utils.clip_grad_norm_(network.parameters(), recipe.clip_norm)
                optimizer.step()
                total_loss += loss.detach() * whole / world.size
                hit = (logits.detach().argmax(1) == target) & counts
                correct += hit.sum() / total.clamp_min(1) * whole
            total_loss, correct = world.sum(torch.stack([total_loss, correct]))
            entry = {"epoch": epoch + 1, "loss": total_loss.item() / used, "accuracy": correct.item() / used}
            if not math.isfinite(entry["loss"]):
                advice = "try a smaller lr or clip_norm"
                if data.masks is not None and (empty := int((data.masks == ignored).flatten(1).all(1).sum())):
                    advice += f", or leave out the {empty} images all of whose pixels are ignored, if they were a batch"
                raise TrainingError(f"the loss is {entry['loss']} in epoch {epoch + 1}; {advice}")
            if recipe.probe:
                entry |= _probe(network, data, recipe)
            history.append(entry | {"seconds": round(time.perf_counter() - started, 3)})
            if world.size > 1:
                history[-1]["processes"] = world.size
        # On a GPU an epoch may take less time than writing it down, on which at most a tenth is spent.
        due = device.type != "cuda" or epoch + 1 == recipe.epochs or time.perf_counter() - written >= 10 * took
        if checkpoint and world.rank == 0 and due:
            started = time.perf_counter()
            write_weights(checkpoint, network, optimizer, history, run)
            written = time.perf_counter()
            took = written - started
        on_epoch(history[-1])
    network.eval()
    return history


def _last_class(data: ImageSet | ImageFiles, recipe: Recipe) -> int:
    """The largest class that is trained on; -1 where all pixels are ignored."""
    if recipe.target == "labels" or data.masks is None:
        return int(check_labels(data.labels, data.labels).max())  # which has no label that the loss would ignore
    return max((number for number in data.masks.unique().tolist() if number != recipe.ignore), default=-1)


def _with_auxiliary(
    task: Tensor, layers: list[Any], recipe: Recipe, done: float, generator: torch.Generator, share: float
) -> Tensor:
    """The task's loss with ``share`` of the mean of what ``layers`` add to it after a share ``done`` of the epochs."""
    if not layers:
        return task
    found = [layer.auxiliary_losses(recipe.auxiliary_form, generator) for layer in layers]
    losses = [pair for pair in found if pair is not None]  # as of a layer that is frozen in evaluation mode
    if not losses:
        raise UsageError(f"auxiliary={recipe.auxiliary} weighs losses of layers, of which none ran in training mode")
    always, weighed = (share * torch.stack(parts).mean() for parts in zip(*losses, strict=True))
    loss = (1 - recipe.auxiliary) * task + always
    return loss + recipe.auxiliary * weighed if done >= recipe.auxiliary_wake else loss


def _probe(network: nn.Module, data: ImageSet | ImageFiles, recipe: Recipe) -> dict[str, float]:
    """Accuracy on the first ``probe`` training images: clean, under one step, and under ten steps of PGD."""
    probed, eps = data[: recipe.probe], recipe.adversary
    attacks = {"clean": (0.0, "fgsm", 1), "fgsm": (eps, "fgsm", 1), "pgd": (eps, "pgd", 10)}
    return {
        name: attack_accuracy(network, probed.images, probed.labels, attack, radius, steps=steps).value
        for name, (radius, attack, steps) in attacks.items()
    }


def _reader(
    data: ImageSet | ImageFiles, recipe: Recipe, device: torch.device
) -> Callable[[list[Tensor], torch.Generator], Iterable[tuple[Tensor, Tensor]]]:
    """From the indices of batches, and the epoch's generator, to their bytes and targets on the device.

    Masks travel as a fourth channel, so that they are augmented alike, and by their difference from ``recipe.ignore``,
    so that what a shift fills with zeros is ignored.
    """
    if recipe.target == "masks" and data.masks is None:
        raise UsageError(f"the recipe trains on masks, but {data.name} has none")
    if isinstance(data, ImageFiles):
        pinned = device.type == "cuda"

        def decoded(batches: list[Tensor], generator: torch.Generator) -> Iterable[tuple[Tensor, Tensor]]:
            seeds = image_seeds(len(data), generator) if data.random_crop else None
            return (
                (images.to(device, non_blocking=True), labels.to(device, non_blocking=True))
                for images, labels in data.batches(batches, pinned=pinned, seeds=seeds)
            )

        return decoded
    images, labels = data.images.to(device), data.labels.to(device)
    if recipe.target == "masks" and data.masks is not None:
        images = torch.cat([images, data.masks[:, None].to(device) ^ recipe.ignore], 1)
    return lambda batches, _: ((images[here], labels[here]) for here in (sent(batch, device) for batch in batches))


def write_weights(
    path: Path, network: nn.Module, optimizer: Optimizers, history: Any, run: Mapping[str, Any] = MappingProxyType({})
) -> None:
    """Write a checkpoint, from which ``load_weights`` continues, and what decides about the ``run``."""
    tensors = {f"network.{key}": value for key, value in network.state_dict().items()}
    tensors |= {f"optimizer.{key}": value for key, value in optimizer.state().items()}
    tensors["run"] = torch.tensor(list(json.dumps(dict(run)).encode()), dtype=torch.uint8)
    write_tensors(path, copies(tensors), history=history)


def load_weights(
    path: Path,
    network: nn.Module,
    optimizer: Optimizers | None = None,
    run: Mapping[str, Any] = MappingProxyType({}),
) -> Any:
    """Load a checkpoint into ``network``, and the state of ``optimizer``; returns its history.

    What ``run`` says has to be what was written, if it was.

    Raises:
        DamagedError: the file cannot be read or its content was changed.
        DataError: it belongs to another network, optimizer or run.
    """
    tensors, history = read_tensors(path, "history")
    weights, state = (
        {key.removeprefix(part): value for key, value in tensors.items() if key.startswith(part)}
        for part in ("network.", "optimizer.")
    )
    wanted = {key: value.shape for key, value in network.state_dict().items()}
    odd = sorted(wanted.keys() ^ weights.keys()) or [key for key in wanted if weights[key].shape != wanted[key]]
    if odd:
        raise DataError(
            f"the checkpoint {path} is of another network: {len(odd)} of its tensors differ in name or shape, such as "
            f"{odd[0]}; it was kept, remove it to train that run again"
        )
    written = json.loads(bytes(tensors["run"].tolist())) if "run" in tensors else {}
    run = json.loads(json.dumps(dict(run)))  # as it was written: a tuple is a list
    if others := {key: written[key] for key in written.keys() & run.keys() if written[key] != run[key]}:
        raise DataError(f"the checkpoint {path} is of a run with {others}; go on with that, or name another checkpoint")
    network.load_state_dict(weights)
    if optimizer is not None:
        try:
            optimizer.load(state)
        except ValueError as error:
            kept = "it was kept, remove it to train that run again"
            raise DataError(f"the checkpoint {path} is of another optimizer: {error}; {kept}") from None
    return history


def keep_weights(checkpoint: Path, path: Path) -> None:
    """Write the network and the history of a checkpoint to ``path``, in half precision and without the optimizer."""
    tensors, history = read_tensors(checkpoint, "history")
    kept = {key: value.half() if value.is_floating_point() else value for key, value in tensors.items()}
    # Statistics of a batch may be larger than half precision has numbers for.
    kept |= {key: value for key, value in tensors.items() if not kept[key].isfinite().all()}
    write_tensors(path, {key: value for key, value in kept.items() if key.startswith("network.")}, history=history)
