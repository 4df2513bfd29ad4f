"""The target as a probe sees it: in one mode, called on copies, its answers float64 on the CPU."""

from collections.abc import Callable, Sequence

import torch

from saccade.checking.calling import Format, Options, TargetFailure, call, prepared, ready, told
from saccade.checking.draws import Inputs, masks
from saccade.checking.fit import accepts
from saccade.checking.target import Forward, Target, describe
from saccade.checking.terms import Terms
from saccade.shapes import Bool, Float, Tensor

Answers = Callable[[Inputs, Bool[Tensor, "b n"] | None, bool], Tensor]


class Subject:
    """One target in evaluation or in training mode.

    Calling it gives the output. torch's global generator has the same seed before every call, so that dropout
    and other draws are the same for inputs of the same shape. One copy of a module serves all calls, unless a
    call changes the ones after it (a mechanism that goes dense after a short input, say): then each call
    gets a copy of its own, so that only the probes that look for this defect find it.

    Attributes:
        terms: what the target promises.
        training: whether a module is in training mode.
        draws_noise: whether it draws at random in training beyond what can be switched off; then calls of
            different shapes draw differently and cannot be compared.
    """

    def __init__(self, target: Target, form: Format, terms: Terms, training: bool, seed: int) -> None:
        self.terms = terms
        self.training = training
        self.draws_noise = False
        self._target, self._form, self._seed = target, form, seed
        self._accepted: dict[int, bool] = {}
        self._reuses = True
        self.restart()
        try:
            self.draws_noise = training and self.seed_matters(self.draw(self.one_of(64, 256)))
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
    def single(self) -> bool:
        """Whether the target computes in float32 somewhere."""
        return self._form.single

    @property
    def masked(self) -> bool:
        """Whether it takes a key mask."""
        return "key_mask" not in self.terms.missing

    def draw(self, n: int, *, b: int = 2, n_k: int | None = None) -> Inputs:
        """New standard normal inputs of length n, float64."""
        return self._form.shape.draw(b, n, n if n_k is None else n_k, self._generator)

    def noise(self, like: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
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
        forward = self._forward if self._reuses else self._fresh()
        return self._answer(forward, inputs, key_mask, causal, seed)

    def kept(self) -> Answers:
        """Calls that all go to one copy, as in a program that uses the target more than once."""
        forward = self._fresh()
        return lambda inputs, key_mask, causal: self._answer(forward, inputs, key_mask, causal, 0)

    def gradients(
        self, inputs: Inputs, cotangent: Tensor, key_mask: Bool[Tensor, "b n"] | None = None, causal: bool = False
    ) -> Inputs:
        """The gradients of `sum(output * cotangent)` for every input; zeros where none arrives.

        Raises:
            TargetFailure: the target raised, forward or backward.
        """
        leaves = [tensor.requires_grad_() for tensor in ready(inputs, self._form)]
        forward = self._forward if self._reuses else self._fresh()
        options = self._options(key_mask, causal)
        out = call(self._target, forward, self._form, tuple(leaf.clone() for leaf in leaves), options)
        if not out.requires_grad:
            return tuple(torch.zeros_like(tensor) for tensor in inputs)
        loss = (out * cotangent.to(out)).sum()
        try:
            found = torch.autograd.grad(loss, leaves, allow_unused=True)
        except Exception as error:
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

    def seed_matters(self, inputs: Inputs) -> bool:
        """Whether the output changes with torch's global seed."""
        causal = self.terms.causal[-1]
        return _differ(self(inputs, None, causal), self(inputs, None, causal, seed=1))

    def _fresh(self) -> Forward:
        return prepared(self._target, self._form, self.training)

    def _options(self, key_mask: Bool[Tensor, "b n"] | None, causal: bool) -> Options:
        mask = None if key_mask is None else key_mask.to(self._form.device, copy=True)
        return {"key_mask": mask, "causal": causal}

    def _answer(
        self, forward: Forward, inputs: Inputs, key_mask: Bool[Tensor, "b n"] | None, causal: bool, seed: int
    ) -> Tensor:
        given = ready(inputs, self._form)
        with torch.no_grad():
            out = call(self._target, forward, self._form, given, self._options(key_mask, causal), seed)
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
