"""Draws docs/pareto.svg: what a recommendation without limits finds.

    pip install kaleido            and a Chromium or Chrome on the path, which draws
    python docs/make_pictures.py

The question is that of the README, without its limits: gpt-oss-120b on up to 8 H100, 8,192 tokens
in and 1,024 out, 32 requests in flight. Takes a minute.
"""

from __future__ import annotations

from pathlib import Path

from moeplan.cli.plots import pareto_figure
from moeplan.cli.recommend import PlanOptions, recommend_answer
from moeplan.cli.traffic import TrafficOptions
from moeplan.hardware_specs import load_hardware
from moeplan.scenario import EngineOptions, MachineOptions

PICTURE = Path(__file__).parent / "pareto.svg"
WIDTH, HEIGHT = 960, 540


def main() -> None:
    """Search, draw, write."""
    data = recommend_answer(
        MachineOptions(model="gpt-oss-120b", device="h100_sxm", gpus=8),
        TrafficOptions(input=8192, output=1024, concurrency="32"),
        PlanOptions(),
        EngineOptions(),
        load_hardware(),
        lambda _share: None,
    )
    pareto_figure(data).write_image(PICTURE, width=WIDTH, height=HEIGHT)
    print(f"{PICTURE}: {len(data['simulated'])} deployments, {len(data['front'])} on the front")


if __name__ == "__main__":
    main()
