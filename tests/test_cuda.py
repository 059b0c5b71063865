"""What CUDA would refuse, or be waited for, on a machine without it: CPU tensors play those of the device.

They say that they are on "cuda:0", and every operation is looked at: none may mix them with others or be one that CUDA
lacks, and no step of a training may need a value that the device has, or a copy for which it is waited for.
"""

from collections import Counter
from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from aliasing import metrics, models
from aliasing.datasets import ImageSet
from aliasing.jobs import build
from aliasing.layers import _matrices
from aliasing.measurements import Subject
from aliasing.records import encode
from aliasing.studies import campaign
from aliasing.training import Recipe, train
from tests.layers.cases import LAYERS

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="there is one")
CUDA = torch.device("cuda:0")
VALUES = ("_local_scalar_dense", "nonzero", "masked_select", "equal")  # operations that give the host a value
# Operations that CUDA has of floats only.
FLOATS = ("mm", "bmm", "mv", "dot", "addmm", "baddbmm", "addmv", "convolution", "reflection_pad2d", "replication_pad2d",
          "upsample_bilinear2d", "_upsample_bilinear2d_aa", "max_pool2d_with_indices", "avg_pool2d")  # fmt: skip


class Played(Tensor):
    device = property(lambda self: CUDA)
    __torch_function__ = torch._C._disabled_torch_function_impl

    def cpu(self):
        with torch._C._DisableTorchDispatch():
            return Tensor._make_subclass(Tensor, self).clone()

    def tolist(self):
        return self.cpu().tolist()

    def refused(self, *arguments):
        raise TypeError("only tensors on the CPU have that")

    numpy = pin_memory = __array__ = refused

    @classmethod
    def __torch_dispatch__(cls, operation, types, arguments=(), options=None):
        return looked_at(operation, arguments, dict(options or {}), Counter())


def looked_at(operation, arguments, options, waits):
    name, tensors = operation._schema.name.removeprefix("aten::"), tree_leaves((arguments, options))
    tensors = [t for t in tensors if isinstance(t, Tensor)]
    there = [isinstance(t, Played) for t in tensors]
    made_there = getattr(options.pop("device", None), "type", "") == "cuda"
    copied = name in ("_to_copy", "copy_")
    indices = tree_leaves(arguments[1]) if name in ("index", "index_put_") and there[0] else ()  # from anywhere
    if any(there) and not copied:
        own = zip(there, tensors, strict=True)
        assert all(p or t.dim() == 0 or any(t is index for index in indices) for p, t in own), name
        assert name not in FLOATS or all(t.is_floating_point() for t in tensors), name
    if any(there) or made_there:  # generators are here
        assert not any(isinstance(leaf, torch.Generator) for leaf in tree_leaves((arguments, options))), name
    sent = copied and not options.get("non_blocking") and (made_there or any(there)) and not all(there)
    masked = name.startswith("index") and any(getattr(t, "dtype", 0) == torch.bool for t in tree_leaves(arguments[1]))
    waits[name] += sent or (any(there) and (name in VALUES or masked))
    with torch._C._DisableTorchDispatch():
        result = operation(*arguments, **options)
    if operation._schema.is_mutable or not (any(there) or made_there):
        return result
    return tree_map_only(Tensor, lambda t: t if isinstance(t, Played) else Tensor._make_subclass(Played, t), result)


def moved(to, tensor, *arguments, **options):
    """``tensor.to(...)``, which would take the tensors that play for those of the CPU."""
    if arguments and isinstance(arguments[0], Tensor):
        arguments = arguments[0].device, arguments[0].dtype, *arguments[1:]
    place = arguments[0] if arguments and not isinstance(arguments[0], torch.dtype) else options.get("device")
    if isinstance(tensor, Played) and place is not None and torch.device(place).type == "cpu":
        tensor = tensor.cpu()
    return to(tensor, *arguments, **options)


class Looking(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.waits = Counter()

    def __torch_dispatch__(self, operation, types, arguments=(), options=None):
        return looked_at(operation, arguments, dict(options or {}), self.waits)


@pytest.fixture
def cuda(monkeypatch):
    """What has happened there so far."""
    autocast, enabled, to = torch.autocast, torch.is_autocast_enabled, Tensor.to
    monkeypatch.setattr(torch.cuda, "_lazy_init", lambda: None)
    monkeypatch.setattr(torch, "autocast", lambda device, *a, **o: autocast("cpu", *a, **o))
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda device="cpu": enabled("cpu"))
    monkeypatch.setattr(torch.random, "fork_rng", lambda devices: nullcontext())
    monkeypatch.setattr(torch.cuda, "synchronize", lambda *a: None)
    monkeypatch.setattr(Tensor, "pin_memory", lambda tensor: tensor)
    monkeypatch.setattr(Tensor, "to", lambda *a, **o: moved(to, *a, **o))
    monkeypatch.setattr(Tensor, "new_tensor", lambda t, data, **o: torch.tensor(data, dtype=t.dtype, **o).to(t.device))
    monkeypatch.setattr(_matrices, "Tensor", Played)
    monkeypatch.setattr(_matrices, "_disable_current_modes", nullcontext)  # the device is one itself
    monkeypatch.setattr(torch.__future__, "_overwrite_module_params_on_conversion", True)
    with Looking() as looking:
        yield looking.waits


RECIPES = {
    "sgd": {},
    "adamw": {"optimizer": "adamw", "shift": 2, "shift_mode": "standard", "flip": True},
    "muon": {"optimizer": "muon", "rest_lr": 0.1, "precision": "bfloat16", "clip_norm": 1.0},
    "adversary": {"adversary": 8 / 255},
    "randaugment": {"randaugment": 2},
    "losses": {"auxiliary": 0.35, "auxiliary_wake": 0.0},
}
CASES = [(name, "muon") for name in LAYERS] + [("tips" if r == "losses" else "bin-5", r) for r in RECIPES]


@pytest.mark.parametrize(("layer", "recipe"), CASES)
def test_no_step_of_a_training_waits_for_the_device(cuda, layer, recipe):
    images = torch.randint(256, (12, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    waits = []
    for count in (4, 4, 12):  # the first time more is done: constants are sent there
        torch.manual_seed(0)
        network = models.create("vgg-small", 4, width=8, downsample=layer, padding_mode="circular")
        data = ImageSet(images[:count], torch.arange(count) % 4, tuple("abcd"), "noise")
        cuda.clear()
        train(network, data, Recipe(epochs=1, batch_size=4, lr=0.01, **RECIPES[recipe]), 0, CUDA)
        waits.append(+cuda)
    assert waits[1] == waits[2]
    assert isinstance(next(network.parameters()), Played)


MEASURED = {m.name: (job.run, m) for job in campaign("smoke") for m in job.measurements}
FEWER = ("circular_rolls", "shiftability", "jagged", "sweep", "corruptions", "consistency_surface", "exact_shifts")


@pytest.mark.parametrize("name", MEASURED)
def test_a_measurement_mixes_no_devices(cuda, name, monkeypatch):
    monkeypatch.setattr(metrics.readouts, "STEPS", 1)
    run, wanted = MEASURED[name]
    network = build(run).to(CUDA).to(memory_format=torch.channels_last).eval()
    fewer = {"count": 2} if name in FEWER else {"max_shift": 1} if name == "equivariance" else {}
    wanted = replace(wanted, options=wanted.options | fewer)
    assert encode(wanted.measure(Subject(run, network, CUDA)))


def test_what_cuda_would_refuse_is_found(cuda):
    there = torch.ones(4, 4).to(CUDA)
    for refused in (
        lambda: there + torch.ones(4),
        lambda: torch.ones(4)[there.long()],
        lambda: there.long() @ there.long(),
        lambda: torch.empty_like(there).uniform_(generator=torch.Generator()),
    ):
        with pytest.raises(AssertionError):
            refused()
    for refused in (there.numpy, there.pin_memory):
        with pytest.raises(TypeError):
            refused()
    assert type(there[torch.tensor([0])]) is Played and type(there.cpu()) is type((there + 1).to("cpu")) is Tensor
