"""Inside the network: its feature maps, what its downsampling sites do to them, its filters, and what it costs."""

import re
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .. import metrics
from ..adversary import attack_images, perturb
from ..datasets.corruptions import corrupt
from ..datasets.decoding import as_png
from ..errors import UsageError
from ..inference import as_float, correct, evaluating, predict
from ..metrics import Estimate, count_flops, embedding, outputs, radial_spectrum, sampled, sites
from ..metrics.sampling import mean_bias
from ..metrics.spectra import distance_from_ideal
from .subject import Subject, loaded, pictured


def _stages(network: nn.Module) -> list[str]:
    """The first activation, where nothing may have been dropped yet, and the ends of the stages."""
    names = [name for name, _ in network.named_modules()]
    first = next((name for name in names if re.search(r"(^|\.)(act|relu)$", name)), None)
    if first is None:
        raise UsageError(f"stages begin with a module called act or relu, of which {type(network).__name__} has none")
    return [first, *(name for name in names if re.search(r"(^|\.)(stages\.|layer)\d+$", name))]


def _maps(network: nn.Module, images: Tensor) -> dict[int, Tensor]:
    """Feature maps (N, C, h, w) on the CPU by accumulated subsampling factor; the last one of each factor."""
    names = _stages(network)
    found = next(outputs(network, images, names, len(images)))
    return {round(images.shape[2] / maps.shape[2]): maps.cpu() for maps in found.values()}


def shiftability(subject: Subject, count: int) -> dict[str, Any]:
    """Non-shiftability (v1 of the paper) of each stage in a vertical sweep, inpainted and circular."""
    network, images = subject.network, subject.split("test", count).images
    names = _stages(network)
    maps = next(outputs(network, images[:1], names))
    values: dict[str, Any] = {"stage_factors": [round(images.shape[2] / maps[name].shape[2]) for name in names]}
    for border in ("inpainting", "circular"):
        found = metrics.non_shiftability(network, images, names, border=border)
        values[f"non_shiftability_{border}"] = [found[name].value for name in names]
    return values


def stage_readouts(subject: Subject, count: int, training: int) -> dict[str, Any]:
    """Accuracy and change by one pixel of a linear readout of every stage, trained on ``training`` images."""
    network, train, test = subject.network, subject.split("train", training), subject.split("test", count)
    values: dict[str, list[float]] = {}
    readouts = metrics.fit_readouts(network, train.images, train.labels, _stages(network), classes=len(test.classes))
    for readout in readouts.values():
        right = correct(readout, test.images, test.labels)
        values.setdefault("readout_accuracy", []).append(right.double().mean().item())
        for protocol in ("circular", "crop", "black"):
            found = metrics.one_pixel(readout, test.images, protocol)
            values.setdefault(f"readout_change_{protocol}", []).append(found.top1_change.value)
            values.setdefault(f"readout_absolute_change_{protocol}", []).append(found.mean_absolute_change.value)
    return dict(values)


def feature_maps(subject: Subject, shifts: tuple[int, ...] = (0, 1, 2)) -> dict[str, Any]:
    """One map per stage from factor 2 on, in bytes, while a test image rolls down by ``shifts`` pixels; and its sums.

    The channel with the largest mean at the first shift is taken; bytes are relative to its largest value.
    """
    image = loaded(subject.run.dataset, "test")[:1].images[0].to(subject.device)  # without a copy of the others
    found = _maps(subject.network, torch.stack([image.roll(shift, 1) for shift in shifts]))
    values = pictured({factor: maps for factor, maps in found.items() if factor > 1})
    return values | {"feature_shifts": shifts, "feature_picture": as_png(image)}


def exact_shifts(subject: Subject, count: int, window: int = 32) -> dict[str, Any]:
    """Share of the ``window`` x ``window`` circular shifts that leave the logits of ``count`` test images as they are.

    "As they are" is within 1e-4 of the largest logit. ``exact_shift_law`` is the share times the squared subsampling
    factor: 1 if exactly the multiples of the factor are exact (Azulay & Weiss' counting argument).
    """
    images = subject.split("test", count).images
    before = predict(subject.network, images)
    exact = torch.zeros(window, window, dtype=torch.float64)
    for down in range(window):
        rolled = torch.cat([images.roll((down, right), (2, 3)) for right in range(window)])
        change = (predict(subject.network, rolled).reshape(window, *before.shape) - before).abs()
        exact[down] = (change.flatten(1).amax(1) <= 1e-4 * before.abs().max()).double().cpu()
    factor = max(_maps(subject.network, images[:1]))
    return {
        "exact_shift_map": exact.int().tolist(),
        "exact_shift_share": exact.mean().item(),
        "exact_shift_factor": factor,
        "exact_shift_law": exact.mean().item() * factor**2,
    }


def equivariance(subject: Subject, count: int, max_shift: int) -> dict[str, Any]:
    """Distance of each halving from moving with the picture, for shifts of up to ``max_shift`` pixels per axis."""
    halvings = list(sites(subject.network))
    maps = metrics.equivariance_maps(subject.network, subject.split("test", count).images, halvings, max_shift)
    return {"equivariance": {f"halving {level}": maps[name] for level, name in enumerate(halvings, start=1)}}


def depth_error(subject: Subject, count: int) -> dict[str, Any]:
    """Error of each downsampling under one-pixel rolls after realignment, and change of the pooled features."""
    errors = metrics.realigned_errors(subject.network, subject.split("test", count).images)
    return {"depth_error": errors.maps, "pooled_change": errors.pooled}


def sampling_bias(subject: Subject, count: int) -> dict[str, Any]:
    """Maximum-sampling bias by its three definitions, per site and averaged over sites, on ``count`` test images."""
    biases = metrics.max_sampling_bias(subject.network, subject.split("test", count).images)
    constant = [bias.constant.value for bias in biases.values()]
    values = {"msb_constant": sum(constant) / len(constant), "msb_constant_by_site": constant}
    for definition in ("exact", "nearest", "weight"):
        found = [getattr(bias, definition) for bias in biases.values()]
        by_site = [None if estimate is None else estimate.value for estimate in found]
        values |= {f"msb_{definition}": mean_bias(by_site, constant), f"msb_{definition}_by_site": by_site}
    return values


def aliasing(subject: Subject, count: int) -> dict[str, Any]:
    """Alias-able energy in front of each site and relative error of its output, on ``count`` test images."""
    images = subject.split("test", count).images
    energy, error = metrics.alias_energy(subject.network, images), metrics.alias_error(subject.network, images)
    return {
        "alias_energy": [estimate.value for estimate in energy.values()],
        "alias_error": [estimate.value for estimate in error.values()],
        "mean_alias_error": sum(estimate.value for estimate in error.values()) / len(error),
    }


def stability(subject: Subject, count: int, eps: float, severity: int = 3) -> dict[str, Any]:
    """Cosine between features before and after, on ``count`` test images, and where the attack's energy lies.

    The attack is one signed gradient step of l_inf radius ``eps`` / 255 from a random start, so that every image is
    perturbed equally; the corruption is Gaussian noise of ``severity``. Features: those before the last linear layer.
    """
    network, test = subject.network, subject.split("test", count)
    images = as_float(test.images).to(subject.device)
    attacked = _one_step(network, images, test.labels.to(subject.device), eps / 255)
    noisy = corrupt(test.images, "gaussian_noise", severity, torch.Generator().manual_seed(0))
    features = embedding(network, images)
    frequency, power = radial_spectrum((attacked - images).cpu())
    return {
        "stability_attack": Estimate.mean(F.cosine_similarity(features, embedding(network, attacked))),
        "stability_noise": Estimate.mean(F.cosine_similarity(features, embedding(network, noisy))),
        "perturbation_frequency": frequency,
        "perturbation_spectrum": power,
    }


def aliasing_and_attack(subject: Subject, count: int, eps: float, steps: int = 10) -> dict[str, Any]:
    """Mean alias error over the sites, picture by picture: of those that PGD breaks and those it does not.

    ``eps`` is the radius in 1/255. Only pictures that are classified correctly count; the difference is ``None`` unless
    there are at least two of either kind. ``alias_error_rise`` is how much more the pictures alias after one signed
    gradient step of that radius.
    """
    network, test = subject.network, subject.split("test", count)
    images, labels = as_float(test.images).to(subject.device), test.labels.to(subject.device)
    right = predict(network, images).argmax(1) == labels
    images, labels = images[right], labels[right]
    if not len(images):
        return {"alias_error_of_broken_minus_kept": None, "alias_error_rise": None, "broken": 0, "kept": 0}
    _, broken = attack_images(network, images, labels, "pgd", eps / 255, steps)
    before = _alias_errors(network, images)
    after = _alias_errors(network, _one_step(network, images, labels, eps / 255))
    broken = broken.cpu()
    enough = min(int(broken.sum()), int((~broken).sum())) >= 2
    return {
        "alias_error_of_broken_minus_kept": (before[broken].mean() - before[~broken].mean()).item() if enough else None,
        "alias_error_rise": (after - before).mean().item(),
        "broken": int(broken.sum()),
        "kept": int((~broken).sum()),
    }


def map_spectra(subject: Subject, count: int) -> dict[str, Any]:
    """Radial power spectra in front of and behind the first downsampling site, on ``count`` test images."""
    first = next(iter(sampled(subject.network, subject.split("test", count).images, batch_size=count)))[0]
    values: dict[str, Any] = {}
    for name, x in (("map", first.x), ("sampled", first.y)):
        values[f"{name}_frequency"], values[f"{name}_spectrum"] = radial_spectrum(x.cpu())
    return values


def _one_step(network: nn.Module, images: Tensor, labels: Tensor, eps: float) -> Tensor:
    with evaluating(network):
        return perturb(network, images, labels, torch.Generator().manual_seed(0), eps, eps)


def _alias_errors(network: nn.Module, images: Tensor) -> Tensor:
    """Relative l1 distance of the sites' outputs from ideal downsampling, (N,), averaged over all uses of sites."""
    found = sampled(network, images, one_each=True)
    batches = ([distance_from_ideal(sample) for sample in batch] for batch in found)
    return torch.cat([torch.stack(errors).mean(0).double().cpu() for errors in batches])


def kernels(subject: Subject) -> dict[str, Any]:
    """Share of each convolution's and trainable blur's power that would alias, by name."""
    return {"stop_band": metrics.stop_bands(subject.network)}


def filter_variation(subject: Subject) -> dict[str, Any]:
    """Normalised total variation of the filters of each convolution, input side first (Zhang 2019, supplement)."""
    return {"filter_variation": list(metrics.total_variation(subject.network).values())}


def cost(subject: Subject, size: int = 32) -> dict[str, Any]:
    """Multiply-accumulates for an image of ``size`` pixels, and parameters; older records have a rough time, too."""
    return {
        "macs": count_flops(subject.network, (size, size)) // 2,
        "parameters": metrics.count_parameters(subject.network),
    }


def macs(subject: Subject) -> dict[str, Any]:
    """Multiply-accumulates for one test image."""
    height, width = subject.split("test", 1).images.shape[2:]
    return {"macs": count_flops(subject.network, (height, width)) // 2}
