"""A target in evaluation and in training: what is the same for both is found out once."""

import module_subjects

from saccade.checking import check, subject


def test_a_length_is_tried_once_for_both_modes(monkeypatch):
    tried, accepts = [], subject.accepts

    def counted(target, form, n, seed, causal=False):
        tried.append((n, causal))
        return accepts(target, form, n, seed, causal)

    monkeypatch.setattr(subject, "accepts", counted)
    assert check(module_subjects.LeaksInTraining, probes=["padding"]).passed
    assert {n for n, _ in tried} >= {13, 100, 101}
    assert len(tried) == len(set(tried)), "each length once, causal and not"
