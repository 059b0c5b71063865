"""What watches over a converted network when it runs: every layer is in its place, and branches share one grid."""

import threading
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import fx, nn

from ..errors import UsageError
from ..layers.base import Downsample
from .calls import Intercepted
from .owners import Antialiased, stride_of


class _PerThread(threading.local):
    """What belongs to the thread that wrote it, since several may use one network, and is not copied."""

    def __reduce__(self) -> tuple:
        return _PerThread, ()


class Link:
    """Hands the choice of a polyphase layer on to layers of other branches, once to each in a forward of ``home``."""

    def __init__(self, leader: Downsample, followers: Sequence[Downsample], home: nn.Module) -> None:
        self.readers, self.waiting, self.home = len(followers), _PerThread(), home
        home.register_forward_pre_hook(self._begin)
        home.register_forward_hook(self._end, always_call=True)
        leader.register_forward_pre_hook(self._choose)
        for follower in followers:
            follower.register_forward_pre_hook(self._follow)

    def __deepcopy__(self, memo: dict) -> "Link":
        """A part that is copied alone, as some tools do to replace it, goes on in the network of the other."""
        if id(self.home) not in memo:
            return self
        again = memo[id(self)] = object.__new__(Link)
        again.readers, again.waiting, again.home = self.readers, _PerThread(), memo[id(self.home)]
        return again

    def _begin(self, home: nn.Module, inputs: tuple) -> None:
        self.waiting.choice = None  # of an earlier forward, in which a branch did not run

    def _end(self, home: nn.Module, inputs: tuple, output: Any) -> None:
        del output  # at whose gradient a compiler would look
        self.waiting.choice = None  # also where it failed

    def _choose(self, leader: Downsample, inputs: tuple) -> tuple:
        choice = leader.choose(inputs[0])
        self.waiting.choice, self.waiting.readers, self.waiting.learning = choice, self.readers, torch.is_grad_enabled()
        return inputs[0], choice

    def _follow(self, follower: Downsample, inputs: tuple) -> tuple:
        choice = getattr(self.waiting, "choice", None)
        if choice is None:
            raise UsageError(
                "a branch samples the grid another one chooses, which has not run: call the whole network; where it is "
                "checkpointed, the checkpoint must hold the branch that chooses as well"
            )
        if choice.is_floating_point() and self.waiting.learning != torch.is_grad_enabled():
            raise UsageError(
                "of branches that share a learned choice, one runs in a checkpoint, or without gradients, another not: "
                "the choice would get a part of its gradient; checkpoint the whole block"
            )
        self.waiting.readers -= 1
        if not self.waiting.readers:  # what the choice was computed from may go
            self.waiting.choice = None
        return inputs[0], choice


class Place(NamedTuple):
    """Where a site lives, as names below one module: its owner, and the module that gave up its stride for it."""

    site: str
    owner: tuple[str, ...]
    dense: tuple[str, ...] | None


class Guard:
    """Before each forward: every owner is where it was, and what computes densely for it still does.

    A hook of all modules around the owners. Where an owner stands behind the activation, one of its own ``watches``
    both ends of the site.
    """

    def __init__(self, places: tuple[Place, ...], home: nn.Module | None = None) -> None:
        self.places, self.home, self.dense = places, home, _PerThread()

    def __deepcopy__(self, memo: dict) -> "Guard":
        """Of a part that is copied alone, as some tools do to replace it, it goes on watching for its network."""
        if self.home is not None and id(self.home) not in memo:
            return self
        return Guard(self.places, memo.get(id(self.home)))

    def __call__(self, module: nn.Module, inputs: tuple) -> None:
        """Raise ``UsageError`` if a layer was lost."""
        home = module if self.home is None else self.home
        for site, path, dense in self.places:
            owner, cut = _find(home, path)
            if isinstance(owner, Antialiased) and owner.site == site:
                if dense is None or _is_dense(_find(home, dense)[0]):
                    continue
            elif cut and (dense is None or _find(home, dense)[1]):
                continue
            raise UsageError(
                f"the downsampling layer of {site} lost its place: {'.'.join(path)}, a forward or the convolution in "
                "front was replaced or removed after antialias(); replace modules, fuse or re-parameterise first, "
                "then call antialias()"
            )

    def watch(self, home: nn.Module, is_root: bool, dense: nn.Module, owner: nn.Module) -> None:
        """Whenever ``home``, which holds both, runs, the owner runs behind what computes densely."""
        self.home = home
        home.register_forward_pre_hook(self._begin)
        # Not counted: tools that fuse hand the hook of a module to the one they make, whose copy of it has it already.
        for end, waits in ((dense, True), (owner, False)):
            end.register_forward_pre_hook(partial(self._pass, waits))
        dense.register_forward_hook(self._ran)
        home.register_forward_hook(self._end)
        home.register_forward_hook(partial(self._forget, False if is_root else None), always_call=True)

    def _begin(self, home: nn.Module, inputs: tuple) -> None:
        self.dense.waits, self.dense.ran = False, False

    def _pass(self, waits: bool, module: nn.Module, inputs: tuple) -> None:
        self(module, inputs)
        before = getattr(self.dense, "waits", None)  # None: a part is called alone, or again for its gradient
        if before is None or any(isinstance(x, fx.Proxy) for x in inputs):  # tracers go into some modules only
            return
        again, self.dense.waits = waits and self.dense.ran, waits
        if self.dense.ran:  # outside of the home it stays None
            self.dense.ran = False
        # A checkpoint runs a part again for its gradient, from where it was cut.
        if (again if waits else not before) and torch._C._current_graph_task_id() == -1:
            raise self._error()

    def _ran(self, dense: nn.Module, inputs: tuple, output: Any) -> None:
        """It must not run again before its owner has; ``None`` outside of the home, where a part may be called."""
        del output
        if getattr(self.dense, "ran", None) is not None:
            self.dense.ran = True

    def _end(self, home: nn.Module, inputs: tuple, output: Any) -> None:
        del output  # at whose gradient a compiler would look
        if self.dense.waits:
            raise self._error()

    def _forget(self, after: bool | None, home: nn.Module, inputs: tuple, output: Any) -> None:
        """Also where the forward failed."""
        del output
        self.dense.waits, self.dense.ran = after, None

    def _error(self) -> UsageError:
        site = self.places[0].site
        return UsageError(
            f"{site} and its downsampling layer did not run together, as they did when they were converted: a forward "
            f"does something else at this size or with these values, {site} was replaced, or a part was called alone; "
            "call the whole network, name it in skip, or convert with placement 'conv-then-pool'"
        )


def _find(home: nn.Module, path: tuple[str, ...]) -> tuple[nn.Module | None, bool]:
    """The module at ``path``, and whether it was cut away: an Identity in its place, or the end of a Sequential."""
    module = home
    for name in (None, *path):
        parent, child = module, module if name is None else module._modules.get(name)
        if child is None:
            return None, isinstance(parent, nn.Sequential)
        if isinstance(child, nn.Identity):
            return None, True
        if isinstance(child, (Antialiased, Intercepted)) and "forward" in vars(child):
            return None, False  # replaced by one that may know nothing of a layer
        module = child
    return module, False


def _is_dense(part: nn.Module | None) -> bool:
    return part is None or all(stride_of(module) == (1, 1) for module in part.modules())
