import pytest
from small_toy import Toy


@pytest.fixture
def toy() -> Toy:
    return Toy()
