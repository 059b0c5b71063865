"""Reading a network's layers: linear readouts, and how typical an image is of the training set."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import UsageError
from ..inference import check_images, check_labels, finite
from .downsampling import collected, outputs


class Readout(nn.Module):
    """A network cut off behind one layer: global average, standardisation, one linear classifier.

    Takes images, returns logits: every metric of a network applies to it.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, model: nn.Module, layer: str, mean: Tensor, scale: Tensor, classifier: nn.Linear) -> None:
        super().__init__()
        self.model, self.layer, self.classifier = model, layer, classifier
        self.register_buffer("mean", mean)
        self.register_buffer("scale", scale)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, classes) of (N, 3, H, W) images; no gradient reaches the network."""
        features = next(outputs(self.model, images, [self.layer], len(images)))[self.layer]
        return self.classifier((_pooled(features) - self.mean) / self.scale)


@torch.inference_mode(False)  # whatever mode the caller is in, this trains
def fit_readouts(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    layers: Sequence[str],
    penalty: float = 1e-3,
    steps: int = 100,
    batch_size: int = 256,
) -> dict[str, Readout]:
    """Train a softmax readout on the global average of each named layer, the network frozen, by layer.

    Our working proposal for the layer-wise readouts of Azulay and Weiss (2019), who do not describe theirs. Convex
    and deterministic: L-BFGS from zero, cross-entropy plus ``penalty`` times half the squared weights. Give it
    training images without shift augmentation.
    """
    labels = check_labels(labels, check_images(images)).clone()
    classes = int(labels.max()) + 1
    readouts = {}
    for layer, features in collected(model, images, layers, batch_size, _pooled).items():
        mean, scale = features.mean(0), features.std(0, correction=0).clamp(min=1e-6)
        inputs = (features - mean) / scale
        classifier = _fitted(inputs, labels.to(inputs.device), classes, penalty, steps)
        readouts[layer] = Readout(model, layer, mean, scale, classifier)
    return readouts


def _fitted(inputs: Tensor, labels: Tensor, classes: int, penalty: float, steps: int) -> nn.Linear:
    device, dtype = inputs.device, inputs.dtype
    classifier = nn.utils.skip_init(nn.Linear, inputs.shape[1], classes, device=device, dtype=dtype)
    for parameter in classifier.parameters():
        nn.init.zeros_(parameter)
    optimiser = torch.optim.LBFGS(classifier.parameters(), max_iter=steps, line_search_fn="strong_wolfe")

    @torch.enable_grad()
    def objective() -> Tensor:
        optimiser.zero_grad()
        loss = F.cross_entropy(classifier(inputs), labels) + penalty / 2 * classifier.weight.square().sum()
        loss.backward()
        return loss

    optimiser.step(objective)
    return classifier.requires_grad_(False)


def embedding(model: nn.Module, images: Tensor, layer: str | None = None, batch_size: int = 256) -> Tensor:
    """Features (N, D) of unit length on the CPU: the global average of ``layer``, or the last linear layer's input."""
    if layer is not None:
        return F.normalize(collected(model, images, [layer], batch_size, _pooled)[layer].cpu(), dim=1)
    linear = [name for name, part in model.named_modules() if isinstance(part, nn.Linear)]
    if not linear:
        raise UsageError(f"{type(model).__name__} has no linear layer; name the layer to take features from")
    seen: list[Tensor] = []
    hook = model.get_submodule(linear[-1]).register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].cpu()))
    with hook:
        collected(model, images, [linear[-1]], batch_size)
    return F.normalize(finite(torch.cat(seen), "features").flatten(1), dim=1)


def typicality(
    model: nn.Module,
    images: Tensor,
    training_images: Tensor,
    neighbours: int = 10,
    layer: str | None = None,
    batch_size: int = 256,
) -> Tensor:
    """Mean distance (N,) of each image to its nearest training images; large is atypical.

    Azulay and Weiss (2019) use perceptual similarity to the 10 nearest neighbours; ours is the Euclidean distance of
    unit-length features of the network itself (``embedding``), 0 to 2.
    """
    if not 1 <= neighbours <= len(check_images(training_images)):
        raise UsageError(f"neighbours must be 1 to {len(training_images)}, got {neighbours}")
    known = embedding(model, training_images, layer, batch_size)
    queries = embedding(model, images, layer, batch_size)
    exact = "donot_use_mm_for_euclid_dist"  # the quick way loses small distances to rounding
    return torch.cat(
        [
            torch.cdist(part, known, compute_mode=exact).topk(neighbours, largest=False).values.mean(1)
            for part in queries.split(batch_size)
        ]
    )


def _pooled(features: Tensor) -> Tensor:
    return features.flatten(2).mean(2) if features.ndim > 2 else features
