"""How many distinct experts a batch touches.

Uniform routing over E experts, k a token: E (1 − (1 − k/E)^T). Real routers are skewed: popularity
p_i is taken as lognormal with parameter sigma, an expert is picked by a token with probability
π_i = 1 − exp(−c p_i), Σ π_i = k, and T tokens touch Σ (1 − (1 − π_i)^T). Sigma 1.16 reproduces a
published routing histogram of Qwen3-30B-A3B on mixed text and, independently, Cohere's count of
25.4 experts for 4 tokens; 1.42 its histogram on a single domain.
"""

from __future__ import annotations

from functools import lru_cache
from statistics import NormalDist

import numpy as np

ROUTING_SIGMA: dict[str, float] = {
    "uniform": 0.0,
    "random": 0.8,
    "default": 0.9,
    "chat": 1.2,
    "domain": 1.4,
}
"""Sigma of the popularity by kind of text: random token ids, mixed traffic, chat, one domain.

From a study of 1,700 published serving runs; uncertain by 0.4 for one model.
"""

_GRID_POINTS = 192
_NEWTON_STEPS = 60


def inclusion_probabilities(num_experts: int, experts_per_token: int, sigma: float) -> np.ndarray:
    """Probability that a token picks each expert, shape (num_experts,), summing to k."""
    if experts_per_token >= num_experts:
        return np.ones(num_experts)
    if sigma == 0:
        return np.full(num_experts, experts_per_token / num_experts)
    normal = NormalDist()
    quantiles = [normal.inv_cdf((i + 0.5) / num_experts) for i in range(num_experts)]
    popularity = np.exp(sigma * np.array(quantiles))
    return _scaled_to(popularity / popularity.sum(), experts_per_token)


def _scaled_to(popularity: np.ndarray, target: float) -> np.ndarray:
    """1 − exp(−c p) with c such that the sum is `target`; the sum is concave and rises in c."""
    scale = float(target)
    for _ in range(_NEWTON_STEPS):
        decay = np.exp(-scale * popularity)
        gap = target - (1.0 - decay).sum()
        scale += gap / (popularity * decay).sum()
        if abs(gap) < 1e-10 * target:
            break
    return 1.0 - np.exp(-scale * popularity)


@lru_cache(maxsize=256)
def _coverage_curve(
    num_experts: int, experts_per_token: int, sigma: float, max_tokens: int
) -> tuple[np.ndarray, np.ndarray]:
    grid = np.unique(np.geomspace(1, max(max_tokens, 2), _GRID_POINTS).round())
    grid = np.unique(np.concatenate([np.arange(1, min(65, max_tokens + 1)), grid]))
    picked = inclusion_probabilities(num_experts, experts_per_token, sigma)
    missed = np.log1p(-np.minimum(picked, 1 - 1e-12))
    return grid, num_experts - np.exp(np.outer(grid, missed)).sum(axis=1)


def distinct_experts(
    num_experts: int, experts_per_token: int, sigma: float, tokens: np.ndarray | float
) -> np.ndarray:
    """Expected distinct experts that `tokens` independent tokens touch in one layer.

    Exact for up to 64 tokens, interpolated on a fine grid above; 0 for 0 tokens.
    """
    tokens = np.asarray(tokens, dtype=float)
    top = int(tokens.max(initial=1.0))
    grid, curve = _coverage_curve(
        num_experts, experts_per_token, sigma, 1 << max(top - 1, 1).bit_length()
    )
    touched = np.interp(tokens, grid, curve)
    return np.where(tokens < 1, tokens * curve[0], touched)
