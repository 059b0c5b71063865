"""The colours of the methods on the light page, and turned as book.css turns them on the dark one."""

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from aliasing.plots import COLOURS

DARK = to_rgb("#121212")  # the theme's background
# hue-rotate(180deg) as the filter-effects specification writes it, behind invert(1).
TURNED = np.array([[-0.574, 1.43, 0.144], [0.426, 0.43, 0.144], [0.426, 1.43, -0.856]])


def luminance(colour):
    colour = np.asarray(colour)
    linear = np.where(colour <= 0.04045, colour / 12.92, ((colour + 0.055) / 1.055) ** 2.4)
    return linear @ [0.2126, 0.7152, 0.0722]


def contrast(first, second):
    """As WCAG 2 defines it, from 1 to 21."""
    low, high = sorted((luminance(first), luminance(second)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("name", COLOURS)
def test_a_method_can_be_seen_in_the_light_and_in_the_dark(name):
    colour = np.array(to_rgb(COLOURS[name]))
    assert contrast(colour, (1, 1, 1)) > 2.3
    assert contrast(np.clip(TURNED @ (1 - colour), 0, 1), DARK) > 2.3


def test_no_two_methods_share_a_colour():
    assert len(set(COLOURS.values())) == len(COLOURS)
