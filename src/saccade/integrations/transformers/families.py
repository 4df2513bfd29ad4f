"""Which model classes of transformers attend by the function of a name, and which go their own way.

transformers accepts any registered name in any model, also in one that computes its attention by itself or has none:
the name then does nothing, and the mask of the name, made for an attention that is never called, is all that is left.
So a class is judged by the module that it is written in: only one that has transformers' registry there can call it.
"""

import sys
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from torch import nn
from transformers import PreTrainedModel
from transformers.backbone_utils import BackboneMixin
from transformers.models.auto.auto_factory import _BaseAutoModelClass

from saccade.errors import must_be

REGISTRY = "ALL_ATTENTION_FUNCTIONS"

ALLOWED = (
    "one that calls transformers' attention functions, or a part of it that does, as in attn_implementation="
    "{'text_config': 'saccade:...'}"
)


def refuse_family(kind: type[PreTrainedModel], name: str) -> None:
    """Refuse a model class in which a name of ours would be ignored.

    Raises:
        ValueError: the message names the class and says why.
    """
    if reason := own_way(kind):
        raise ValueError(must_be(f"model for {name}", ALLOWED, f"{kind.__name__}, which {reason}"))


@lru_cache(maxsize=1024)
def own_way(kind: type[PreTrainedModel]) -> str:
    """Why a class does not attend by a registered function; empty where it does, or leaves it to models within it."""
    written = list(_written_in(kind))
    if any(_looks_up(names) for names in written):
        return "looks its attention up in a table of its own"
    if any(REGISTRY in names for names in written):
        return ""
    if own := [name for names in written for name in _attentions(names)]:
        return f"computes its attention by itself, in {own[0]}"
    parts = any(_holds_others(names) for names in written) or issubclass(kind, BackboneMixin)
    return "" if parts else "has no attention"


def _written_in(kind: type) -> Iterator[dict[str, Any]]:
    """The names in the modules of a class and of its bases, which a subclass of one's own leaves as they are."""
    bases = [base for base in kind.__mro__ if issubclass(base, PreTrainedModel) and base is not PreTrainedModel]
    for module in dict.fromkeys(base.__module__ for base in bases):
        yield vars(sys.modules[module]) if module in sys.modules else {}


def _looks_up(names: dict[str, Any]) -> bool:
    """Whether there is a table from names of attentions to classes, as models had before there was a registry."""
    return any(name.endswith("ATTENTION_CLASSES") and isinstance(table, dict) for name, table in names.items())


def _attentions(names: dict[str, Any]) -> Iterator[str]:
    """Modules that attend, written there."""
    for name, each in names.items():
        here = isinstance(each, type) and issubclass(each, nn.Module) and each.__module__ == names["__name__"]
        if here and "Attention" in name and not issubclass(each, PreTrainedModel):
            yield name


def _holds_others(names: dict[str, Any]) -> bool:
    """Whether models of other modules are at hand there: each is judged by itself when it is made."""
    if "load_backbone" in names:
        return True
    here = names["__name__"], PreTrainedModel.__module__
    models = [each for each in names.values() if isinstance(each, type)]
    return any(
        issubclass(each, (PreTrainedModel, _BaseAutoModelClass)) and each.__module__ not in here for each in models
    )
