"""Decoding as the papers define it: plain Python over every continuation there is, apart from the code.

A model is here `following(prefix) -> list of log-probabilities`, the prefix a tuple of tokens, prompt included.
"""

import math


def allowed(following, prefix, forbidden, eos, written, min_length):
    """The log-probabilities of what may come: the model's own, `-inf` for the rest."""
    scores = list(following(prefix))
    for token in forbidden:
        scores[token] = -math.inf
    if eos is not None and written < min_length:
        scores[eos] = -math.inf
    return scores


def every_result(following, prompt, limit, forbidden=(), eos=None, min_length=0):
    """Every result that may come out, with its log-probability: those that end on `eos`, those cut at the limit."""
    results, open_ones = [], [((), 0.0)]
    while open_ones:
        written, log_prob = open_ones.pop()
        if len(written) == limit or (written and written[-1] == eos):
            results.append((written, log_prob))
            continue
        scores = allowed(following, prompt + written, forbidden, eos, len(written), min_length)
        open_ones += [((*written, t), log_prob + s) for t, s in enumerate(scores) if s > -math.inf]
    return results


def penalised(log_prob, length, exponent, kind):
    length = max(length, 1)
    return log_prob / (length**exponent if kind == "power" else ((5 + length) / 6) ** exponent)


def best_results(results, count, exponent=0.0, kind="power"):
    """The best of some results, `(tokens, log-probability, score)`, the best first."""
    scored = [(tokens, lp, penalised(lp, len(tokens), exponent, kind)) for tokens, lp in results]
    return sorted(scored, key=lambda result: -result[2])[:count]


def greedy(following, prompt, limit, forbidden=(), eos=None, min_length=0):
    written, total = (), 0.0
    while len(written) < limit and not (written and written[-1] == eos):
        scores = allowed(following, prompt + written, forbidden, eos, len(written), min_length)
        token = scores.index(max(scores))
        written, total = (*written, token), total + scores[token]
    return written, total


def beam_search(following, prompt, limit, width, exponent, kind="power", forbidden=(), eos=None, min_length=0):
    """A search that never stops early: every finished hypothesis that it meets, the best `width` first."""
    live, finished = [((), 0.0)], []
    for _ in range(limit):
        children = []
        for written, total in live:
            scores = allowed(following, prompt + written, forbidden, eos, len(written), min_length)
            children += [((*written, t), total + s) for t, s in enumerate(scores) if s > -math.inf]
        children.sort(key=lambda child: -child[1])
        finished += [child for child in children[:width] if child[0][-1] == eos]
        live = [child for child in children if child[0][-1] != eos][:width]
    return best_results(finished + live, width, exponent, kind)


def truncated(log_probs, temperature=1.0, top_k=None, top_p=1.0):
    """The distribution that is drawn from, token by token."""
    greatest = max(log_probs)
    weights = [math.exp((each - greatest) / temperature) for each in log_probs]
    ranked = sorted(range(len(weights)), key=lambda token: (-weights[token], token))
    kept = ranked if top_k is None else ranked[:top_k]
    total = sum(weights[token] for token in kept)
    nucleus, share = [], 0.0
    for token in kept:
        if share >= top_p:
            break
        nucleus.append(token)
        share += weights[token] / total
    mass = sum(weights[token] for token in nucleus)
    return [weights[token] / mass if token in nucleus else 0.0 for token in range(len(weights))]
