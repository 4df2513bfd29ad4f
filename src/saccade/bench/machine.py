"""What the numbers of a measurement belong to: the machine and the versions."""

import os
import platform
from pathlib import Path

import torch

from saccade._version import __version__


def machine() -> dict[str, str | int | None]:
    """The machine that the numbers belong to."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "cpu": _cpu_name(),
        "cores": cores,
        "torch_threads": torch.get_num_threads(),
        "gpu": gpu,
        "system": platform.platform(terse=True),
    }


def place() -> str:
    """The machine in words."""
    host = machine()
    words = f"{host['cpu']}, {host['cores']} cores, torch threads: {host['torch_threads']}"
    return f"{words}, {host['gpu']}" if host["gpu"] else words


def versions() -> dict[str, str]:
    """The versions that the numbers belong to."""
    return {"python": platform.python_version(), "torch": torch.__version__, "saccade": __version__}


def free_memory() -> int | None:
    """Bytes that can still be taken on this machine; `None` where the system does not tell."""
    meminfo = Path("/proc/meminfo")
    lines = meminfo.read_text(encoding="utf-8").splitlines() if meminfo.is_file() else []
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")), None)


def _cpu_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.is_file() else []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or platform.machine()
