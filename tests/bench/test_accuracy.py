import pytest
import torch

from saccade.attention import MECHANISMS, attend, to_mechanism
from saccade.attention.mechanism import arguments
from saccade.bench import accuracy
from saccade.bench.accuracy import DEFINITION, ITSELF, output_error


def built(mechanism, n, dtype=torch.float64):
    spec = to_mechanism(mechanism)
    layer = spec.build(2, 8).eval()
    inputs = {name: torch.randn(1, 2, n, 8, dtype=dtype) for name in spec.inputs}
    return spec, layer, inputs


@pytest.mark.parametrize("mechanism", MECHANISMS)
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(("all_rows", "block"), [(2048, 256), (2048, 70), (100, 50)])
def test_what_is_right_has_no_error(mechanism, causal, all_rows, block, monkeypatch):
    monkeypatch.setattr(accuracy, "ALL_ROWS", all_rows)
    monkeypatch.setattr(accuracy, "BLOCK", block)
    spec, layer, inputs = built(mechanism, 601)
    if causal and not spec.claims.causal:
        pytest.skip("not claimed")
    error, against = output_error(spec, layer, inputs, layer(**arguments(inputs), causal=causal), causal)
    assert error < 1e-13
    assert against == (DEFINITION if spec.claims.exact else ITSELF)


@pytest.mark.parametrize("mechanism", ["local(left=8)", "linear"])
def test_an_error_is_seen_next_to_the_largest_output(mechanism):
    spec, layer, inputs = built(mechanism, 90)
    out = layer(**inputs)
    wrong = out.clone()
    wrong[0, 1, 77, 3] += 0.25 * out.abs().max()
    assert output_error(spec, layer, inputs, wrong)[0] == pytest.approx(0.25)


def test_the_wrong_pattern_is_an_error():
    spec, layer, inputs = built("local(left=8)", 300)
    other = attend(**inputs, pattern=to_mechanism("local(left=9)").build(2, 8).pattern)
    assert output_error(spec, layer, inputs, other)[0] > 0.01


def test_low_precision_shows():
    spec, layer, inputs = built("full", 64, torch.bfloat16)
    error, _ = output_error(spec, layer, inputs, layer(**inputs))
    assert 1e-4 < error < 0.05
