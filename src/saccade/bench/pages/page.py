"""The text of a mechanism's page: Markdown, the same on every machine."""

from dataclasses import MISSING, fields

import torch

from saccade.attention import MECHANISMS, AttentionLayer, Mechanism
from saccade.bench.cost import cost
from saccade.bench.cost_report import human
from saccade.bench.pages.examples import example
from saccade.bench.pages.passage import HEADS, LENGTH
from saccade.bench.pages.sections import Explained, explained
from saccade.claims import Claims

LENGTHS = (1024, 4096, 16384)
NOTE = "Made by `make docs` from the code: to change a page, change what it is made of."


def page(name: str) -> str:
    """The page of one mechanism.

    Raises:
        ValueError: its docstring lacks a section, or does not explain an option; the message names it.
    """
    spec, told = read_spec(name)
    shown = example(name, LENGTH)
    parts = [
        f"# {name}",
        told.summary,
        f"![weights of {_alt(shown)}]({name}.png)",
        f"*{caption(shown)}*",
        f"## Formula\n\n```text\n{told.sections['Formula']}\n```",
        f"## Cost\n\n{told.sections['Cost']}",
        _costtable(spec),
        f"## When to use it\n\n{told.sections['Use it']}",
        f"## When to leave it\n\n{told.sections['Leave it']}",
        f"## In code\n\n{_usage(spec)}",
        *([f"## Options\n\n{_options(spec, told)}"] if told.attributes else []),
        f"## What it promises\n\n{_claims(spec)}",
        f"## Source\n\n{told.sections['Source']}",
        f"---\n\n[All mechanisms](README.md). {NOTE}",
    ]
    return "\n\n".join(parts) + "\n"


def caption(spec: Mechanism) -> str:
    """What one sees in its picture."""
    seen = f"Two heads of a small trained classifier, reading {LENGTH} bytes of source code"
    how = "Queries go down, keys across; the darker, the more of its query's weight a key has."
    if spec.name == "full":
        return f"{seen}. {how}"
    both = f"full attention on the left, `{spec}` with the same queries and keys on the right"
    return " ".join([f"{seen}: {both}. {how}", *_remarks(spec)])


def _remarks(spec: Mechanism) -> list[str]:
    """What has to be known to read its picture."""
    claims, found = spec.claims, []
    if claims.exact:
        found.append("Keys that it keeps share the weight of those that it hides.")
    if claims.shared_qk:
        found.append("It takes the queries for keys as well, which this model was not trained for.")
    if _learns(spec):
        found.append("What it learns by itself is as it starts out, before any training.")
    if _mixes_values(spec):
        found.append("Its values are sums of several tokens': what such a sum gets, they are drawn to share equally.")
    elif not claims.normalised:
        found.append("Negative weights, where there are any, are orange.")
    return found


def _learns(spec: Mechanism) -> bool:
    return bool(_layer(spec).state_dict())


def _mixes_values(spec: Mechanism) -> bool:
    """Whether its weights are those of another layer, which does not mix the numbers of a value."""
    layer = _layer(spec)
    return layer.for_weights() is not layer


def _layer(spec: Mechanism) -> AttentionLayer:
    with torch.device("meta"):
        return spec.build(HEADS, 16)


def read_spec(name: str) -> tuple[Mechanism, Explained]:
    """A mechanism of THE LIST with default options, and what it says of itself."""
    kind = MECHANISMS[name]
    options = tuple(field.name for field in fields(kind))  # pyright: ignore[reportArgumentType]
    return kind(), explained(kind, attributes=options)


def _alt(spec: Mechanism) -> str:
    return "full attention" if spec.name == "full" else f"full attention and of {spec}"


def _costtable(spec: Mechanism) -> str:
    """Operations at some lengths, next to those of full attention; and which lengths are refused."""
    forms = [False, True] if spec.claims.causal else [False]
    head, rows, refused = ["tokens"], [], []
    for causal in forms:
        head += [f"operations{', causal' * causal}", f"next to full{', causal' * causal}"]
    for n in LENGTHS:
        try:
            rows.append([f"{n:,}", *(cell for causal in forms for cell in _operations(spec, n, causal))])
        except ValueError as error:
            refused.append(f"At {n:,} tokens it refuses: {error}.")
    above = "Operations that a forward pass carries out, for one example with 8 heads of 64 and default options:"
    return "\n\n".join([above, table(head, rows), *refused])


def _operations(spec: Mechanism, n: int, causal: bool) -> list[str]:
    own = cost(spec, n, causal=causal).computed
    return [human(own).strip(), percent(own / cost("full", n, causal=causal).computed)]


def percent(share: float) -> str:
    """A share as a percentage, with a decimal where it is small."""
    return f"{share:.1%}" if share < 0.1 else f"{share:.0%}"


def _usage(spec: Mechanism) -> str:
    """How to name it, with and without an option."""
    option = next(iter(fields(spec)), None)  # pyright: ignore[reportArgumentType] - mechanisms are dataclasses
    text = "" if option is None else f"{spec.name}({option.name}={getattr(spec, option.name)!r})"
    with_option = f"  # or {text!r}" if text else ""
    return (
        "```python\nfrom saccade.nn import Encoder\n\n"
        f'encoder = Encoder(width=512, heads=8, layers=6, mechanism="{spec.name}"){with_option}\n```\n\n'
        f"```\nsaccade show {spec.name}                   # who looks at whom\n"
        f"saccade bench {spec.name}                  # how fast is it on this machine?\n"
        f"saccade compare --mechanisms {spec.name}   # how good? --data names your own\n```"
    )


def _options(spec: Mechanism, told: Explained) -> str:
    rows = [[f"`{name}`", f"`{_default(spec, name)}`", text] for name, text in told.attributes.items()]
    return table(["option", "default", "meaning"], rows)


def _default(spec: Mechanism, name: str) -> str:
    (field,) = (each for each in fields(spec) if each.name == name)  # pyright: ignore[reportArgumentType]
    return repr(getattr(spec, name) if field.default is MISSING else field.default)


def _claims(spec: Mechanism) -> str:
    """What is claimed, and what each claim means."""
    meanings = explained(Claims, wanted=()).attributes
    values = {name: getattr(spec.claims, name) for name in meanings}
    shown = {True: "yes", False: "no", "": "none"}
    rows = [[f"`{name}`", shown.get(values[name], values[name]), meaning] for name, meaning in meanings.items()]
    above = "With default options. Each promise is checked by the tests, and what is not promised may still hold."
    return f"{above}\n\n{table(['promise', '', 'means'], rows)}\n\n{_extra(spec)}"


def _extra(spec: Mechanism) -> str:
    try:
        spec.behind(1)
    except ValueError:
        return "The encoder's `extra_tokens` cannot be put in front of it."
    return "The encoder's `extra_tokens` can be put in front of it: global tokens that all see and that see all."


def table(head: list[str], rows: list[list[str]]) -> str:
    """A table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
