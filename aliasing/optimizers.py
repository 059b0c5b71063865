"""The optimizers of a recipe, behind one face: which parameters each takes, and what is stored to continue."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


class Muon:
    """``torch.optim.Muon``, which takes matrices, for the filters of convolutions: (K, C, h, w) as (K, h * w * C).

    After each step a filter bank is scaled back to norm sqrt(K). Behind it stands a normalisation, so its scale has no
    influence on the network but for the relative size of the next step, which the learning rate alone then decides.
    """

    def __init__(self, filters: list[Tensor], lr: float, momentum: float) -> None:
        self.filters = filters
        self.matrices = [nn.Parameter(self._matrix(weight.detach()).clone()) for weight in filters]
        self.inner = torch.optim.Muon(self.matrices, lr=lr, momentum=momentum, weight_decay=0.0)
        self._write_back()

    @staticmethod
    def _matrix(weight: Tensor) -> Tensor:
        # A view where the memory is channels_last, as in our networks, whose order of columns is as good as any.
        return weight.permute(0, 2, 3, 1).flatten(1)

    @torch.no_grad()
    def _write_back(self) -> None:
        """The matrices, normalised, are the filters."""
        for matrix, weight in zip(self.matrices, self.filters, strict=True):
            matrix.mul_(len(matrix) ** 0.5 / matrix.norm().clamp_min(1e-7))
            weight.copy_(matrix.view_as(weight.permute(0, 2, 3, 1)).permute(0, 3, 1, 2))

    @torch.no_grad()
    def step(self) -> None:
        """Move the filters, which may have been loaded meanwhile, against their gradients."""
        for matrix, weight in zip(self.matrices, self.filters, strict=True):
            matrix.copy_(self._matrix(weight))
            matrix.grad = None if weight.grad is None else self._matrix(weight.grad).to(matrix.dtype)
        self.inner.step()
        self._write_back()


class Optimizers:
    """What moves the parameters of ``network``: one optimizer, or Muon and another for what it does not take.

    Weight decay is for matrices and filters, not for vectors (biases, normalisation), nor for what a module gives in
    ``no_weight_decay()``: parameters or, as in timm, their names, of which it need not have all.

    Muon takes convolutions without a bias and sets the norm of their filters, as a normalisation stands behind them.
    Where none does, that changes what the network computes.
    """

    def __init__(
        self, network: nn.Module, kind: str, lr: float, rest_lr: float, momentum: float, weight_decay: float
    ) -> None:
        exempt = set()
        for module in network.modules():
            if given := [*getattr(module, "no_weight_decay", tuple)()]:
                named = dict(module.named_parameters(remove_duplicate=False))
                exempt |= {id(named.get(p) if isinstance(p, str) else p) for p in given}
        parameters = [p for p in network.parameters() if p.requires_grad]
        self.muon: Muon | None = None
        if kind == "muon":
            # By identity: two may share a filter.
            layers = [m for m in network.modules() if isinstance(m, nn.Conv2d) and m.groups == 1 and m.bias is None]
            filters = {id(m.weight): m.weight for m in layers if m.weight.requires_grad and id(m.weight) not in exempt}
            parameters = [p for p in parameters if id(p) not in filters]
            if filters:
                self.muon = Muon(list(filters.values()), lr, momentum)
            lr = rest_lr
        decayed = [p for p in parameters if p.ndim > 1 and id(p) not in exempt]
        others = [p for p in parameters if p.ndim <= 1 or id(p) in exempt]
        groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]
        fused = any(p.device.type == "cuda" for p in parameters)
        family: Any = torch.optim.AdamW if kind == "adamw" else torch.optim.SGD
        inertia = {} if kind == "adamw" else {"momentum": momentum, "nesterov": momentum > 0}
        self.all: list[torch.optim.Optimizer] = [family(groups, lr=lr, fused=fused, **inertia)]
        if self.muon is not None:
            self.all.append(self.muon.inner)

    def set_rates(self, rate: Callable[[float], float]) -> None:
        """Give every group the rate that ``rate(peak)`` says."""
        for optimizer in self.all:
            for group in optimizer.param_groups:
                group["lr"] = rate(group.setdefault("peak", group["lr"]))

    def step(self) -> None:
        """Move all parameters."""
        self.all[0].step()
        if self.muon is not None:
            self.muon.step()

    def state(self) -> dict[str, Tensor]:
        """What a later process needs to continue, by name."""
        return {
            f"{number}.{index}.{key}": value
            for number, optimizer in enumerate(self.all)
            for index, state in optimizer.state_dict()["state"].items()
            for key, value in state.items()
            if value is not None
        }

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Take what ``state`` gave; ``ValueError`` names the first tensor that is not of these optimizers."""
        for number, optimizer in enumerate(self.all):
            owners = [parameter for group in optimizer.param_groups for parameter in group["params"]]
            state: dict[int, dict[str, Tensor]] = {}
            for name in [name for name in tensors if name.startswith(f"{number}.")]:
                _, index, key = name.split(".")
                value = tensors.pop(name)
                if int(index) >= len(owners) or (value.ndim and value.shape != owners[int(index)].shape):
                    raise ValueError(f"it has {name} {tuple(value.shape)}")
                if value.ndim:  # in the memory format of its parameter, which fused steps on CUDA take for granted
                    value = torch.empty_like(owners[int(index)], requires_grad=False).copy_(value)
                state.setdefault(int(index), {})[key] = value
            optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
        if tensors:
            raise ValueError(f"it has {min(tensors)}")
