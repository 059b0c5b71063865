"""The worked example of the page on diagnosing: a small network of one's own, converted, then fine-tuned."""

import tempfile
from pathlib import Path

import torch
from torch import nn
from torchvision.io import write_png

import aliasing
from aliasing.training import Recipe, train


def block(inputs, outputs, stride):
    """The block that most networks are made of."""
    convolution = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU())


# A folder of pictures: generated shapes, larger than the network's input,
# so that windows can move.
folder = Path(tempfile.mkdtemp())
pictures = aliasing.datasets.load("shapes", "test", count=100, size=48).images
for number, image in enumerate(pictures):
    write_png(image, str(folder / f"{number:03d}.png"))

# A network with two strided convolutions and a max-pool, trained for a few seconds.
torch.manual_seed(0)
data = aliasing.datasets.load("shapes", "train", count=1500, size=42)
head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, len(data.classes)))
body = nn.Sequential(block(3, 16, 1), nn.MaxPool2d(2), block(16, 32, 2), block(32, 64, 2))
plain = nn.Sequential(body, head)
train(plain, data, Recipe(epochs=6), seed=0)

# Converted: every weight kept. Fine-tuned towards the answers of the plain network, without labels.
converted = aliasing.antialias(plain, "tri-3")
larger = aliasing.datasets.load("shapes", "train", count=1500, size=48)
tuned, table = aliasing.finetune(plain, "tri-3", larger.images, size=42, epochs=2, device="cpu")

networks = {"plain": plain, "converted": converted, "fine-tuned": tuned}
found = aliasing.diagnose(networks, folder, size=42, device="cpu", report=folder / "report.html")
print(found)
