"""The target as a probe sees it: in one mode, called on copies, its answers float64 on the CPU."""

from collections.abc import Callable, Sequence

import torch

from saccade.checking.calling import Format, Options, TargetFailure, call, prepared, ready, told
from saccade.checking.draws import Inputs, between, extended, first, masks
from saccade.checking.exported import exported
from saccade.checking.fit import accepts
from saccade.checking.stream import Stream
from saccade.checking.target import CODE_FAILED, Forward, Target, describe
from saccade.checking.terms import Terms
from saccade.shapes import Bool, Float, Tensor

Answers = Callable[[Inputs, Bool[Tensor, "b n"] | None, bool], Tensor]


class Subject:
    """One target in evaluation or in training mode.

    Calling it gives the output. torch's global generator has the same seed before every call, so that dropout
    and other draws are the same for inputs of the same shape. One copy of a module serves all calls, unless a
    call changes the ones after it (a mechanism that goes dense after a short input, say): then each call
    gets a copy of its own, so that only the probes that look for this defect find it. Which lengths a plain call in
    evaluation accepts, as far as it is known, the subjects of one target share.

    Attributes:
        terms: what the target promises.
        training: whether a module is in training mode.
        draws_noise: whether it draws at random in training beyond what can be switched off; then calls of
            different shapes draw differently and cannot be compared.
    """

    def __init__(
        self, target: Target, form: Format, terms: Terms, training: bool, seed: int, accepted: dict[int, bool]
    ) -> None:
        self.terms = terms
        self.training = training
        self.draws_noise = False
        self._target, self._form, self._seed = target, form, seed
        self._accepted = accepted
        self._reuses = True
        self.restart()
        try:
            # A long draw as well: what noise is about, such as an order of blocks, there may be none of in a short one.
            self.draws_noise = training and any(self.seed_matters(self.draw(n)) for n in self.usable(64, 256, 1000))
            self._reuses = not (target.is_module and self._remembers())
        except TargetFailure:
            pass  # the probes meet the same failure and report it

    def restart(self) -> None:
        """Go back to the first draw and to a fresh copy, so that probes know nothing of each other."""
        self._generator = torch.Generator().manual_seed(self._seed)
        self._forward = self._fresh()

    @property
    def names(self) -> tuple[str, ...]:
        """What the inputs are called: `("q", "k", "v")` or `("x",)`."""
        return self._form.shape.names

    @property
    def value_dim(self) -> int:
        """The dim of one value, or the width of x."""
        return self._form.shape.value_dim

    @property
    def single(self) -> bool:
        """Whether the target computes in float32 somewhere."""
        return self._form.single

    @property
    def rounding(self) -> float:
        """The largest relative difference that may be rounding."""
        return 1e-4 if self.single else 1e-9

    @property
    def masked(self) -> bool:
        """Whether it takes a key mask."""
        return "key_mask" not in self.terms.missing

    def draw(self, n: int, *, b: int = 2, n_k: int | None = None) -> Inputs:
        """New standard normal inputs of length n, float64."""
        return self._form.shape.draw(b, n, n if n_k is None else n_k, self._generator)

    def noise(self, like: Tensor) -> Float[Tensor, "..."]:
        """Standard normal numbers of the same shape, without touching torch's global generator."""
        return torch.randn(like.shape, generator=self._generator, dtype=torch.float64)

    def masks(self, b: int, n: int) -> dict[str, Bool[Tensor, "b n"]]:
        """The kinds of padding it must cope with, by name."""
        return masks(b, n, self.terms.any_mask) if self.masked else {}

    def usable(self, *lengths: int) -> Sequence[int]:
        """Those lengths that a plain call accepts; all of them where it accepts none.

        What is refused is the finding of the probe `lengths` alone.
        """
        for n in lengths:
            if n not in self._accepted:
                plain = (accepts(self._target, self._form, n, self._seed, on) for on in self.terms.causal)
                self._accepted[n] = all(plain)
        return [n for n in lengths if self._accepted[n]] or lengths

    def one_of(self, *lengths: int) -> int:
        """The first of those lengths that a plain call accepts, or the first of all."""
        return self.usable(*lengths)[0]

    def accepts(self, n: int) -> bool:
        """Whether a plain call of this length works."""
        self.usable(n)
        return self._accepted[n]

    def __call__(
        self, inputs: Inputs, key_mask: Bool[Tensor, "b n"] | None = None, causal: bool = False, *, seed: int = 0
    ) -> Tensor:
        """The output, float64 on the CPU.

        Raises:
            TargetFailure: the target raised, or returned something of another type, dtype or shape.
        """
        return self._answer(self._any_copy(), ready(inputs, self._form), self._options(key_mask, causal), seed)

    def part(
        self, inputs: Inputs, start: int, stop: int, keys: int, key_mask: Bool[Tensor, "b n"] | None, causal: bool
    ) -> Tensor:
        """The output of the queries from `start` up to `stop` alone, over the first so many keys.

        Raises:
            TargetFailure: the target raised, or returned something of another type, dtype or shape.
        """
        given, seen = ready(between(inputs, start, stop), self._form), ready(first(inputs, keys), self._form)
        options = self._options(None if key_mask is None else key_mask[:, :keys], causal) | {"q_start": start}
        if len(self.names) == 1:
            options["context"] = seen[0]
        else:
            given = (given[0], *seen[1:])
        return self._answer(self._any_copy(), given, options)

    def stream(self) -> Stream:
        """A copy of the target that decodes token by token.

        Raises:
            TargetFailure: it cannot.
        """
        return Stream(self._fresh(), self._form)

    def kept(self) -> Answers:
        """Calls that all go to one copy, as in a program that uses the target more than once."""
        forward = self._fresh()

        def answer(inputs: Inputs, key_mask: Bool[Tensor, "b n"] | None, causal: bool) -> Tensor:
            return self._answer(forward, ready(inputs, self._form), self._options(key_mask, causal))

        return answer

    def exported(self, inputs: Inputs, key_mask: Bool[Tensor, "b n"] | None, causal: bool) -> Answers:
        """Calls of the program that `torch.export` makes of a call, with a batch and a length that may vary.

        Raises:
            TargetFailure: there is none, or it raised.
        """
        options = self._options(key_mask, causal)
        program = exported(self._target, self._fresh(), self._form, ready(inputs, self._form), options)

        def answer(inputs: Inputs, key_mask: Bool[Tensor, "b n"] | None, causal: bool) -> Tensor:
            out = program(ready(inputs, self._form), self._options(key_mask, causal))
            return out.to("cpu", torch.float64, copy=True)

        return answer

    def gradients(
        self, inputs: Inputs, cotangent: Tensor, key_mask: Bool[Tensor, "b n"] | None = None, causal: bool = False
    ) -> Inputs:
        """The gradients of `sum(output * cotangent)` for every input; zeros where none arrives.

        Raises:
            TargetFailure: the target raised, forward or backward.
        """
        leaves = [tensor.requires_grad_() for tensor in ready(inputs, self._form)]
        options = self._options(key_mask, causal)
        out = call(self._target, self._any_copy(), self._form, tuple(leaf.clone() for leaf in leaves), options)
        if not out.requires_grad:
            return tuple(torch.zeros_like(tensor) for tensor in inputs)
        loss = (out * cotangent.to(out)).sum()
        try:
            found = torch.autograd.grad(loss, leaves, allow_unused=True)
        except CODE_FAILED as error:
            raise TargetFailure(f"{told(inputs, options)}, backward: {describe(error)}") from error
        pairs = zip(inputs, found, strict=True)
        return tuple(torch.zeros_like(old) if new is None else new.to("cpu", torch.float64) for old, new in pairs)

    def written(self, inputs: Inputs, key_mask: Bool[Tensor, "b n"] | None, causal: bool) -> list[str]:
        """The names of the arguments that a call writes into."""
        options = self._options(key_mask, causal)
        mask = options["key_mask"]
        given = ready(inputs, self._form)
        with torch.no_grad():
            call(self._target, self._fresh(), self._form, given, options)
        pairs = zip(self.names, given, ready(inputs, self._form), strict=True)
        names = [name for name, after, before in pairs if not torch.equal(after, before)]
        if isinstance(mask, Tensor) and key_mask is not None and not torch.equal(mask.cpu(), key_mask):
            names.append("key_mask")
        return names

    def sees_later_tokens(self, n: int) -> bool:
        """Whether a causal call leaks the future, in the plainest way."""
        inputs, other = self.draw(n), self.draw(n)
        cut = n // 2 - 1
        changed = extended(first(inputs, cut), between(other, cut, n))
        want, got = (first((self(each, None, causal=True),), cut)[0] for each in (inputs, changed))
        return _differ(got, want)

    def seed_matters(self, inputs: Inputs) -> bool:
        """Whether the output changes with torch's global seed."""
        causal = self.terms.causal[-1]
        return _differ(self(inputs, None, causal), self(inputs, None, causal, seed=1))

    def _any_copy(self) -> Forward:
        return self._forward if self._reuses else self._fresh()

    def _fresh(self) -> Forward:
        return prepared(self._target, self._form, self.training)

    def _options(self, key_mask: Bool[Tensor, "b n"] | None, causal: bool) -> Options:
        mask = None if key_mask is None else key_mask.to(self._form.device, copy=True)
        return {"key_mask": mask, "causal": causal}

    def _answer(self, forward: Forward, given: Inputs, options: Options, seed: int = 0) -> Tensor:
        with torch.no_grad():
            out = call(self._target, forward, self._form, given, options, seed)
        return out.to("cpu", torch.float64, copy=True)

    def _remembers(self) -> bool:
        long, short = (self.draw(self.one_of(*lengths), b=1) for lengths in ((768, 256), (13, 64)))
        causal, answers = self.terms.causal[-1], self.kept()
        before = answers(long, None, causal)
        answers(short, None, causal)
        return _differ(before, answers(long, None, causal))


def _differ(one: Tensor, other: Tensor) -> bool:
    """Whether two outputs differ by more than the rounding of float32."""
    return not torch.allclose(one, other, rtol=1e-4, atol=1e-6, equal_nan=True)
