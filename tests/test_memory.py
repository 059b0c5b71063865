"""Freed memory stays with the process."""

import platform
import subprocess
import sys

import pytest

FAULTS = """
import resource, sys
import torch
from aliasing.memory import keep_freed
if sys.argv[1] == "kept":
    keep_freed()
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for turn in range(40):  # of 64 MiB
    torch.ones(2**24)
    if turn == 19:  # until here the heap grows, as glibc sees no room for an aligned tensor where one was
        before = faults()
print(faults() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a word to glibc")
def test_a_tensor_gets_the_memory_of_the_last_one():
    given_back, kept = (
        int(subprocess.run([sys.executable, "-c", FAULTS, how], capture_output=True, text=True, check=True).stdout)
        for how in ("given back", "kept")
    )
    assert given_back > 100 * max(kept, 1)
