"""Position methods side by side: what each says of a position, and what it makes of a distance."""

from saccade.bench.positions.figure import positions_figure
from saccade.bench.positions.terminal import draw_positions
from saccade.bench.positions.views import PositionView, Views, look_at_positions

__all__ = ["PositionView", "Views", "draw_positions", "look_at_positions", "positions_figure"]
