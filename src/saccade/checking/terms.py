"""What a target has to keep: the promises its signature and its claims make."""

from collections.abc import Callable
from dataclasses import dataclass

from saccade.claims import Claims


@dataclass(frozen=True)
class Terms:
    """What is promised, and why not where it is not.

    Attributes:
        causal: the settings of `causal` to check with; True is among them where causality is promised.
        any_mask: whether masks may have holes and left padding.
        cross: whether queries and keys may have different lengths.
        missing: for each promise that is not made (`"key_mask"`, `"causal"`, `"any_length"`), the reason.
    """

    causal: tuple[bool, ...]
    any_mask: bool
    cross: bool
    missing: dict[str, str]


def read_terms(takes: Callable[[str], bool], claims: Claims | None, causal: bool | None) -> Terms:
    """The terms of one check.

    Args:
        takes: whether the target takes `"key_mask"` or `"causal"`.
        claims: if given, what is not claimed is not checked; else all that the signature allows is.
        causal: True says that the target is always causal, False that causality is not its business.
    """
    missing = {}
    if not takes("key_mask"):
        missing["key_mask"] = "the signature takes no key_mask"
    if causal is False:
        missing["causal"] = "checked with causal=False"
    elif claims is not None and not claims.causal:
        missing["causal"] = "its claims do not name causal"
    elif causal is None and not takes("causal"):
        missing["causal"] = "the signature takes no causal"
    if claims is not None and not claims.any_length:
        missing["any_length"] = "its claims do not name any_length"
    if "causal" in missing:
        settings = (False,)
    else:
        settings = (True,) if causal else (False, True)
    return Terms(
        causal=settings,
        any_mask=claims is None or claims.any_mask,
        cross=claims is not None and claims.cross,
        missing=missing,
    )
