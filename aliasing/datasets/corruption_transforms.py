"""The 15 common corruptions as batched tensor operations.

Each function takes float images in [0, 1] (n, 3, H, W), one random stream per image and the constants of a severity,
and returns float images that the caller clips; those ``ON_BYTES`` take and return uint8. They follow Hendrycks and
Dietterich (2019) and their published generator (hendrycks/robustness) in what they do, down to border modes, but for
four things of our choice:

- motion blur, and the streaks of snow, average a one-sided Gaussian along a line of whole pixels (the published ones
  call ImageMagick, which works in this way with its own rounding);
- frost is laid on from a procedural texture of similar brightness, since the photographs of the published set are
  not ours to ship;
- bytes are rounded where the published code cuts the fraction off;
- axes are independent, so that images need not be square.
"""

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from ..errors import extra
from .corruption_filters import Streams, convolve, draw, gaussian, line_blur, plasma, sample, zoom


def to_bytes(x: Tensor) -> Tensor:
    """Clip to [0, 1] and round to uint8."""
    return (x.clamp(0, 1) * 255).round().to(torch.uint8)


# Noise


def gaussian_noise(x: Tensor, streams: Streams, sigma: float) -> Tensor:
    """Add independent normal noise of standard deviation ``sigma``."""
    return x + sigma * draw(torch.randn, streams, x.shape[1:], x)


def shot_noise(x: Tensor, streams: Streams, photons: float) -> Tensor:
    """Count photons: Poisson of mean ``photons`` times the value, scaled back."""
    counts = [torch.poisson(image, stream) for image, stream in zip((x * photons).cpu(), streams, strict=True)]
    return torch.stack(counts).to(x) / photons


def impulse_noise(x: Tensor, streams: Streams, amount: float) -> Tensor:
    """Salt and pepper: a share ``amount`` of the channel values becomes 0 or 1 with equal chance."""
    u = draw(torch.rand, streams, x.shape[1:], x)
    return torch.where(u < amount, (u < amount / 2).to(x), x)


# Blur


def defocus_blur(x: Tensor, streams: Streams, radius: float, alias_blur: float) -> Tensor:
    """Average over a disk of ``radius`` pixels, itself smoothed by a small Gaussian; mirrored at the border."""
    soft = 1 if radius <= 8 else 2
    reach = int(radius) + soft
    axis = torch.arange(-reach, reach + 1, dtype=torch.float64)
    disk = (axis[:, None] ** 2 + axis**2 <= radius**2).double()
    taps = torch.exp(-(torch.arange(-soft, soft + 1).double() ** 2) / (2 * alias_blur**2))
    gauss = torch.outer(taps, taps)
    kernel = F.conv2d(disk[None, None], gauss[None, None], padding=soft)[0, 0]
    return convolve(x, kernel / kernel.sum())


def glass_blur(x: Tensor, streams: Streams, sigma: float, reach: int, rounds: int) -> Tensor:
    """Blur, move pixels about by up to ``reach``, blur again.

    The published code means to swap each pixel with a random neighbour, last pixel first, but for colour images its
    assignment copies the neighbour instead (NumPy views). The published images have the copies, and so have ours.
    """
    height, width = x.shape[2:]
    x = to_bytes(gaussian(x, sigma, "nearest", 4)).to(x) / 255
    offsets = draw(lambda shape, generator: torch.randint(-reach, reach, shape, generator=generator), streams,
                    (rounds, 2, height, width), torch.empty(0, dtype=torch.int64, device=x.device))  # fmt: skip
    here = torch.arange(height * width, device=x.device).expand(len(x), -1)
    h, w = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    inside = (h > reach) & (h <= height - reach) & (w > reach) & (w <= width - reach)
    inside = inside.flatten().to(x.device)
    source = here
    for dy, dx in offsets.flatten(3).permute(1, 2, 0, 3):
        neighbour = torch.where(inside, here + dy * width + dx, here)
        source = source.gather(1, _copied(neighbour, inside))
    moved = x.flatten(2).gather(2, source[:, None].expand(-1, 3, -1)).view_as(x)
    return gaussian(moved, sigma, "nearest", 4)


def _copied(neighbour: Tensor, inside: Tensor) -> Tensor:
    """Where the pixels (n, H * W) come from if, last one first, each pixel ``inside`` becomes a copy of its neighbour.

    A neighbour further on was itself replaced before, so the copies form chains, which are followed by doubling.
    """
    here = torch.arange(neighbour.shape[1], device=neighbour.device)
    last = torch.where((neighbour > here) & inside[neighbour], neighbour, here)
    while not last.equal(further := last.gather(1, last)):
        last = further
    return neighbour.gather(1, last)


def motion_blur(x: Tensor, streams: Streams, radius: int, sigma: float) -> Tensor:
    """Blur along a line at an angle drawn from -45 to 45 degrees."""
    return line_blur(x, streams, radius, sigma, -45)


def zoom_blur(x: Tensor, streams: Streams, stop: float, step: float) -> Tensor:
    """Mean of the image and its zooms by 1, 1 + step, ... up to ``stop``."""
    factors = np.arange(1, stop, step).tolist()
    return (x + sum(zoom(x, factor) for factor in factors)) / (len(factors) + 1)


# Weather


def snow(x: Tensor, streams: Streams, mean: float, std: float, factor: float, threshold: float,
         radius: int, sigma: float, mix: float) -> Tensor:  # fmt: skip
    """Whiten the scene and add streaks: thresholded noise, zoomed, blurred along a steep line, in two directions."""
    layer = mean + std * draw(torch.randn, streams, (1, *x.shape[2:]), x)
    layer = zoom(layer, factor)
    layer = torch.where(layer < threshold, 0, layer).clamp(0, 1)
    layer = line_blur(layer, streams, radius, sigma, -135)
    grey = (x * x.new_tensor([0.299, 0.587, 0.114])[:, None, None]).sum(1, keepdim=True)
    x = mix * x + (1 - mix) * torch.maximum(x, 1.5 * grey + 0.5)
    return x + layer + layer.flip(2, 3)


def frost(x: Tensor, streams: Streams, image_weight: float, frost_weight: float) -> Tensor:
    """Lay bluish crystals over the image: veins where rough random surfaces cross their middle, denser in places."""
    height, width = x.shape[2:]
    coarse, fine, cover = (plasma(streams, height, width, decay, x) for decay in (1.3, 1.1, 2.0))
    veins = torch.maximum(1 - 6 * (coarse - 0.5).abs(), 1 - 5 * (fine - 0.5).abs()).clamp_min(0)
    texture = (0.3 + 0.35 * cover + 0.8 * veins * (0.3 + 0.7 * cover)).clamp_max(1)
    return image_weight * x + frost_weight * texture * x.new_tensor([0.85, 0.95, 1.0])[:, None, None]


def fog(x: Tensor, streams: Streams, strength: float, decay: float) -> Tensor:
    """Add a cloud and scale back so that the brightest value of the image cannot be exceeded."""
    brightest = x.amax((1, 2, 3), keepdim=True)
    cloud = plasma(streams, x.shape[2], x.shape[3], decay, x)
    return (x + strength * cloud) * brightest / (brightest + strength)


def brightness(x: Tensor, streams: Streams, add: float) -> Tensor:
    """Raise the value of HSV, the largest channel, keeping hue and saturation: the channels grow in proportion."""
    value = x.amax(1, keepdim=True)
    raised = (value + add).clamp(0, 1)
    return torch.where(value > 0, x * raised / value.clamp_min(1e-6), raised)


# Digital


def contrast(x: Tensor, streams: Streams, factor: float) -> Tensor:
    """Shrink each channel of each image towards its mean."""
    mean = x.mean((2, 3), keepdim=True)
    return (x - mean) * factor + mean


def elastic_transform(x: Tensor, streams: Streams, alpha: float, sigma: float, affine: float) -> Tensor:
    """A random affine map, then random displacements of every pixel; ``alpha``, ``sigma``, ``affine`` in pixels.

    The affine map moves three points by up to ``affine``; the displacements are uniform noise smoothed by a Gaussian of
    ``sigma`` and multiplied by ``alpha``.
    """
    height, width = x.shape[2:]
    reach = min(height, width) // 3
    corners = torch.tensor([[reach, reach], [reach, -reach], [-reach, -reach]], dtype=torch.float64)
    points = corners + torch.tensor([width // 2, height // 2])  # as (x, y)
    moved = points + affine * (2 * draw(torch.rand, streams, (3, 2), points) - 1)
    back = torch.linalg.solve(F.pad(moved, (0, 1), value=1.0), points.expand_as(moved)).to(x)
    ys, xs = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    grid = torch.stack([xs, ys], -1).to(x)
    x = sample(x, F.pad(grid, (0, 1), value=1.0).flatten(0, 1) @ back, mirror_on_pixels=True)
    field = 2 * draw(torch.rand, streams, (2, height, width), x) - 1
    field = alpha * gaussian(field, sigma, "reflect", 3) if sigma > 0 else 0 * field
    return sample(x, (grid + field.permute(0, 2, 3, 1)).flatten(1, 2), mirror_on_pixels=False)


def pixelate(x: Tensor, streams: Streams, scale: float) -> Tensor:
    """Shrink and enlarge with Pillow's box filter; shrinking plane by plane, enlarging by repetition."""
    height, width = x.shape[2:]
    rows, columns = max(1, int(height * scale)), max(1, int(width * scale))
    planes = x.cpu().contiguous().flatten(0, 1).numpy()
    shrunk = [Image.fromarray(plane).resize((columns, rows), Image.Resampling.BOX) for plane in planes]
    small = torch.from_numpy(np.stack([np.asarray(plane) for plane in shrunk])).to(x.device).unflatten(0, x.shape[:2])
    return small.index_select(3, _repeated(columns, width, x)).index_select(2, _repeated(rows, height, x))


def _repeated(few: int, many: int, x: Tensor) -> Tensor:
    """Which of a ``few`` pixels each of ``many`` repeats when Pillow's box filter enlarges them."""
    ramp = Image.fromarray(np.arange(few, dtype=np.float32)[None])
    return torch.from_numpy(np.array(ramp.resize((many, 1), Image.Resampling.BOX))[0]).to(x.device, torch.int64)


def jpeg_compression(x: Tensor, streams: Streams, quality: int) -> Tensor:
    """Through JPEG and back, image by image; torchvision's bytes are those of Pillow."""
    with extra():
        from torchvision.io import decode_jpeg, encode_jpeg  # takes a second to import, and only this needs it

    return torch.stack([decode_jpeg(encode_jpeg(image, quality)) for image in x.cpu()]).to(x.device)


#: Those that take and return bytes, not floats.
ON_BYTES = ("pixelate", "jpeg_compression")
