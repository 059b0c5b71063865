"""Few-shot transfer: nearest centroids on the network's pooled features."""

import json
from typing import Any

from ..evaluation import Subject, loaded, measurement
from ..metrics import few_shot_accuracy


@measurement
def few_shot(
    subject: Subject, dataset: dict[str, Any], domain: str, ways: int = 5, shots: int = 1, episodes: int = 600
) -> dict[str, Any]:
    """Accuracy over episodes drawn from the test split of ``dataset``; ``domain`` names it in the result."""
    test = loaded(json.dumps(dataset), "test")
    accuracy = few_shot_accuracy(subject.network, test.images, test.labels, ways, shots, episodes=episodes)
    return {f"few_shot_{domain}_{shots}": accuracy}
