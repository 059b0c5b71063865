"""What every benchmark reports beside its rows: the machine, versions, date, the number of turns."""

import platform
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from aliasing.records import code_version

__all__ = ["report", "surroundings"]


def surroundings(device: str, repeats: int) -> dict[str, Any]:
    """What a measured time depends on besides the code."""
    return {
        "device": torch.cuda.get_device_name(device) if device.startswith("cuda") else _processor(),
        "threads": torch.get_num_threads(),
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "code": code_version(),
        "date": datetime.now(UTC).date().isoformat(),
        "repeats": repeats,
    }


def report(frame: pd.DataFrame) -> dict[str, object]:
    """The whole measurement as plain values for JSON."""
    return {**frame.attrs, "rows": frame.to_dict("records")}


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
