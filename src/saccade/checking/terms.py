"""What a target has to keep: the promises its signature and its claims make."""

from collections.abc import Callable
from dataclasses import dataclass

from saccade.claims import Claims


class NotClaimed(Exception):  # noqa: N818 - not an error: what a probe found out is that it has nothing to check
    """The target turns out not to promise what a probe checks. The message is the reason."""


@dataclass(frozen=True)
class Terms:
    """What is promised, and why not where it is not.

    Attributes:
        causal: the settings of `causal` to check with; True is among them where causality is promised.
        any_mask: whether masks may have holes and left padding.
        cross: whether queries and keys may have different lengths.
        guessed: whether there are no claims, so that what the target promises is read from its signature.
        missing: for each promise that is not made (a name of `needs` in `saccade.claims.PROBES`), the reason.
    """

    causal: tuple[bool, ...]
    any_mask: bool
    cross: bool
    guessed: bool
    missing: dict[str, str]


def read_terms(
    on: str, takes: Callable[[str], bool], cannot_stream: str, claims: Claims | None, causal: bool | None
) -> Terms:
    """The terms of one check.

    Args:
        on: `"qkv"` or `"x"`.
        takes: whether the target takes `"key_mask"`, `"causal"`, `"q_start"` or `"context"`.
        cannot_stream: why it cannot decode token by token; empty if it can.
        claims: if given, what is not claimed is not checked; else all that the signature allows is.
        causal: True says that the target is always causal, False that causality is not its business.
    """
    missing = {"streaming": cannot_stream} if cannot_stream and claims is None else {}
    causal = True if causal is None and claims is not None and claims.causal_only else causal
    if claims is None:
        missing["exportable"] = "it has no claims, which alone could name exportable"
    else:
        named = ("causal", "any_length", "unordered", "streaming", "normalised", "exportable")
        missing = {name: f"its claims do not name {name}" for name in named if not getattr(claims, name)}
    if not takes("key_mask"):
        missing["key_mask"] = "the signature takes no key_mask"
    if on == "x":
        missing["normalised"] = "weights can be seen on q, k and v only"
    missing |= _without_causality(takes, causal, missing)
    missing |= _without_chunks(on, takes, claims, "causal" in missing)
    return Terms(
        causal=_settings("causal" in missing, causal),
        any_mask=claims is None or claims.any_mask,
        cross=claims is not None and claims.cross,
        guessed=claims is None,
        missing=missing,
    )


def _without_causality(takes: Callable[[str], bool], causal: bool | None, missing: dict[str, str]) -> dict[str, str]:
    """What cannot be asked of a target that is never, or always, causal."""
    if causal is False:
        return dict.fromkeys(("causal", "streaming"), "checked with causal=False")
    if "causal" in missing:
        return {}
    if causal:
        return {"unordered": "it is always causal"}
    return {} if takes("causal") else {"causal": "the signature takes no causal"}


def _without_chunks(on: str, takes: Callable[[str], bool], claims: Claims | None, never_causal: bool) -> dict[str, str]:
    """Why queries cannot be computed in chunks, if they cannot."""
    for name in ("q_start",) if on == "qkv" else ("q_start", "context"):
        if not takes(name):
            return {"q_start": f"the signature takes no {name}"}
    if claims is not None and not claims.cross and never_causal:
        return {"q_start": "its claims name neither causal nor cross"}
    return {}


def _settings(never: bool, causal: bool | None) -> tuple[bool, ...]:
    """With which values of `causal` to call."""
    if never:
        return (False,)
    return (True,) if causal else (False, True)
