"""What the settings of a model can be: refused before the data is read, long before the parts would refuse them."""

from typing import Any

from saccade.attention import Mechanism, to_mechanism
from saccade.errors import must_be, unknown
from saccade.nn import NORMS, POSITIONS
from saccade.nn.positions import check_carried
from saccade.nn.stack import ACTIVATIONS, PLACES


def check_sizes(settings: Any, *names: str) -> None:
    """Refuse sizes, a share of dropout or names that cannot be.

    Args:
        settings: a dataclass with `width`, `heads`, `dropout`, `position`, `norm`, `normalisation` and, where there is
            a choice, `activation`.
        names: of its fields, those that must be at least 1.

    Raises:
        ValueError: the message names the field.
    """
    for name in names:
        if getattr(settings, name) < 1:
            raise ValueError(must_be(name, "at least 1", getattr(settings, name)))
    if settings.width % settings.heads:
        raise ValueError(must_be("width", f"a multiple of the {settings.heads} heads", settings.width))
    if not 0 <= settings.dropout < 1:
        raise ValueError(must_be("dropout", "at least 0 and below 1", settings.dropout))
    known = {"position": POSITIONS, "norm": PLACES, "activation": ACTIVATIONS, "normalisation": NORMS}
    chosen = vars(settings)
    for name, options in known.items():
        if name in chosen and chosen[name] not in options:
            raise ValueError(unknown(name, chosen[name], options))


def mechanisms_of(name: str, chosen: str | tuple[str, ...], layers: int) -> tuple[Mechanism, ...]:
    """The mechanism of each layer.

    Args:
        name: the field.
        chosen: one for all, or one for each.
        layers: how many there are.

    Raises:
        ValueError: another number of them, or one that is unknown.
    """
    if isinstance(chosen, str):
        return (to_mechanism(chosen),) * layers
    if len(chosen) != layers:
        raise ValueError(must_be(name, f"one, or one for each of the {layers} layers", list(chosen)))
    return tuple(map(to_mechanism, chosen))


def check_placed(position: str, *mechanisms: Mechanism) -> None:
    """Refuse a mechanism that cannot do what a position asks of it.

    Raises:
        ValueError: the message says what would work.
    """
    for each in mechanisms:
        check_carried(POSITIONS[position], each)


def refuse_not_causal(name: str, mechanisms: tuple[Mechanism, ...]) -> None:
    """Refuse a mechanism that cannot hide later tokens, of which a model that writes must know nothing.

    Raises:
        ValueError: it does not claim `causal`.
    """
    for each in mechanisms:
        if not each.claims.causal:
            raise ValueError(must_be(name, "one that claims causality: its outputs depend on later tokens", str(each)))


def most_positions(settings: Any) -> int | None:
    """The tokens of the longest sequence for which a model has positions; `None` where there is no such limit.

    Args:
        settings: a dataclass with `position`, `max_length` and, where there is a choice, `network`.
    """
    learned = settings.position == "learned" and getattr(settings, "network", "transformer") == "transformer"
    return settings.max_length if learned else None


def check_longest(name: str, settings: Any, longest: int) -> None:
    """Refuse data that a table of learned positions does not reach to the end of, before anything is trained.

    Args:
        name: of the settings.
        settings: as `most_positions` reads them.
        longest: the tokens of the longest sequence that is trained on or scored.

    Raises:
        ValueError: it is longer than the table.
    """
    limit = most_positions(settings)
    if limit is not None and longest > limit:
        constraint = f"at least {longest}, the tokens of the longest sequence, as positions are learned"
        raise ValueError(must_be(f"{name}.max_length", constraint, limit))
