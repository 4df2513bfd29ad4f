"""The probe `export`: who is asked, and what it finds."""

import exported
import pytest

from saccade.checking import check
from saccade.claims import Claims

CLAIMS = Claims(any_length=True, any_mask=True, causal=True, exportable=True)


def found(target, claims=CLAIMS, **options):
    (result,) = check(target, claims=claims, probes=["export"], **options).results
    return result


def test_a_module_and_a_function_that_export_pass():
    from subjects import right

    for target in (exported.Exports(), right):
        result = found(target)
        assert result.status == "passed", result
        assert result.violation <= 1e-12


@pytest.mark.parametrize("claims", [None, Claims(any_length=True)])
def test_only_claims_call_for_it(claims):
    result = found(exported.Exports(), claims)
    assert result.status == "not claimed"
    assert "exportable" in result.where


@pytest.mark.parametrize("target", [exported.FixedLength, exported.FixedScale, exported.LongOnes])
def test_graphs_for_one_length_fail(target):
    result = found(target())
    assert result.status == "failed", result
    assert "export" in result.where
