"""Runs inside vLLM's worker (`--worker-extension-cls`): weights that compute, routers that route.

Name for the option: `moeplan_routing.RoutedWorker`.

vLLM's dummy weights leave MXFP4 experts at zero and everything else tiny, so the router sees nearly
the same vector for every token and picks the same experts. Here weights are random with the usual
fan-in scale, the residual stream stays dominated by random token embeddings, and router weights are
drawn so that each token's top-k is nearly independent and picks each expert with a given
probability.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from vllm.model_executor.model_loader.dummy_loader import DummyModelLoader

COMMON = 8.0
"""Value of embedding dimension 0 for every token; router column 0 turns it into expert bias."""
BRANCH_GAIN = 0.1
"""Scale of what a layer adds to the residual stream, relative to the embedding."""
LOGIT_STD = 1.28
"""Standard deviation of a token's router logits about the expert's own level."""
_BRANCH_OUT = ("o_proj", "out_proj", "down_proj", "w2_weight")
_ROUTER = (".router", ".gate")


def _fill_small_float(tensor: torch.Tensor) -> None:
    """Unit normal into a float8 tensor, slice by slice (no float8 random kernel exists)."""
    for part in tensor.flatten(0, -2).split(1 << 16):
        part.copy_(torch.randn(part.shape, device=part.device, dtype=torch.float16))


def _fill_scale(name: str, tensor: torch.Tensor, hidden: int) -> None:
    gain = BRANCH_GAIN if any(part in name for part in _BRANCH_OUT) else 1.0
    if tensor.dtype == torch.uint8:  # E8M0: 2^(byte − 127); E2M1 values have an RMS of 2.9
        tensor.fill_(116 if gain < 1 else 119)
    else:
        tensor.fill_(gain * hidden**-0.5)


def _fill_vector(name: str, tensor: torch.Tensor) -> None:
    leaf = name.rsplit(".", 1)[-1]
    tensor.fill_({"weight": 1.0, "A": -1.0, "D": 1.0}.get(leaf, 0.0))


def _fill(name: str, tensor: torch.Tensor, hidden: int) -> None:
    leaf = name.rsplit(".", 1)[-1]
    if tensor.ndim == 0:  # KV-cache scales keep vLLM's own default
        return
    if "scale" in leaf:
        _fill_scale(name, tensor, hidden)
    elif not tensor.is_floating_point():
        tensor.random_(0, 256)
    elif tensor.ndim < 2 or "bias" in leaf:
        _fill_vector(name, tensor)
    elif tensor.element_size() == 1:
        _fill_small_float(tensor)
    elif "embed" in name:
        tensor.normal_()
        tensor[:, 0] = COMMON
    else:
        gain = BRANCH_GAIN if any(part in name for part in _BRANCH_OUT) else 1.0
        tensor.normal_(0.0, gain * tensor.shape[-1] ** -0.5)


def _routers(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """Router layers: their weight is [experts, hidden]."""
    return [
        (name, module)
        for name, module in model.named_modules()
        if name.endswith(_ROUTER) and getattr(module, "weight", None) is not None
    ]


@torch.no_grad()
def set_routers(model: nn.Module, shares: Sequence[float] | None = None, seed: int = 0) -> None:
    """Draw router weights: logits N(0, LOGIT_STD) a token plus a level an expert.

    A token's noise lifts an expert over the threshold of its top-k with the probability that
    `shares` holds (they sum to k), in another order in each layer; None makes all levels equal.
    The same on every rank: routers are replicated.
    """
    generator = torch.Generator().manual_seed(seed)
    for _, module in _routers(model):
        weight = module.weight
        experts, hidden = weight.shape
        drawn = torch.randn(experts, hidden, generator=generator) * (LOGIT_STD * hidden**-0.5)
        drawn[:, 0] = 0.0
        if shares is not None:
            order = torch.randperm(experts, generator=generator)
            drawn[:, 0] = levels(shares)[order] / COMMON
        weight.copy_(drawn.to(weight.dtype))


def levels(shares: Sequence[float]) -> torch.Tensor:
    """Levels that a normal noise of LOGIT_STD lifts over a common threshold with those shares."""
    picked = torch.tensor(shares, dtype=torch.float64).clamp(1e-9, 1 - 1e-9)
    found = LOGIT_STD * torch.special.ndtri(picked)
    return (found - found.mean()).float()


@torch.no_grad()
def _load_weights(_self: DummyModelLoader, model: nn.Module, model_config: Any) -> None:
    """Takes the place of `DummyModelLoader.load_weights`."""
    hidden = model_config.get_hidden_size()
    rank = torch.distributed.get_rank() if torch.distributed.is_initialized() else 0
    torch.manual_seed(rank)  # ranks hold different shards; their sum must not be one of them twice
    for name, parameter in model.named_parameters():
        _fill(name, parameter.data, hidden)
    set_routers(model)


DummyModelLoader.load_weights = _load_weights


class TouchCounter:
    """Forward hooks that count the distinct experts of each router call."""

    def __init__(self, model: nn.Module, top_k: int) -> None:
        self.top_k = top_k
        self.distinct: dict[int, list[int]] = defaultdict(list)
        self.picks: dict[str, torch.Tensor] = {}
        self.bad = 0
        self.handles = [
            module.register_forward_hook(self._hook(name)) for name, module in _routers(model)
        ]

    def _hook(self, name: str):
        def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
            logits = output[0] if isinstance(output, tuple) else output
            self._count(name, logits)

        return hook

    def _count(self, name: str, logits: torch.Tensor) -> None:
        self.bad += int((~torch.isfinite(logits)).sum())
        chosen = logits.float().topk(self.top_k, dim=-1).indices.flatten()
        counts = torch.bincount(chosen, minlength=logits.shape[-1])
        self.distinct[logits.shape[0]].append(int((counts > 0).sum()))
        self.picks[name] = self.picks.get(name, 0) + counts

    def result(self) -> dict[str, Any]:
        """Counts by tokens in the call, and each layer's picks an expert over all calls."""
        return {
            "top_k": self.top_k,
            "distinct": {str(tokens): values for tokens, values in self.distinct.items()},
            "picks": {name: counts.tolist() for name, counts in self.picks.items()},
            "non_finite_logits": self.bad,
        }

    def close(self) -> None:
        """Remove the hooks."""
        for handle in self.handles:
            handle.remove()


class RoutedWorker:
    """Methods that `collective_rpc` calls in the worker; mixed into vLLM's worker class."""

    def moeplan_set_routing(self, shares: str) -> dict[str, Any]:
        """Redraw every router in place; CUDA graphs keep reading the same memory."""
        model = self.model_runner.get_model()
        set_routers(model, json.loads(shares))
        return {"routers": len(_routers(model))}

    def moeplan_count_on(self, top_k: str) -> dict[str, Any]:
        """Leave CUDA graphs and compiled code, and count experts from the next step on."""
        self._moeplan_eager(True)
        self._moeplan_counter = TouchCounter(self.model_runner.get_model(), int(top_k))
        return {"hooks": len(self._moeplan_counter.handles)}

    def moeplan_count_off(self) -> dict[str, Any]:
        """Return to graphs; gives the counts."""
        result = self._moeplan_counter.result()
        self._moeplan_counter.close()
        self._moeplan_eager(False)
        return result

    def _moeplan_eager(self, eager: bool) -> None:
        runner = self.model_runner
        dispatcher = getattr(runner, "cudagraph_dispatcher", None)
        if dispatcher is not None:
            if not hasattr(self, "_moeplan_keys"):
                self._moeplan_keys = dispatcher.keys_initialized
            dispatcher.keys_initialized = False if eager else self._moeplan_keys
        for module in runner.get_model().modules():
            if hasattr(module, "do_not_compile"):
                module.__dict__.setdefault("_moeplan_compiled", module.do_not_compile)
                module.do_not_compile = True if eager else module._moeplan_compiled
