"""What a process does with the memory of large tensors that it has freed."""

import ctypes
import platform

# Of malloc.h. By default blocks of 32 MiB and more go back at once, and so does what is free at the end of the heap.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3


def keep_freed() -> None:
    """Keep freed memory for the next tensors, from now on and in the whole process, which stays as large as it was.

    Given back to the system it returns page by page, each cleared first: a third of the time of fine-tuning
    EfficientNet-Lite0 on 32 windows a step. Heeded where the C library is glibc; others have no such word.
    """
    if platform.libc_ver()[0] == "glibc":
        for parameter in (_TRIM_THRESHOLD, _MMAP_THRESHOLD):
            ctypes.CDLL(None).mallopt(parameter, 2**31 - 1)
