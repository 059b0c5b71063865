"""Small pictures inside records."""

import base64
import io

from PIL import Image
from torch import Tensor

__all__ = ["as_png"]


def as_png(image: Tensor) -> str:
    """A uint8 image (3, H, W) as a PNG file in base64."""
    stream = io.BytesIO()
    Image.fromarray(image.permute(1, 2, 0).cpu().numpy()).save(stream, "PNG", optimize=True)
    return base64.b64encode(stream.getvalue()).decode()
