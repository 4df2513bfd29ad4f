"""This process among those that train together, and the device it uses."""

import torch
from accelerate import PartialState
from accelerate.utils import parse_flag_from_env


def on_cpu() -> bool:
    """Whether to stay on the CPU: there is nothing else, or `ACCELERATE_USE_CPU=1` asks for it."""
    return parse_flag_from_env("ACCELERATE_USE_CPU") or not torch.accelerator.is_available()


def process_state() -> PartialState:
    """The number of this process, of all of them (see torchrun), and the device of this one."""
    return PartialState(cpu=on_cpu())
