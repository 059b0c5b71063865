"""What the tests of layers share: the layers they run over, the ways to pad and to store a map, and noise."""

from contextlib import nullcontext

import numpy as np
import torch

from aliasing.layers import CATALOGUE, TIPS, create, definitions

MODES = ("reflect", "circular", "zeros", "replicate")
NUMPY_MODES = {"reflect": "reflect", "circular": "wrap", "zeros": "constant", "replicate": "edge"}
FORMATS = (torch.contiguous_format, torch.channels_last)

#: Every kind of layer, of the filters a short and a long one, an even and an odd: ``test_blur`` has the other lengths.
LAYERS = tuple(name for name in CATALOGUE if name not in ("tri-3", "bin-4", "bin-6", "bin-7"))

LINEAR = ("subsample", "rect-2", "tri-3", "bin-4", "bin-5", "bin-6", "bin-7", "flc", "asap")

#: These as they come, and those whose options change what is computed: (name, options).
CASES = {name: (name, {}) for name in LAYERS} | {
    "bin-5 trainable": ("bin-5", {"trainable": True}),
    "tri-3 signs": ("tri-3", {"control": "signs"}),
    "flc faithful": ("flc", {"faithful": True}),
    "asap none": ("asap", {"variant": "none"}),
    "asap pad-large": ("asap", {"variant": "pad-large"}),
    "asap kept-band": ("asap", {"variant": "kept-band"}),
    "asap faithful": ("asap", {"faithful": True}),
    "aps blurred": ("aps", {"blur": "tri-3"}),
    "lps blurred": ("lps", {"hidden": 3, "blur": "bin-4", "choose_from": "input"}),
    "tips faithful": ("tips", {"faithful": True}),
    "ddac faithful": ("ddac", {"faithful": True}),
}


def noise(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def layer_of(case, channels=3, **options):
    """A layer in float64 and evaluation mode, where none draws random numbers; its own parameters are seeded."""
    name, own = CASES[case]
    torch.manual_seed(0)
    layer = create(name, channels, **own, **options).double().eval()
    if isinstance(layer, TIPS):  # mixing weights far from uniform
        with torch.no_grad():
            layer.tau.scale.weight.mul_(20)
    return layer


def check(layer, x, expected, place=(), atol=1e-12):
    """The layer and its definition give what is expected, all of it or at one ``place``."""
    for form in (nullcontext(), definitions()):
        with form:
            found = layer(x).detach().numpy()[place]
            np.testing.assert_allclose(found, expected, atol=atol, rtol=1e-7, err_msg=f"{layer} {x.shape}")


def filter_line(line, taps, stride, mode):
    around = np.pad(line, ((len(taps) - 1) // 2, len(taps) // 2), mode=NUMPY_MODES[mode])
    return np.correlate(around, taps, "valid")[::stride]


def filtered(x, taps, stride, mode):
    """Filter the rows, then the columns, of one map."""
    rows = np.array([filter_line(row, taps, stride, mode) for row in x])
    return np.array([filter_line(column, taps, stride, mode) for column in rows.T]).T
