import torch

from saccade.seeded import seeded


def test_a_seed_says_what_is_drawn_and_leaves_the_generator_alone() -> None:
    before = torch.get_rng_state()
    with seeded(3):
        drawn = torch.rand(4)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(drawn, torch.rand(4, generator=torch.Generator().manual_seed(3)))
