"""What small attacks and noise do inside a network: to its features, to its sampling, in which frequencies."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..datasets.corruptions import corrupt
from ..evaluation import Subject, measurement
from ..inference import as_float, evaluating
from ..metrics import Attack, Estimate, attack_images, embedding, perturb, predict, radial_spectrum, sampled
from ..metrics.spectra import ideal


@measurement
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


@measurement
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
    _, broken = attack_images(network, images, labels, Attack("pgd", steps), eps / 255)
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


@measurement
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
    """Relative l1 distance of the sites' outputs from ideal downsampling, (N,), averaged over the sites."""
    parts = []
    for batch in sampled(network, images):
        errors = []
        for sample in batch:
            target = ideal(sample.x, sample.stride)
            errors.append((sample.y - target).abs().sum((1, 2, 3)) / target.abs().sum((1, 2, 3)))
        parts.append(torch.stack(errors).mean(0).double().cpu())
    return torch.cat(parts)
