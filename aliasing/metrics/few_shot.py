"""Few-shot accuracy of a frozen network: N-way K-shot episodes, nearest centroid by cosine.

Protocol. Features are scaled to unit length; the prototype of a class is the mean of its support features, and a
query goes to the prototype of largest cosine (Snell et al. 2017 with cosine similarity). Episodes are drawn from the
labels and the generator only, so networks measured with equally seeded generators see the same ones and can be
compared in pairs. Intervals are over episodes.
"""

import torch
from torch import Generator, Tensor, nn

from ..errors import UsageError
from ..inference import check_labels, finite
from .estimate import Estimate
from .readouts import embedding


def few_shot_accuracy(
    features: Tensor | nn.Module,
    images: Tensor | None,
    labels: Tensor,
    ways: int = 5,
    shots: int = 1,
    queries: int = 15,
    episodes: int = 600,
    generator: Generator | None = None,
    batch_size: int = 256,
) -> Estimate:
    """Mean accuracy over ``episodes``.

    ``features`` is a network, whose ``embedding`` of ``images`` (N, 3, H, W) is used, or the features (N, D)
    themselves with ``images=None``. Without a generator the episodes are those of seed 0.
    """
    if isinstance(features, nn.Module):
        if images is None:
            raise UsageError("few_shot_accuracy of a network needs images, got None")
        features = embedding(features, images, batch_size=batch_size)
    check_labels(labels, features)
    drawn = sample_episodes(labels, ways, shots, queries, episodes, generator)
    return Estimate.mean(episode_accuracies(features, *drawn))


def sample_episodes(
    labels: Tensor,
    ways: int = 5,
    shots: int = 1,
    queries: int = 15,
    episodes: int = 600,
    generator: Generator | None = None,
) -> tuple[Tensor, Tensor]:
    """Indices of images, support (episodes, ways, shots) and query (episodes, ways, queries), from ``labels`` (N,).

    Classes, and images of each, are drawn without replacement, so that support and query share none.
    Raises ``UsageError`` where fewer than ``ways`` classes have ``shots + queries`` images.
    """
    if min(ways, shots, queries, episodes) < 1:
        raise UsageError(
            f"ways, shots, queries and episodes must be at least 1, got {(ways, shots, queries, episodes)}"
        )
    generator = torch.Generator().manual_seed(0) if generator is None else generator
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
    if features.ndim != 2:
        raise UsageError(f"features must be (N, D), got {tuple(features.shape)}")
    features = nn.functional.normalize(finite(features, "features").float(), dim=1)
    found = []
    for known, asked in zip(support.split(chunk), query.split(chunk), strict=True):
        prototypes = nn.functional.normalize(features[known.to(features.device)].mean(2), dim=2)
        queries = features[asked.to(features.device)].flatten(1, 2)
        answers = (queries @ prototypes.mT).argmax(2).view(asked.shape)
        truth = torch.arange(asked.shape[1], device=answers.device)[:, None]
        found.append((answers == truth).double().mean((1, 2)).cpu())
    return torch.cat(found)
