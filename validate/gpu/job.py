"""One model on one server: exact step times, served points and routing checks."""

from __future__ import annotations

import contextlib
import json
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .load import Client
from .server import Server, read_facts

DECODE_BATCHES = [1, 2, 4, 8, 12, 16, 32, 48, 64, 96, 128, 192, 256]
LONG_DECODES = [(1, 8192), (1, 32000), (8, 8192), (16, 4096), (32, 2048), (64, 1500)]
PREFILL_TOKENS = [64, 128, 256, 512, 1024, 2048, 4096, 8192]
SKEW_BATCHES = [4, 8, 16, 32, 64, 128, 256]
CHECK_BATCHES = [1, 4, 16, 64, 256]
SKEW = 1.16
"""Lognormal width of expert popularity in mixed real traffic (hardware notes, two sources)."""


@dataclass(frozen=True, slots=True)
class Served:
    """One closed-loop point of vLLM's own benchmark."""

    concurrency: int
    prompts: int
    input_tokens: int = 1024
    output_tokens: int = 128
    routing: str = "uniform"


SERVED = [Served(1, 5), Served(8, 32), Served(32, 128), Served(64, 256)]
SERVED_WARM = [Served(c, c, 1024, 24, "warm") for c in (8, 32, 64)]
SERVED_EXTRA = [Served(32, 96), Served(128, 384, 128, 128)]


class Job:
    """One model on one server: its pieces run in order and each keeps its own failures."""

    def __init__(self, spec: dict[str, Any], server: Server, results: Path, bench: Any) -> None:
        self.spec, self.server, self.bench = spec, server, bench
        self.folder = results / spec["name"]
        self.folder.mkdir(parents=True, exist_ok=True)
        self.client = Client(server.url, spec["name"], spec["vocab_size"])
        self.begun = time.monotonic()

    def keep(self, name: str, record: Any) -> None:
        """Append one line to a file of this job."""
        with (self.folder / f"{name}.jsonl").open("a") as sink:
            sink.write(json.dumps(record) + "\n")

    def piece(self, name: str, work: Callable[[], None]) -> None:
        """Run one part within the job's time; a failure is recorded, the next part goes on."""
        spent = time.monotonic() - self.begun
        if spent > self.spec["budget_s"]:
            self.keep("pieces", {"piece": name, "skipped_at_s": spent})
            return
        compiled = self._compilations()
        try:
            work()
            error = None
        except Exception:
            error = traceback.format_exc()[-1500:]
        about = {"piece": name, "from_s": spent, "to_s": time.monotonic() - self.begun}
        compiled = self._compilations() - compiled
        self.keep("pieces", about | {"error": error, "kernels_compiled": compiled})
        (self.folder / "phases.json").write_text(json.dumps(self.client.phases))
        print(self.spec["name"], about, "FAILED " + error if error else "", flush=True)

    def _compilations(self) -> int:
        return self.server.log_text().count("JIT compilation during inference")

    def start_engine(self) -> None:
        """Open the gate, wait for health, keep the engine's own facts and its log."""
        self.server.open_gate()
        try:
            healthy = self.server.wait_healthy(self.spec.get("start_s", 300))
        finally:
            self.save_log()
        facts = read_facts(self.server.log_text()) | {"healthy_after_s": healthy}
        with contextlib.suppress(Exception):
            facts["memory"] = self.server.call("moeplan_memory")
        (self.folder / "facts.json").write_text(json.dumps(facts | {"job": self.spec}))
        self.begun = time.monotonic()

    def save_log(self) -> None:
        """Copy the server's log to the results."""
        (self.folder / "server.log").write_text(self.server.log_text())

    def warm(self) -> None:
        """Meet each decode batch and prompt length once, unmeasured."""
        for batch in (1, 8, 32, 256):
            self.client.decode("warm", batch, 64, 6)
        for tokens in (256, 512, 1024, 2048, 4096, 8192):
            self.client.prefill("warm", tokens, 1)

    def decode_sweep(self, kind: str, batches: list[int]) -> None:
        """Decode steps at short context."""
        for batch in batches:
            self.client.decode(kind, batch, 128, 72 if batch <= 32 else 48)

    def warm_sweep(self, batches: list[int]) -> None:
        """Meet each decode batch, unmeasured."""
        for batch in batches:
            self.client.decode("warm", batch, 128, 8)

    def long_decodes(self) -> None:
        """Decode steps at long context; the prompts' chunks are prefills with context."""
        for batch, context in LONG_DECODES:
            self.client.decode("decode_long", batch, context, 40)

    def prefills(self) -> None:
        """Lone prompts; the first of each length is a warm-up."""
        for tokens in PREFILL_TOKENS:
            self.client.prefill("prefill", tokens, 5 if tokens < 4096 else 4)

    def mixed(self) -> None:
        """Prefill chunks that ride on a batch of 32 decodes."""
        lengths = [512] * 4 + [1024] * 4 + [2048] * 4 + [4096] * 3
        self.client.mixed(32, 1024, 250, lengths)

    def count_experts(self, routing: str) -> None:
        """Distinct experts by tokens in the step, in eager mode on real requests."""
        if not self.spec.get("top_k"):
            return
        self.server.call("moeplan_count_on", top_k=self.spec["top_k"])
        try:
            for batch in CHECK_BATCHES:
                self.client.decode("count", batch, 64, 6, routing=routing)
        finally:
            counted = self.server.call("moeplan_count_off")
        self.keep("routing", {"routing": routing, "experts": self.spec["experts"], **counted})

    def set_skew(self, sigma: float) -> None:
        """Redraw the routers."""
        self.keep("routing_set", self.server.call("moeplan_set_routing", sigma=sigma))

    def serve_points(self, points: list[Served]) -> None:
        """vLLM's own benchmark, one point after another, in this process."""
        for index, point in enumerate(points):
            self._serve(point, index)

    def _serve(self, point: Served, seed: int) -> None:
        options = {
            "backend": "vllm",
            "base-url": self.server.url,
            "model": self.spec["name"],
            "tokenizer": self.spec["folder"],
            "dataset-name": "random",
            "random-input-len": point.input_tokens,
            "random-output-len": point.output_tokens,
            "num-prompts": point.prompts,
            "max-concurrency": point.concurrency,
            "seed": seed + 100 * point.concurrency + point.input_tokens,
            "temperature": 0,
            "percentile-metrics": "ttft,tpot,itl,e2el",
            "metric-percentiles": "50,90,99",
        }
        words = [part for key, value in options.items() for part in (f"--{key}", str(value))]
        compiled, begun = self._compilations(), time.perf_counter()
        result = self.bench([*words, "--ignore-eos", "--disable-tqdm"])
        span = {"t0": begun, "t1": time.perf_counter()}
        scalars = {k: v for k, v in result.items() if isinstance(v, str | int | float)}
        about = {name: getattr(point, name) for name in Served.__slots__}
        about["kernels_compiled"] = self._compilations() - compiled
        self.keep("served", about | span | {"result": scalars})
        self.client.phases.append({"kind": "served", **about, **span})

    def run(self) -> None:
        """All parts, the most valuable first."""
        parts: list[tuple[str, Callable[[], None]]] = [
            ("warm", self.warm),
            ("warm_sweep", lambda: self.warm_sweep(DECODE_BATCHES)),
            ("decode", lambda: self.decode_sweep("decode", DECODE_BATCHES)),
            ("prefill", self.prefills),
            ("count_uniform", lambda: self.count_experts("uniform")),
            ("served_warm", lambda: self.serve_points(SERVED_WARM)),
            ("served", lambda: self.serve_points(SERVED)),
            ("decode_long", self.long_decodes),
            ("mixed", self.mixed),
            *self.skewed_parts(),
            ("served_extra", lambda: self.serve_points(self.extra_points())),
        ]
        wanted = self.spec.get("parts")
        for name, work in parts:
            if wanted is None or name in wanted:
                self.piece(name, work)
        self.save_log()

    def skewed_parts(self) -> list[tuple[str, Callable[[], None]]]:
        """The same model with skewed routing, then uniform again."""
        if not self.spec.get("top_k"):
            return []
        point = Served(32, 96, routing="skewed")
        return [
            ("skew", lambda: self.set_skew(SKEW)),
            ("decode_skewed", lambda: self.decode_sweep("decode_skewed", SKEW_BATCHES)),
            ("count_skewed", lambda: self.count_experts("skewed")),
            ("served_skewed", lambda: self.serve_points([point])),
            ("unskew", lambda: self.set_skew(0.0)),
        ]

    def extra_points(self) -> list[Served]:
        """Points of every model and those that this job asks for."""
        return SERVED_EXTRA + [Served(**point) for point in self.spec.get("served", [])]
