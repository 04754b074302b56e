"""What the user decides, and how likely the choice is wrong with what is known.

The figure decided on is a time T of the workload: its duration (throughput), a decode step (TPOT)
or the steps of a prompt (TTFT). The predictions' errors make ln T Gaussian with spread s.

    no limit, nothing against it    the figure itself: its spread s
    a limit                         whether T keeps it: mean m = ln(T / limit)
    another deployment              which is better: m = ln(T / T'), s of the difference;
                                    throughput is compared a GPU: T counts as often as there are

One chooses by the sign of the mean and is wrong with probability Φ(−|m| / s). Measuring moves m by
an amount unknown beforehand, whose variance is that of the spread which it takes away; what is
expected to be wrong afterwards is the mean over that.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

import numpy as np

from moeplan.scenario import Scenario

Metric = Literal["throughput", "tpot", "ttft"]
METRIC_NAMES: dict[str, str] = {
    "throughput": "output_tok_s",
    "tpot": "tpot_ms_mean",
    "ttft": "ttft_ms_mean",
}
"""Figure of a simulated load that states each metric."""
_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(40)
_PHI = NormalDist().cdf


@dataclass(frozen=True, slots=True)
class Decision:
    """A figure of the workload, and what it is held against; at most one of the two."""

    metric: Metric = "throughput"
    limit: float | None = None
    """Tokens a second that throughput must reach, milliseconds that TPOT or TTFT may take."""
    against: Scenario | None = None
    """Another deployment for the same workload."""

    @property
    def is_choice(self) -> bool:
        """Whether something can be chosen wrongly."""
        return self.limit is not None or self.against is not None

    def log_margin(self, predicted: float, other: float | None = None, gpus: float = 1.0) -> float:
        """m: positive where the deployment fails the limit or loses against the other.

        `other` is the same figure of the other deployment, `gpus` the ratio of GPUs, own to other.
        """
        bar = self.limit if other is None else other
        if bar is None:
            return 0.0
        ratio = math.log(predicted / bar)
        return math.log(gpus) - ratio if self.metric == "throughput" else ratio

    def question(self) -> str:
        """In words."""
        if self.against is not None:
            return f"which deployment has the better {self.metric}"
        if self.limit is None:
            return self.metric
        bound = "at least" if self.metric == "throughput" else "at most"
        unit = "tok/s" if self.metric == "throughput" else "ms"
        return f"whether {self.metric} is {bound} {self.limit:g} {unit}"


def chance_of_wrong(margin: float, before: float, after: float) -> float:
    """Expected probability of the wrong choice once the spread is `after`, `before` at first.

    With `after` = `before` it is Φ(−|m| / s): nothing was learnt.
    """
    if after <= 0:
        return 0.0
    moved = math.sqrt(max(before**2 - after**2, 0.0))
    means = margin + moved * _NODES
    wrong = np.array([_PHI(-abs(mean) / after) for mean in means])
    return float(wrong @ _WEIGHTS / _WEIGHTS.sum())
