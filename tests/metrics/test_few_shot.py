"""Few-shot accuracy against a loop over queries, and cases with a known answer."""

import pytest
import torch
from torch import nn

from aliasing.metrics import Estimate
from aliasing.metrics.readouts import episode_accuracies, few_shot_accuracy, sample_episodes

LABELS = torch.arange(240) % 8


@pytest.mark.parametrize("shots", [1, 5])
def test_equals_a_loop_over_queries(shots):
    draw, episodes = torch.Generator().manual_seed(0), sample_episodes(LABELS, 4, shots, 6, 30)
    features = torch.randn(8, 6, generator=draw)[LABELS] + 0.8 * torch.randn(240, 6, generator=draw)  # clouds
    expected = []
    for support, query in zip(*episodes, strict=True):
        units = [[features[i] / features[i].norm() for i in way] for way in support.tolist()]
        prototypes = [sum(way) / len(way) for way in units]
        right = 0
        for way, indices in enumerate(query.tolist()):
            for i in indices:
                scores = [(features[i] @ p / features[i].norm() / p.norm()).item() for p in prototypes]
                right += scores.index(max(scores)) == way
        expected.append(right / 24)
    found = episode_accuracies(features, *episodes, chunk=7)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))
    assert 0.3 < found.mean() < 1


def test_episodes_are_what_they_should_be():
    labels = LABELS.clone()
    labels[7:24:8] = 8  # the last class has too few images, the one before it fewer than the others
    episodes = sample_episodes(labels, 5, 3, 7, 200)
    images = torch.cat(episodes, 2)
    classes = labels[images]
    assert classes.max() < 8
    assert [part.shape for part in episodes] == [(200, 5, 3), (200, 5, 7)]
    assert (classes == classes[..., :1]).all()
    for episode in images:
        assert len(episode.unique()) == 50
        assert len(labels[episode[:, 0]].unique()) == 5
    counts = torch.bincount(classes[..., 0].flatten(), minlength=8)
    assert (counts - 125).abs().max() < 35  # every class about as often
    assert torch.bincount(images.flatten(), minlength=240)[labels < 8].min() > 10  # every image in use


def test_a_network_is_measured_by_what_enters_its_classifier():
    torch.manual_seed(0)
    body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    model = nn.Sequential(body, nn.Linear(4, 5)).train()
    images, labels = torch.randint(0, 256, (40, 3, 8, 8)).to(torch.uint8), torch.arange(40) % 4
    with torch.no_grad():
        features = body(images / 255)
    found = few_shot_accuracy(model, images, labels.numpy(), 3, 1, 4, 60, batch_size=7)
    by_episode = episode_accuracies(features, *sample_episodes(labels, 3, 1, 4, 60))
    assert found == pytest.approx(Estimate.mean(by_episode)) and model.training
