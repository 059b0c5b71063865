"""What all tests share: one thread each (there is a worker per core), and no window for figures."""

import os

# Before torch and its thread pool are imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "agg")

import torch

torch.set_num_threads(1)
