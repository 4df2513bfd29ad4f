"""Forms of compressed attention and its oracle, for its tests."""

import pytest

SPECS = {
    "default": "compressed",
    "no_null": "compressed(null=False)",
    "overlapping": "compressed(stride=2, kernel=5, groups=1)",
    "overlapping_no_null": "compressed(stride=3, kernel=4, null=False)",
    "each": "compressed(stride=1)",
    "long": "compressed(stride=20)",
}


specs = pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)


either_way = pytest.mark.parametrize("causal", [False, True], ids=["both", "causal"])
