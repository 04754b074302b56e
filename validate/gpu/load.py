"""Send exact batches to a server: the step recorder inside it tells how long each step took."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import aiohttp


@dataclass(slots=True)
class Client:
    """Sends token-id prompts to one server and keeps a list of what it did when."""

    url: str
    model: str
    vocab_size: int
    phases: list[dict[str, Any]] = field(default_factory=list)
    random: random.Random = field(default_factory=lambda: random.Random(0))

    def prompt(self, tokens: int) -> list[int]:
        """Random ids without the special ones."""
        return [self.random.randrange(4, self.vocab_size) for _ in range(tokens)]

    async def request(self, http: aiohttp.ClientSession, prompt: list[int], output: int) -> None:
        """One greedy completion of exactly `output` tokens."""
        body = {"model": self.model, "prompt": prompt, "max_tokens": output, "temperature": 0}
        body |= {"ignore_eos": True}
        async with http.post(f"{self.url}/v1/completions", json=body) as answer:
            if answer.status != 200:
                raise RuntimeError(f"{answer.status}: {(await answer.text())[:300]}")
            await answer.read()

    def run(self, kind: str, work: Callable[..., Any], **about: Any) -> None:
        """Run an asynchronous piece of work and remember its span and description."""
        begun = time.perf_counter()
        asyncio.run(self._with_session(work))
        self.phases.append({"kind": kind, "t0": begun, "t1": time.perf_counter(), **about})

    async def _with_session(self, work: Callable[..., Any]) -> None:
        connector = aiohttp.TCPConnector(limit=0)
        timeout = aiohttp.ClientTimeout(total=120)
        async with aiohttp.ClientSession(connector=connector, timeout=timeout) as http:
            await work(http)

    def decode(self, kind: str, batch: int, context: int, output: int, **about: Any) -> None:
        """`batch` requests at once: their last steps together are decodes of exactly that batch."""
        prompts = [self.prompt(context) for _ in range(batch)]

        async def work(http: aiohttp.ClientSession) -> None:
            await asyncio.gather(*(self.request(http, p, output) for p in prompts))

        self.run(kind, work, batch=batch, context=context, output=output, **about)

    def prefill(self, kind: str, tokens: int, repeats: int) -> None:
        """Prompts of one length, one after another, each alone in the engine."""
        prompts = [self.prompt(tokens) for _ in range(repeats)]

        async def work(http: aiohttp.ClientSession) -> None:
            for prompt in prompts:
                await self.request(http, prompt, 1)

        self.run(kind, work, tokens=tokens, repeats=repeats)

    def mixed(self, batch: int, context: int, output: int, prefills: list[int]) -> None:
        """Prompts that arrive one at a time while `batch` requests decode."""
        prompts = [self.prompt(context) for _ in range(batch)]
        injected = [self.prompt(tokens) for tokens in prefills]

        async def inject(http: aiohttp.ClientSession) -> None:
            await asyncio.sleep(0.6 + batch * context / 60_000)
            for prompt in injected:
                await self.request(http, prompt, 1)
                await asyncio.sleep(0.03)

        async def work(http: aiohttp.ClientSession) -> None:
            await asyncio.gather(*(self.request(http, p, output) for p in prompts), inject(http))

        self.run("mixed", work, batch=batch, context=context, prefills=prefills)
