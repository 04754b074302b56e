"""Speed of a recommendation, and what the bounds save.

    python benchmarks/bench_recommend.py [--front]

1. gpt-oss-120b on 8 H100, 8192 tokens in and 1024 out, 32 in flight, with limits: more than 200
   deployments that fit. Target: 5 s on 2 idle cores. `--front` also without limits, which simulates
   all of them for the Pareto front.
2. gpt-oss-20b on 4 H100: the same search with every deployment simulated, as a ratio.

Wall seconds after import; CPU seconds of all processes, which other load on the machine moves less.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

from moeplan.deployment import Cluster, Node
from moeplan.hardware_specs import load_hardware
from moeplan.models import load_model
from moeplan.planner.candidates import Space
from moeplan.planner.recommendation import Recommendation
from moeplan.planner.search import Request, recommend
from moeplan.planner.slo import parse_limit
from moeplan.simulation.workload import Workload

HARDWARE = load_hardware()
LIMITS = (parse_limit("ttft", "2s"), parse_limit("itl", "30ms"))
LONG = Workload(num_prompts=320, input_tokens=8192, output_tokens=1024, concurrency=32)
SHORT = Workload(num_prompts=160, input_tokens=1024, output_tokens=128, concurrency=16)


@dataclass(frozen=True)
class Timing:
    """One search and what it took."""

    found: Recommendation
    wall_s: float
    cpu_s: float

    @property
    def fitting(self) -> int:
        """Deployments that fit, like ones counted too."""
        counts = self.found.counts
        return counts.built - sum(counts.refused.values())

    def __str__(self) -> str:
        counts, winner = self.found.counts, self.found.winner
        return (
            f"{self.wall_s:6.2f} s, {self.cpu_s:6.2f} CPU s: {self.fitting} fit, "
            f"{counts.duplicates} like another, {counts.screened} screened out, "
            f"{counts.simulated} simulated; {winner.label}, {winner.score.output_tok_s:,.0f} tok/s"
        )


def timed(search: Callable[[], Recommendation]) -> Timing:
    """Run a search once."""
    wall, cpu = time.perf_counter(), _cpu_seconds()
    found = search()
    return Timing(found, time.perf_counter() - wall, _cpu_seconds() - cpu)


def _cpu_seconds() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def request(model: str, gpus: int, workload: Workload, **changes) -> Request:
    """A search over up to that many H100 in one node."""
    entry = load_model(model)
    cluster = Cluster((Node("h100_sxm", gpus),), "nvlink4", "ib-ndr")
    space = Space(checkpoints=entry.checkpoints)
    return Request(entry.architecture, cluster, space, workload, **changes)


def main() -> None:
    """Print the figures."""
    print("gpt-oss-120b on up to 8 H100, 8192/1024 tokens, 32 in flight, 320 requests")
    cases = {"with limits": LIMITS} | ({"Pareto front": ()} if "--front" in sys.argv else {})
    for name, limits in cases.items():
        wanted = request("gpt-oss-120b", 8, LONG, limits=limits)
        print(f"  {name:14}{timed(lambda wanted=wanted: recommend(wanted, HARDWARE))}")
    print("gpt-oss-20b on up to 4 H100, 1024/128 tokens, 16 in flight, 160 requests")
    small = request("gpt-oss-20b", 4, SHORT, limits=LIMITS, runners_up=0)
    screened = timed(lambda: recommend(small, HARDWARE))
    everything = timed(lambda: recommend(small, HARDWARE, exhaustive=True))
    print(f"  screened      {screened}")
    print(f"  exhaustive    {everything}")
    print(f"  ratio         {everything.cpu_s / screened.cpu_s:.1f} in CPU seconds")
    assert screened.found.winner.label == everything.found.winner.label


if __name__ == "__main__":
    main()
