"""TensorBoard, through the tracker that accelerate has: what `log.jsonl` says, as curves."""

from importlib.util import find_spec

from accelerate import Accelerator

_FOLDER = "tensorboard"


def refuse_without_tensorboard() -> None:
    """Refuse to begin where the package is missing.

    Raises:
        ModuleNotFoundError: the message says what to install.
    """
    if find_spec("tensorboard") is None:
        reason = "training.tensorboard needs tensorboard: pip install 'saccade[tensorboard]'"
        raise ModuleNotFoundError(reason, name="tensorboard")


def begin_tensorboard(accelerator: Accelerator, step: int) -> None:
    """Let `accelerator.log` write into the folder `tensorboard` of the run.

    Args:
        accelerator: with that tracker and the run as its project.
        step: what is done; curves of a later step, which a resumed run does again, are hidden.
    """
    accelerator.init_trackers(_FOLDER, init_kwargs={"tensorboard": {"purge_step": step + 1}})
