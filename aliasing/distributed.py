"""One training in several processes, on PyTorch's distributed engine; in a single process nothing here does anything.

``torchrun`` starts the processes, tells each its rank, and starts them again if one dies. Every process works on its
share of every batch; gradients are averaged, and on GPUs batch statistics are those of the whole batch.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from .errors import UsageError

PATIENCE = timedelta(days=30)  # a process that has measured its share waits for the others, however long they take


class World(NamedTuple):
    """The processes that train together, and which of them this one is: ``rank`` from 0 to ``size - 1``."""

    rank: int = 0
    size: int = 1

    def sum(self, values: Tensor) -> Tensor:
        """The sum of ``values`` over all processes."""
        if self.size > 1:
            values = values.clone()
            dist.all_reduce(values)
        return values

    def first(self, value: Any) -> Any:
        """The ``value`` that the process of rank 0 has."""
        box = [value]
        if self.size > 1:
            dist.broadcast_object_list(box, device=torch.device("cpu"))
        return box[0]

    def all(self, value: Any) -> list[Any]:
        """The ``value`` of every process, by rank, after all have come this far."""
        values = [value] * self.size
        if self.size > 1:
            group = dist.new_group(backend="gloo", timeout=PATIENCE)
            dist.all_gather_object(values, value, group)
            dist.destroy_process_group(group)
        return values


def launched() -> bool:
    """Whether ``torchrun`` started this process."""
    return dist.is_available() and dist.is_torchelastic_launched()


def world() -> World:
    """The processes that have ``joined``; this one alone if it has not."""
    if not (dist.is_available() and dist.is_initialized()):
        return World()
    return World(dist.get_rank(), dist.get_world_size())


def cores() -> int:
    """Processes that may work for this one: the cores of the machine, shared with those that ``torchrun`` started."""
    there = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, there // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def device_of_process(device: torch.device) -> torch.device:
    """The device this process of ``torchrun`` works on: the CPU, or the GPU that has its number on this machine.

    Raises:
        UsageError: another device, or more processes than GPUs.
    """
    if device.type == "cpu":
        return device
    if device.type != "cuda" or device.index is not None:
        raise UsageError(
            f"torchrun gives each process a GPU of its own: expected --device cuda or cpu, got {str(device)!r}"
        )
    local, there = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
    if local >= there:
        raise UsageError(f"process {local + 1} of this machine has no GPU: there are {there}; lower --nproc-per-node")
    return torch.device("cuda", local)


@contextmanager
def joined(device: torch.device) -> Iterator[World]:
    """Meet the other processes that ``torchrun`` started; messages between them take the way ``device`` has."""
    if device.type == "cuda":
        torch.cuda.set_device(device)
    store, rank, size = next(dist.rendezvous("env://"))
    if os.environ.get("LOCAL_WORLD_SIZE") == str(size):
        # On one machine, processes that are started again find the store of those before them, with dead addresses.
        store = dist.PrefixStore(f"life {os.environ['TORCHELASTIC_RESTART_COUNT']}", store)
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, store=store, rank=rank, world_size=size)
    yield world()
    dist.destroy_process_group()  # not after an error, when the others may be waiting for what never comes


def shared(network: nn.Module, device: torch.device) -> nn.Module:
    """``network`` as it is trained: itself, or by several processes with common gradients.

    On GPUs batch statistics are common, too (in place). PyTorch has no such normalisation for the CPU, where the
    running statistics of rank 0 are everybody's.
    """
    if world().size == 1:
        return network
    if device.type == "cuda":
        network = nn.SyncBatchNorm.convert_sync_batchnorm(network)
        return DistributedDataParallel(network, [device], broadcast_buffers=False)
    return DistributedDataParallel(network)
