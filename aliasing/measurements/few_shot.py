"""Few-shot transfer: nearest centroids on the network's pooled features."""

from typing import Any

from ..datasets import load
from ..evaluation import Subject, measurement
from ..metrics import few_shot_accuracy


@measurement
def few_shot(
    subject: Subject, dataset: dict[str, Any], domain: str, ways: int = 5, shots: int = 1, episodes: int = 600
) -> dict[str, Any]:
    """Accuracy over episodes drawn from the test split of ``dataset``; ``domain`` names it in the result."""
    test = load(split="test", **dataset)
    accuracy = few_shot_accuracy(subject.network, test.images, test.labels, ways, shots, episodes=episodes)
    return {f"few_shot_{domain}_{shots}": accuracy}
