"""How a Transformer learns where a token stands: one file a method, found by name in `POSITIONS`.

`POSITIONS` is the list. A new method is one new file and one line here.
"""

from saccade.errors import unknown
from saccade.nn.positions.alibi import ALiBi
from saccade.nn.positions.carried import carried, check_carried
from saccade.nn.positions.flow import Flow
from saccade.nn.positions.learned import Learned
from saccade.nn.positions.none import NoPosition
from saccade.nn.positions.position import Position
from saccade.nn.positions.recurrent import Recurrent
from saccade.nn.positions.rotary import Rotary
from saccade.nn.positions.sinusoidal import Sinusoidal, sinusoids

__all__ = [
    "POSITIONS",
    "ALiBi",
    "Flow",
    "Learned",
    "NoPosition",
    "Position",
    "Recurrent",
    "Rotary",
    "Sinusoidal",
    "carried",
    "check_carried",
    "sinusoids",
    "to_position",
]

POSITIONS: dict[str, type[Position]] = {
    "sinusoidal": Sinusoidal,
    "learned": Learned,
    "recurrent": Recurrent,
    "flow": Flow,
    "rotary": Rotary,
    "alibi": ALiBi,
    "none": NoPosition,
}


def to_position(name: str, width: int, max_length: int) -> Position:
    """The method of that name.

    Args:
        name: of `POSITIONS`.
        width: the model width.
        max_length: the longest input that has to work.

    Raises:
        ValueError: an unknown name, or a length that the method cannot be built for.
        ModuleNotFoundError: it needs a library that is not installed; the message says how to install it.
    """
    if name not in POSITIONS:
        raise ValueError(unknown("position", name, POSITIONS))
    return POSITIONS[name](width, max_length)
