"""Networks whose answers are known by hand, and folders of pictures."""

import torch
from PIL import Image
from torch import nn


def noise(*size, dtype=torch.float64):
    """Pictures (N, 3, H, W) of this size."""
    return torch.rand(size, generator=torch.Generator().manual_seed(0), dtype=dtype)


def write(folder, images):
    """Write pictures (3, H, W) of bytes as ``0.png`` and so on."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, image in enumerate(images):
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(folder / f"{number}.png")


class Custom(nn.Module):
    """A network of ``parts`` whose forward is ``run(network, x)``."""

    def __init__(self, run, **parts):
        super().__init__()
        self.run = run
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, x):
        return self.run(self, x)


class Answer(Custom):
    """What a function says of the images."""

    def __init__(self, function):
        super().__init__(lambda _, x: function(x))


class SamePadding(nn.Conv2d):
    """Pads for the stride it has, in its own forward, as TensorFlow and EfficientNet-PyTorch do."""

    def forward(self, x):
        (s, _), k = self.stride, self.kernel_size[0]
        total = [max((-(-n // s) - 1) * s + k - n, 0) for n in (x.shape[3], x.shape[2])]
        x = nn.functional.pad(x, [total[0] // 2, total[0] - total[0] // 2, total[1] // 2, total[1] - total[1] // 2])
        return nn.functional.conv2d(x, self.weight, self.bias, self.stride)
