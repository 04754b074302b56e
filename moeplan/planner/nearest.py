"""What to say where no deployment meets the limits."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from moeplan.errors import NoFeasiblePlanError
from moeplan.planner.objective import excess
from moeplan.planner.recommendation import Candidate
from moeplan.planner.slo import Limit


def none_meets(simulated: Collection[Candidate], limits: Sequence[Limit]) -> NoFeasiblePlanError:
    """The refusal: the nearest of those simulated, and the limit that binds it."""
    if not simulated:
        return NoFeasiblePlanError("no deployment can serve the longest request; shorten it")
    nearest = min(simulated, key=lambda c: excess(c.score.latencies, limits))
    binding = max(limits, key=lambda limit: nearest.score.latency(limit) / limit.seconds)
    value = nearest.score.latency(binding)
    return NoFeasiblePlanError(
        f"no deployment meets {' and '.join(map(str, limits))}; the nearest is {nearest.label}: "
        f"its {binding.statistic} {binding.metric.upper()} is {value * 1e3:.4g} ms against "
        f"{binding.seconds * 1e3:g} ms, the limit that binds; relax --{binding.metric}, lower the "
        "load or add GPUs"
    )
