"""`StageTimer`: GPU seconds that one pipeline stage spends on a step.

Token-dependent operators are tabulated once; attention is linear in the summed context, so that a
stretch of decode steps is priced in one vectorised call.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

import numpy as np

from moeplan.cost.attention_time import DecodeAttentionTime, PrefillAttentionTime
from moeplan.cost.batch import StepBatch
from moeplan.cost.engine import ResolvedEngine
from moeplan.cost.least_time import LeastQuery
from moeplan.cost.operators import (
    MICRO,
    TERA,
    Array,
    LinearOperator,
    Load,
    RecurrentOperator,
    draft_novelty,
    states_a_decode,
)
from moeplan.cost.stages import Stage
from moeplan.hardware_specs.schema import SmallKernels

_DENSE_TABLE = 1024
_COARSE_STRIDE = 64


class StageTimer:
    """GPU seconds of one pipeline stage."""

    def __init__(
        self,
        stage: Stage,
        small: SmallKernels,
        engine: ResolvedEngine,
        most_tokens: int,
        tokens_a_decode: int = 1,
        rows_a_decode: int = 1,
    ):
        """`tokens_a_decode` and `rows_a_decode`: tokens, and rows of the head, of one sequence."""
        self._each, self._rows_each = tokens_a_decode, rows_a_decode
        self._decode_attention = [
            DecodeAttentionTime.of(op, tokens_a_decode) for op in stage.decode_attention
        ]
        self._prefill_attention = [PrefillAttentionTime.of(op) for op in stage.prefill_attention]
        layers = stage.layer_equivalents * MICRO
        self._small = layers * small.decode_us_per_layer
        self._prefill_extra = layers * small.prefill_us_per_layer
        launch = engine.host.launch_us * MICRO
        self._eager_launch = stage.launches.eager * launch
        self._piecewise_launch = stage.launches.piecewise * launch
        self._graph_top = engine.cuda_graph_max_tokens
        self._mixed_top = self._graph_top if engine.piecewise_graphs else 0
        by_tokens, by_rows, self._recurrent = _split(stage.token)
        self._token_array = _token_table(by_tokens, most_tokens, engine)
        self._tokens: list[float] = self._token_array.tolist()  # single entries come faster of it
        rows = engine.max_num_seqs * rows_a_decode
        self._row_array = _row_table(by_rows, rows, engine.host.exposed_us_per_sequence)
        self._rows: list[float] = self._row_array.tolist()
        self._decode_tokens = self._decode_token_table(by_tokens, engine)
        self._decode = self._decode_table(engine.max_num_seqs)

    def _decode_token_table(self, operators: list, engine: ResolvedEngine) -> np.ndarray:
        """Token-dependent seconds of pure decode steps by sequences."""
        most = engine.max_num_seqs
        if self._each == 1:
            return self._token_array[: most + 1]
        top = most * self._each
        return _token_table(operators, top, engine, draft_novelty(self._each))[:: self._each]

    def _decode_table(self, max_num_seqs: int) -> list[float]:
        batches = np.arange(max_num_seqs + 1)
        total = self._decode_tokens + self._row_array[:: self._rows_each]
        return (total + self._recurrent_seconds(batches, 0) + self._small).tolist()

    def _recurrent_seconds(self, decodes: Array, prefill: Array) -> Array:
        states = states_a_decode(self._each) * decodes
        return sum(
            floor + per_sequence * states + per_token * prefill
            for floor, per_sequence, per_token in self._recurrent
        )

    def seconds(self, batch: StepBatch) -> float:
        """Time of a step of any composition: the GPU's, or the host's to launch it."""
        return max(self.gpu_seconds(batch), self.launch_seconds(batch))

    def gpu_seconds(self, batch: StepBatch) -> float:
        """Time that the GPU computes."""
        contexts, chunks = batch.decode_contexts, batch.prefill_chunks
        decodes = len(contexts)
        attention = 0.0
        if decodes:
            for kind in self._decode_attention:
                attention += kind.seconds(contexts)
        if not chunks:
            return self._decode[decodes] + attention
        prefill = sum(new for new, _ in chunks)
        work = self._tokens[min(decodes * self._each + prefill, len(self._tokens) - 1)]
        prompts = 0.0
        for kind in self._prefill_attention:
            prompts += kind.seconds(chunks)
        return (
            work
            + prompts
            + self._rows[self._head_rows(batch)]
            + self._recurrent_seconds(decodes, prefill)
            + attention
            + self._small
            + self._prefill_extra
        )

    def launch_seconds(self, batch: StepBatch) -> float:
        """Time that the host launches what no graph holds."""
        decodes = len(batch.decode_contexts)
        if not batch.prefill_chunks:
            return self._decode_launch(decodes)
        prefill = sum(new for new, _ in batch.prefill_chunks)
        return self._prefill_launch(decodes * self._each + prefill)

    def _decode_launch(self, decodes: int) -> float:
        """Host seconds to launch a pure decode step: none in a full graph, or without any."""
        tokens = decodes * self._each
        return 0.0 if not tokens or tokens <= self._graph_top else self._eager_launch

    def _prefill_launch(self, tokens: int) -> float:
        """Host seconds to launch a step with prefill, which no full graph covers."""
        return self._piecewise_launch if tokens <= self._mixed_top else self._eager_launch

    def _head_rows(self, batch: StepBatch) -> int:
        drafts = (self._rows_each - 1) * len(batch.decode_contexts)
        return min(batch.sampled_rows + drafts, len(self._rows) - 1)

    def stretch_seconds(self, contexts: np.ndarray) -> np.ndarray:
        """`seconds` of many pure decode steps, contexts of shape (steps, sequences)."""
        steps, decodes = contexts.shape
        total = np.full(steps, self._decode[decodes])
        for attention in self._decode_attention:
            total += attention.stretch_seconds(contexts)
        return np.maximum(total, self._decode_launch(decodes))

    def decode_seconds(self, contexts: np.ndarray, steps: int) -> np.ndarray:
        """GPU time of each of the next pure decode steps."""
        total = np.full(steps, self._decode[len(contexts)])
        for attention in self._decode_attention:
            total += attention.run_seconds(contexts, steps)
        return np.maximum(total, self._decode_launch(len(contexts)))

    def least(
        self, query: LeastQuery, price: Callable[[DecodeAttentionTime], np.ndarray], *, floors: bool
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """`decode`, `riding` and `prefill` of a `LeastTimes`, with decode attention by `price`.

        `floors` holds decode steps to their launches. Those of prompts may hide behind steps before
        them, and decodes that ride in those of their prompts.
        """
        batches = np.arange(query.largest + 1)
        states = self._recurrent_seconds(batches, 0) - self._recurrent_seconds(0, 0)
        rows = self._row_array[batches * self._rows_each]
        tokens = np.minimum.accumulate(self._decode_tokens[::-1])[::-1][batches]
        base = tokens + rows + self._recurrent_seconds(0, 0) + self._small
        lone = states + sum(price(kind) for kind in self._decode_attention)
        decode, prefill = base + lone, self._least_prefill(query.sizes)
        if not floors:
            return decode[1:], rows + np.where(batches > 0, lone, 0.0), prefill
        decode = np.maximum(decode, [self._decode_launch(n) for n in batches])
        return decode[1:], np.zeros(len(batches)), prefill

    def _least_prefill(self, sizes: np.ndarray) -> np.ndarray:
        return (
            self._rising[sizes]
            + self._recurrent_seconds(0, sizes)
            + self._small
            + self._prefill_extra
        )

    @cached_property
    def _rising(self) -> np.ndarray:
        """Least seconds of the token-dependent operators for that many tokens or more.

        Their table falls in places: where an all-reduce changes its path.
        """
        return np.minimum.accumulate(self._token_array[::-1])[::-1]

    def prompt_attention(self, prompts: np.ndarray, before: np.ndarray) -> float:
        """Least seconds of attention for whole prompts, see `PrefillAttentionTime`."""
        return sum(kind.least_seconds(prompts, before) for kind in self._prefill_attention)


def _split(operators: tuple) -> tuple[list, list, list[tuple[float, float, float]]]:
    """Operators by what they depend on: all tokens, sampled rows, or decodes and prefill apart."""
    by_rows = [op for op in operators if isinstance(op, LinearOperator) and op.per_row]
    recurrent = [op for op in operators if isinstance(op, RecurrentOperator)]
    rest = [op for op in operators if op not in by_rows and op not in recurrent]
    return rest, by_rows, [_recurrent_line(op) for op in recurrent]


def _recurrent_line(op: RecurrentOperator) -> tuple[float, float, float]:
    """(floor, seconds a decoding sequence, seconds a prefill token) of all executions."""
    table = op.table
    return (
        op.count * table.floor_us * MICRO,
        op.count * 2 * op.state_bytes / (table.bandwidth_tb_per_s * TERA),
        op.count * 2 * op.flops_per_token / (table.rate_tflops * TERA),
    )


def _token_table(
    operators: list, top: int, engine: ResolvedEngine, novelty: float = 1.0
) -> np.ndarray:
    """Seconds of the token-dependent operators for 0..top tokens.

    Exact up to 1,024 tokens (every graph size among them), linear between every 64th above.
    `novelty`: share of the tokens that choose experts independently.
    """
    tokens = np.unique(
        np.concatenate(
            [np.arange(min(top, _DENSE_TABLE) + 1), np.arange(0, top, _COARSE_STRIDE), [top]]
        )
    )
    padded = _padded(tokens, engine.cuda_graph_sizes)
    routed = padded if engine.routes_padding else tokens
    load = Load(routed.astype(float), padded.astype(float), 0.0, 0.0, 0.0, novelty)
    total = np.zeros(len(tokens))
    for op in operators:
        total += op.count * op.cost(load).seconds
    return np.interp(np.arange(top + 1), tokens, total)


def _padded(tokens: np.ndarray, graph_sizes: tuple[int, ...]) -> np.ndarray:
    """`ResolvedEngine.padded_tokens` of many batches."""
    sizes = np.array(graph_sizes, dtype=tokens.dtype)
    place = np.searchsorted(sizes, tokens)
    return np.where(place < len(sizes), np.append(sizes, 0)[place], tokens)


def _row_table(operators: list, top: int, exposed_us: float) -> np.ndarray:
    """Seconds for 0..top sampled rows; the stage that samples has the LM head."""
    rows = np.arange(top + 1, dtype=float)
    total = rows * exposed_us * MICRO if operators else np.zeros(top + 1)
    for op in operators:
        total += op.count * op.cost(Load(rows, rows, 0.0, 0.0, rows)).seconds
    return total
