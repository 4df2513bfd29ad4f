"""A model in a folder that loads elsewhere: weights (safetensors), configuration (JSON) and its tokenizer.

| file | what it holds |
|---|---|
| `config.json` | the class of the model, its sizes and its settings |
| `model.safetensors` | its weights and buffers |
| `tokenizer.json` | the tokenizer of the library tokenizers, if it was given |

Nothing is unpickled: a folder from anywhere can do no more than fail to load. That is why this is not
huggingface_hub's mixin, which takes pickled weights where it finds no others. Its command line brings such folders to
the hub and back: `hf upload`, `hf download`.
"""

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, fields, is_dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar, get_type_hints, runtime_checkable

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import nn

from saccade._version import __version__
from saccade.errors import must_be, unknown
from saccade.shapes import Tensor

CONFIGURATION = "config.json"
WEIGHTS = "model.safetensors"
TOKENIZER = "tokenizer.json"


@runtime_checkable
class Tokenizer(Protocol):
    """A `tokenizers.Tokenizer`, or whatever writes itself as one."""

    def to_str(self) -> str:
        """The text of `tokenizer.json`."""
        ...


Model = TypeVar("Model", bound="Pretrained")


class Pretrained(nn.Module, ABC):
    """A model that is built from a few sizes and its settings, and so can be built again.

    Attributes:
        settings_class: the frozen dataclass of its settings.
        settings: an instance of it.
    """

    settings_class: ClassVar[type]
    settings: Any

    @property
    @abstractmethod
    def sizes(self) -> dict[str, int]:
        """The arguments beside the settings that it was built with, by name."""

    def save_pretrained(self, folder: str | Path, tokenizer: Tokenizer | None = None) -> None:
        """Write the model, and its tokenizer, into a folder from which `from_pretrained` reads them.

        Args:
            folder: made if it is not there. What it holds of these files is replaced, each whole or not at all.
            tokenizer: what makes the token ids that the model reads.

        Raises:
            OSError: they could not be written, as on a full disk.
        """
        folder = Path(folder)
        written_by = {"class": type(self).__name__, "saccade": __version__}
        configuration = written_by | {"sizes": self.sizes, "settings": asdict(self.settings)}
        # Each tensor on its own, as parts may share one.
        weights = {name: weight.detach().cpu().clone().contiguous() for name, weight in self.state_dict().items()}
        folder.mkdir(parents=True, exist_ok=True)
        _write(folder / WEIGHTS, save(weights))
        _write(folder / CONFIGURATION, json.dumps(configuration, indent=1).encode())
        if tokenizer is not None:
            _write(folder / TOKENIZER, tokenizer.to_str().encode())

    @classmethod
    def from_pretrained(cls: type[Model], folder: str | Path) -> Model:
        """The model that `save_pretrained` wrote into a folder, in evaluation mode on the CPU.

        Raises:
            FileNotFoundError: there is none; the message names the file that is missing.
            ValueError: another class of model, or a file that is damaged or does not fit the other.
        """
        folder = Path(folder)
        model = _built(cls, folder / CONFIGURATION)
        path = folder / WEIGHTS
        try:
            weights = load(_read(path))
        except SafetensorError as error:
            raise ValueError(f"{path} must be weights in the format safetensors, whole: {error}") from error
        _refuse_others(path, weights, model.state_dict())
        model.load_state_dict(weights)
        return model.eval()


def tokenizer_of(folder: str | Path) -> Any:
    """The `tokenizers.Tokenizer` that was saved with a model.

    Raises:
        FileNotFoundError: the model was saved without one.
        ValueError: the file is damaged.
    """
    from tokenizers import Tokenizer as Library  # not above: models do not need it

    path = Path(folder) / TOKENIZER
    text = _read(path)
    try:
        return Library.from_buffer(text)
    except Exception as error:  # the library has no class of its own for it
        raise ValueError(f"{path} must be a tokenizer of the library tokenizers: {error}") from error


def _built(cls: type[Pretrained], path: Path) -> Any:
    """The model that a configuration describes, with weights that are still random."""
    try:
        configuration = json.loads(_read(path))
        name, sizes, settings = (configuration[key] for key in ("class", "sizes", "settings"))
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} must be the configuration of a saved model: {error!r}") from error
    if name != cls.__name__:
        raise ValueError(f"{path}: {must_be('class', cls.__name__, name)}; load it as what it is")
    try:
        return cls(**sizes, settings=_settings(cls.settings_class, settings))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path} must be the configuration of a {name}: {error}") from error


def _settings(kind: type, values: Mapping[str, Any]) -> Any:
    known = [each.name for each in fields(kind)]
    for name in values:
        if name not in known:
            raise ValueError(unknown("setting", name, known))
    kinds = get_type_hints(kind)
    return kind(**{name: _setting(kinds[name], value) for name, value in values.items()})


def _setting(kind: Any, value: Any) -> Any:
    """One setting as it was before it was written."""
    if is_dataclass(kind) and isinstance(kind, type):
        return _settings(kind, value)
    return tuple(value) if isinstance(value, list) else value


def _refuse_others(path: Path, found: Mapping[str, Tensor], asked: Mapping[str, Tensor]) -> None:
    """Refuse weights that are not those of this model."""
    for name in asked:
        if name not in found:
            raise ValueError(f"{path} must be the weights of the model that is configured: {name} is missing")
        if found[name].shape != asked[name].shape:
            raise ValueError(
                f"{path}: {must_be(name, f'of shape {tuple(asked[name].shape)}', tuple(found[name].shape))}"
            )
    if extra := sorted(set(found) - set(asked)):
        raise ValueError(f"{path} must be the weights of the model that is configured: it has no {extra[0]}")


def _read(path: Path) -> bytes:
    if not path.is_file():
        raise FileNotFoundError(f"no saved model in {path.parent}: {path.name} is missing")
    return path.read_bytes()


def _write(path: Path, content: bytes) -> None:
    """Write a file whole, or not at all."""
    partial = path.with_name(f"{path.name}.partial")
    try:
        partial.write_bytes(content)
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise OSError(f"could not write {path}: {error.strerror or error}") from error
