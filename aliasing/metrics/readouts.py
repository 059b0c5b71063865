"""Reading a network's layers: linear readouts, how typical an image is of the training set, few-shot accuracy.

Few shots: features are scaled to unit length; the prototype of a class is the mean of its support features, and a query
goes to the prototype of largest cosine (Snell et al. 2017 with cosine similarity). Episodes are drawn from the labels
and the generator only, so networks measured with equally seeded generators see the same ones and can be compared in
pairs. Intervals are over episodes.
"""

from collections.abc import Sequence
from contextlib import ExitStack

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from ..errors import UsageError, check_whole
from ..inference import batches, check_images, check_labels, device_of, evaluating, finite, widened
from ..streams import drawing
from .downsampling import collected, outputs
from .estimate import Estimate

STEPS = 100  # of the training of a readout, at most


class Readout(nn.Module):
    """A network cut off behind one layer: global average, standardisation, one linear classifier.

    Takes images, returns logits: every metric of a network applies to it that takes no gradient, those of downsampling
    sites where the layer is none.
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
    model: nn.Module, images: Tensor, labels: Tensor, layers: Sequence[str], batch_size: int = 256, classes: int = 0
) -> dict[str, Readout]:
    """Train a softmax readout on the global average of each named layer, the network frozen, by layer.

    Our working proposal for the layer-wise readouts of Azulay and Weiss (2019), who do not describe theirs. Convex
    and deterministic: ``STEPS`` of L-BFGS from zero, cross-entropy plus 0.001 times half the squared weights. Give it
    training images without shift augmentation, and the number of ``classes`` where they may lack some of the last.
    """
    labels = check_labels(labels, check_images(images)).clone()
    classes = max(classes, int(labels.max()) + 1)
    readouts = {}
    for layer, features in collected(model, images, layers, batch_size, _pooled).items():
        mean, scale = features.mean(0), features.std(0, correction=0).clamp(min=1e-6)
        inputs = (features - mean) / scale
        classifier = _fitted(inputs, labels.to(inputs.device), classes)
        readouts[layer] = Readout(model, layer, mean, scale, classifier)
    return readouts


def _fitted(inputs: Tensor, labels: Tensor, classes: int) -> nn.Linear:
    device, dtype = inputs.device, inputs.dtype
    classifier = nn.utils.skip_init(nn.Linear, inputs.shape[1], classes, device=device, dtype=dtype)
    for parameter in classifier.parameters():
        nn.init.zeros_(parameter)
    optimiser = torch.optim.LBFGS(classifier.parameters(), max_iter=STEPS, line_search_fn="strong_wolfe")

    @torch.enable_grad()
    def objective() -> Tensor:
        optimiser.zero_grad()
        loss = F.cross_entropy(classifier(inputs), labels) + 1e-3 / 2 * classifier.weight.square().sum()
        loss.backward()
        return loss

    optimiser.step(objective)
    return classifier.requires_grad_(False)


def embedding(model: nn.Module, images: Tensor, batch_size: int = 256) -> Tensor:
    """Features (N, D) of unit length on the CPU: what goes into the linear layer that runs last."""
    seen: dict[str, Tensor] = {}
    parts = []

    def keep(_: nn.Module, given: tuple, named: dict) -> None:
        seen["x"] = next(iter((*given, *named.values()))).clone()  # a network may work in place

    with evaluating(model), torch.no_grad(), ExitStack() as stack:
        for part in model.modules():
            if isinstance(part, nn.Linear):
                stack.enter_context(part.register_forward_pre_hook(keep, with_kwargs=True))
        for batch in batches(model, check_images(images), batch_size):
            model(batch)
            if not seen:
                raise UsageError(
                    f"{type(model).__name__} has no linear layer that runs; features are those in front of it"
                )
            if len(seen["x"]) != len(batch):
                raise UsageError(f"features {tuple(seen['x'].shape)} for {len(batch)} images: not one row for each")
            parts.append(widened(seen.pop("x")).cpu())
    return F.normalize(finite(torch.cat(parts), "features").flatten(1), dim=1)


def typicality(
    model: nn.Module, images: Tensor, training_images: Tensor, neighbours: int = 10, batch_size: int = 256
) -> Tensor:
    """Mean distance (N,) of each image to its nearest training images; large is atypical.

    Azulay and Weiss (2019) use perceptual similarity to the 10 nearest neighbours; ours is the Euclidean distance of
    unit-length features of the network itself (``embedding``), 0 to 2.
    """
    if not 1 <= neighbours <= len(check_images(training_images)):
        raise UsageError(f"neighbours must be 1 to {len(training_images)}, got {neighbours}")
    batch_size = check_whole("batch_size", batch_size, 1)
    device = device_of(model, images)  # on a CPU the distances of a whole data set take minutes
    known, queries = (embedding(model, part, batch_size).to(device) for part in (training_images, images))
    exact = "donot_use_mm_for_euclid_dist"  # the quick way loses small distances to rounding
    distances = (torch.cdist(part, known, compute_mode=exact) for part in queries.split(batch_size))
    return torch.cat([part.topk(neighbours, largest=False).values.mean(1).cpu() for part in distances])


def _pooled(features: Tensor) -> Tensor:
    return features.flatten(2).mean(2) if features.ndim > 2 else features


def few_shot_accuracy(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    ways: int = 5,
    shots: int = 1,
    queries: int = 15,
    episodes: int = 600,
    generator: Generator | None = None,
    batch_size: int = 256,
) -> Estimate:
    """Mean accuracy over ``episodes`` of the ``embedding`` of ``images`` (N, 3, H, W).

    Without a generator the episodes are those of seed 0.
    """
    labels = check_labels(labels, images)
    drawn = sample_episodes(labels, ways, shots, queries, episodes, generator)
    return Estimate.mean(episode_accuracies(embedding(model, images, batch_size), *drawn))


def sample_episodes(
    labels: Tensor, ways: int, shots: int, queries: int, episodes: int, generator: Generator | None = None
) -> tuple[Tensor, Tensor]:
    """Indices of images, support (episodes, ways, shots) and query (episodes, ways, queries), from ``labels`` (N,).

    Classes, and images of each, are drawn without replacement, so that support and query share none.
    Raises ``UsageError`` where fewer than ``ways`` classes have ``shots + queries`` images.
    """
    if min(ways, shots, queries, episodes) < 1:
        raise UsageError(
            f"ways, shots, queries and episodes must be at least 1, got {(ways, shots, queries, episodes)}"
        )
    generator = drawing(generator)
    labels, each = labels.cpu(), shots + queries
    members = [(labels == c).nonzero().flatten() for c in labels.unique()]
    members = [indices for indices in members if len(indices) >= each]
    if len(members) < ways:
        raise UsageError(
            f"{ways} classes with at least {each} images ({shots} shots, {queries} queries) are needed, "
            f"got {len(members)}; ask for fewer ways, shots or queries"
        )
    sizes = torch.tensor([len(indices) for indices in members])
    table = nn.utils.rnn.pad_sequence(members, batch_first=True)
    drawn = []
    for _ in range(episodes):
        classes = torch.randperm(len(members), generator=generator)[:ways]
        order = torch.rand(ways, table.shape[1], generator=generator)
        order[torch.arange(table.shape[1]) >= sizes[classes][:, None]] = 2  # padding comes last
        drawn.append(table[classes].gather(1, order.argsort(1)[:, :each]))
    support, query = torch.stack(drawn).split((shots, queries), 2)
    return support, query


def episode_accuracies(features: Tensor, support: Tensor, query: Tensor, chunk: int = 50) -> Tensor:
    """Accuracy (E,), float64, of episodes with ``features`` (N, D) of any device; ``chunk`` episodes at a time."""
    features = F.normalize(finite(features, "features").float(), dim=1)
    found = []
    for known, asked in zip(support.split(chunk), query.split(chunk), strict=True):
        prototypes = F.normalize(features[known.to(features.device)].mean(2), dim=2)
        queries = features[asked.to(features.device)].flatten(1, 2)
        answers = (queries @ prototypes.mT).argmax(2).view(asked.shape)
        truth = torch.arange(asked.shape[1], device=answers.device)[:, None]
        found.append((answers == truth).double().mean((1, 2)).cpu())
    return torch.cat(found)
