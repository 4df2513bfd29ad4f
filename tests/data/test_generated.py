import random
import statistics

import pytest

from saccade.data import DataSettings, load
from saccade.data.generated import TooLong, expressions, grow

SMALL = DataSettings(
    source="listops", train_size=211, validation_size=53, test_size=31, min_length=5, max_length=43, max_depth=5
)


def evaluate(expression: str) -> tuple[int, int, list[int]]:
    """A machine with a stack, written apart from the generator: value, depth, arguments of each operation."""
    stack: list[list] = [["outside"]]
    depth, widths = 0, []
    for token in expression.split():
        if token.startswith("["):
            stack.append([token])
            depth = max(depth, len(stack) - 1)
        elif token == "]":
            name, *values = stack.pop()
            widths.append(len(values))
            stack[-1].append(
                {
                    "[MIN": lambda v: min(v),
                    "[MAX": lambda v: max(v),
                    "[MED": lambda v: int(statistics.median(v)),
                    "[SM": lambda v: int(str(sum(v))[-1]),
                }[name](values)
            )
        else:
            assert len(token) == 1
            stack[-1].append(int(token))
    (outside,) = stack
    _, value = outside
    return value, depth, widths


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("[MAX 2 9 [MIN 4 7 ] 0 ]", 9),
        ("[MED 4 1 7 ]", 4),
        ("[MED 4 1 7 6 ]", 5),
        ("[MED 8 1 2 5 ]", 3),
        ("[SM 9 9 9 [SM 1 2 ] ]", 0),
        ("[MIN [MAX 3 5 ] [MED 8 9 ] 7 ]", 5),
    ],
)
def test_the_machine_and_the_generator_agree_with_a_person(expression, value):
    assert evaluate(expression)[0] == value
    tokens: list[str] = []
    assert grow(tokens, expression.split()[0], 1, Script(expression), SMALL) == value
    assert " ".join(tokens) == expression


class Script(random.Random):
    """A generator whose draws spell a given expression."""

    def __init__(self, expression: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        open_rows: list[list[str]] = [[]]
        for token in expression.split():
            if token == "]":
                open_rows.pop()
                continue
            open_rows[-1].append(token)
            if token.startswith("["):
                row: list[str] = []
                self.rows.append(row)
                open_rows.append(row)

    def randint(self, a, b):
        return len(self.rows[0])

    def choices(self, population, weights=None, *, cum_weights=None, k=1):
        return self.rows.pop(0)


def test_the_labels_of_small_expressions_are_their_values():
    data = load(SMALL)
    depths = set()
    for split in data.splits.values():
        for sequence, label in zip(split.sequences, split.labels.tolist(), strict=True):
            value, depth, widths = evaluate(data.vocabulary.decode(sequence))
            assert data.classes[label] == str(value)
            assert 5 <= len(sequence) <= 43
            assert 2 <= min(widths) <= max(widths) <= 10
            depths.add(depth)
    assert depths == {1, 2, 3, 4}


def test_by_default_the_expressions_are_those_of_long_range_arena():
    data = load(DataSettings(source="listops", train_size=79, validation_size=13, test_size=11))
    lengths, depths, widths = [], set(), set()
    for split in data.splits.values():
        for sequence, label in zip(split.sequences, split.labels.tolist(), strict=True):
            value, depth, of_each = evaluate(data.vocabulary.decode(sequence))
            assert value == label
            lengths.append(len(sequence))
            depths.add(depth)
            widths.update(of_each)
    assert min(lengths) >= 500
    assert 1500 < max(lengths) == data.longest <= 2000
    assert max(depths) == 9
    assert widths == set(range(2, 11))
    assert data.vocabulary.symbols == ("[MIN", "[MAX", "[MED", "[SM", "]", *"0123456789")
    assert [len(split) for split in data.splits.values()] == [79, 13, 11]


def test_an_argument_is_an_operation_one_time_in_four_and_all_are_alike():
    drawn: list[str] = []
    draw = random.Random(0)
    settings = DataSettings(source="listops", max_depth=3, max_length=10_000)
    for _ in range(700):
        tokens: list[str] = []
        grow(tokens, "[MAX", 1, draw, settings)
        depth = 0
        for token in tokens:
            if depth == 1 and token != "]":
                drawn.append(token)
            depth += token.startswith("[") - (token == "]")
    operators = [token for token in drawn if token.startswith("[")]
    assert len(drawn) == pytest.approx(700 * 6, rel=0.05)
    assert len(operators) / len(drawn) == pytest.approx(0.25, abs=0.02)
    for name in ("[MIN", "[MAX", "[MED", "[SM"):
        assert operators.count(name) / len(operators) == pytest.approx(0.25, abs=0.05)
    for digit in "0123456789":
        assert drawn.count(digit) / len(drawn) == pytest.approx(0.075, abs=0.015)


def test_no_expression_comes_twice():
    narrow = DataSettings(
        source="listops", min_length=4, max_length=4, train_size=331, validation_size=31, test_size=31
    )
    data = load(narrow)
    drawn = [data.vocabulary.decode(s) for split in data.splits.values() for s in split.sequences]
    assert len(set(drawn)) == len(drawn) == 393


def test_the_expressions_are_the_same_on_every_machine():
    assert next(expressions(SMALL)) == ("[MED 3 1 3 ]", 3)


def test_the_seed_draws_them():
    def some(seed):
        drawn = expressions(DataSettings(source="listops", seed=seed, min_length=5, max_length=43))
        return [next(drawn) for _ in range(5)]

    assert some(2) == some(2) != some(3)


def test_more_expressions_than_there_are_is_an_error():
    # [OP a b ] with four operators and ten digits: 400 in all.
    with pytest.raises(
        ValueError, match="listops with 4 to 4 tokens and depth 10 must be 401 different expressions, got 400"
    ):
        load(DataSettings(source="listops", min_length=4, max_length=4, train_size=399, validation_size=1, test_size=1))


def test_lengths_that_the_depth_cannot_reach_are_an_error():
    with pytest.raises(ValueError, match="500 to 2000 tokens and depth 2 must be 5,500 different expressions, got 0"):
        load(DataSettings(source="listops", max_depth=2))


def test_a_long_expression_is_given_up_early():
    given_up = 0
    for seed in range(100):
        tokens: list[str] = []
        try:
            grow(tokens, "[SM", 1, random.Random(seed), DataSettings(min_length=4, max_length=97))
        except TooLong:
            given_up += 1
            assert 97 < len(tokens) <= 97 + 12 * 9
        else:
            assert len(tokens) <= 97
    assert 20 < given_up < 80
