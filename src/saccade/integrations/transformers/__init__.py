"""Mechanisms of Saccade in models of transformers (Hugging Face): by name, or in place of a model's own attention.

```python
import saccade.integrations.transformers
model = GPT2LMHeadModel.from_pretrained(path, attn_implementation="saccade:local(left=64)")
```

Importing this registers every mechanism without parameters as `saccade:NAME`, for attention and for masks alike.
`replace_attention` puts one with parameters into a model. docs/transformers.md is the guide.
"""

try:
    import transformers as _transformers  # noqa: F401 - only whether it is there
except ModuleNotFoundError as error:
    reason = "saccade.integrations.transformers needs transformers: pip install 'saccade[hf]'"
    raise ModuleNotFoundError(reason, name=error.name) from error

from saccade.integrations.transformers.names import register, register_all, register_what_is_asked_for
from saccade.integrations.transformers.replace import Replacement, Report, replace_attention

__all__ = ["Replacement", "Report", "register", "replace_attention"]

register_all()
register_what_is_asked_for()
