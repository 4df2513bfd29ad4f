"""No positions: a baseline, and right for attention that knows places by itself."""

from saccade.nn.positions.position import Position


class NoPosition(Position):
    """No positions: the model sees a bag of tokens, unless the mechanism itself knows places."""

    def __init__(self, width: int, max_length: int) -> None:
        super().__init__()
