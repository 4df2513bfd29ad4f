"""What the numbers of a measurement belong to: the machine and the versions."""

import os
import platform
import subprocess
import sys
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
        "system": f"{platform.system()} {platform.machine()}",
    }


def place() -> str:
    """The machine in words."""
    host = machine()
    words = f"{host['cpu']}, {host['cores']} cores, torch threads: {host['torch_threads']}"
    return f"{words}, {host['gpu']}" if host["gpu"] else words


def versions() -> dict[str, str]:
    """The versions that the numbers belong to."""
    return {"python": platform.python_version(), "torch": torch.__version__, "saccade": __version__}


def commit() -> str | None:
    """The commit of this package, with a plus where files have changed since; `None` outside a checkout of it."""
    changed = _git("status", "--porcelain", "--", ".")
    # A checkout around an installed package is somebody else's.
    if changed is None or not _git("ls-files", "--", "machine.py"):
        return None
    head = _git("rev-parse", "--short=12", "HEAD")
    return f"{head}+" if changed and head else head


def total_memory() -> int | None:
    """Bytes of memory of this machine; `None` where the system does not tell."""
    return _memory("MemTotal:")


def free_memory() -> int | None:
    """Bytes that can still be taken on this machine; `None` where the system does not tell."""
    return _memory("MemAvailable:")


def peak_memory() -> int | None:
    """The most bytes that this process has held: of the GPU, if it used one; `None` where the system does not tell."""
    if torch.cuda.is_available() and (held := torch.cuda.max_memory_allocated()):
        return held
    if sys.platform == "win32":
        return None
    import resource  # there is none on Windows

    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _memory(name: str) -> int | None:
    meminfo = Path("/proc/meminfo")
    lines = meminfo.read_text(encoding="utf-8").splitlines() if meminfo.is_file() else []
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith(name)), None)


def _git(*arguments: str) -> str | None:
    """What git prints in the folder of the package; `None` without git, or outside a checkout."""
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=Path(__file__).parent, capture_output=True, text=True, check=False
        )
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _cpu_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.is_file() else []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or platform.machine()
