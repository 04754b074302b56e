"""How many sequences one engine can run at once, by its settings and its KV pool."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from moeplan.cost.kv_layout import KVGroup
from moeplan.cost.predictor import Prepared
from moeplan.planner.demand import Demand


def most_running(prepared: Prepared, demand: Demand) -> int:
    """Most sequences that one replica can decode in one step, at least 1."""
    engine = prepared.engine
    limit = min(demand.in_flight, engine.max_num_seqs, engine.max_num_batched_tokens)
    shares_blocks = engine.prefix_caching and demand.shared != 0
    if not shares_blocks:
        limit = min(limit, _usable_blocks(prepared) // _least_blocks(prepared, demand))
    return max(limit, 1)


@dataclass(frozen=True, slots=True)
class Preemption:
    """What is sure about steps in which an engine runs out of blocks."""

    running: int
    """Sequences that run before such a step at least."""
    victims: int
    """Sequences that it preempts at most."""

    def counted(self, sequences: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Requests held by such a step of so many sequences, and tokens that count for it.

        A preempted sequence gets one token from the prefill that resumes it, which counts here.
        """
        if not self.victims:
            return sequences, sequences
        able = sequences >= self.running - self.victims - 1  # one more may prefill
        held = np.where(able, np.maximum(sequences, self.running), sequences)
        return held, sequences + self.victims * able


def preemption(prepared: Prepared, demand: Demand, running: int) -> Preemption | None:
    """Steps that preempt while up to that many sequences run; None where there are none.

    A windowed group holds tokens beyond the windows: those of the steps in flight, and of the one
    before them, which are given back late. The last sequence goes first: it may have just begun,
    or be the one that asks; the others free at least what their prompts hold.
    """
    engine, groups = prepared.engine, prepared.kv.groups
    late = engine.max_num_batched_tokens * (engine.max_concurrent_batches + 1)
    windowed = [group for group in groups if group.kind in ("sliding", "chunked")]
    spare = _usable_blocks(prepared) - sum(-(-late // group.block_size) for group in windowed)
    enough = max(spare, 0) // sum(_most_of_group(group, demand.longest) for group in groups)
    if running <= enough:
        return None
    victims = 2 + -(-len(groups) * running // _least_blocks(prepared, demand))
    return Preemption(enough + 1, victims)


def _usable_blocks(prepared: Prepared) -> int:
    return prepared.kv.num_blocks - 1


def _least_blocks(prepared: Prepared, demand: Demand) -> int:
    length = demand.shortest_input + 1
    return max(sum(_least_of_group(group, length) for group in prepared.kv.groups), 1)


def _least_of_group(group: KVGroup, length: int) -> int:
    """Blocks that a sequence holds at least in a decode step that makes it `length` tokens long."""
    match group.kind:
        case "recurrent":
            return group.fixed_blocks
        case "sliding":
            return max(min(group.window, length) // group.block_size, 1)
        case "chunked":
            return 1
    return -(-length // group.block_size)


def _most_of_group(group: KVGroup, length: int) -> int:
    """Blocks that a sequence of up to `length` tokens holds at most, tokens in flight left out."""
    whole = -(-length // group.block_size)
    if group.kind == "recurrent":
        return group.fixed_blocks
    if group.window is None:
        return whole
    return min(whole, -(-group.window // group.block_size) + 2)  # it starts and ends inside blocks
