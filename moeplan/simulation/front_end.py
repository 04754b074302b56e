"""What lies between a client and the engine core: event loops, the tokeniser, streamed answers.

Client and API server are one event loop each, and a loop takes turns: what several requests wait
for is done for all of them before any goes a step further. So of requests that are sent together

- none leaves the client before it has begun all of them (a turn each);
- the first passes a server that has nothing else to do;
- the others are read one after the other (a turn each), as are those that come meanwhile, and only
  then tokenised and handed to the core, one by one (a turn each, and the tokeniser's time).

Answers that end while others go on are closed before that (a turn each), and streamed tokens take
their share of the server's time, so that all else takes longer.

Found in the arrivals that served runs of vLLM 0.24 recorded (validate/evidence/2026-11-27-served):
of 128 short prompts the first reached the core after 52 to 82 ms, the second after 120 to 225 ms,
the last after 205 to 315 ms; three turns of one length fit as well as three lengths. Where 64 or
128 requests end within 70 to 85 ms and others follow at once, none of these came in before all
answers had ended.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from simpy import Environment, Event

from moeplan.simulation.requests import Request

TOKENISER_SHARE = 0.45
"""Of the time that a prompt takes for its length, what the tokeniser does, one prompt at a time.

The rest (the client's and the server's JSON, the message to the core, hashes of blocks) overlaps.
From the same runs: a lone prompt is 2.3 to 2.6 us a token late, a burst of 1024 to 4096 tokens each
comes in at 1.0 us a token; the fit is flat between 0.3 and 0.6.
"""
STREAM_LOOPS = 1.7
"""What a streamed token takes in both loops over what it takes in the server's, the slower one.

In the same runs tokens reach the client 85 us later for each that comes with the step; 50 us are
where servers of others saturate (published runs above 64 users)."""
_MOST_STREAMING = 0.9
"""Share of the server's time that streaming takes at most: requests still come through."""


@dataclass(frozen=True, slots=True)
class FrontEndCosts:
    """Seconds that a request spends outside of the engine core."""

    fixed_s: float = 0.0
    """Of a lone request of few tokens, its own turns (two at least) and the way back included."""
    turn_s: float = 0.0
    """One turn of a request in an event loop, which others wait for."""
    prompt_token_s: float = 0.0
    """A token of a prompt."""
    streamed_token_s: float = 0.0
    """What the server spends on a token of an answer."""

    def handed_s(self, prompt_tokens: int) -> float:
        """What tokenising a prompt and handing it over takes from the next one."""
        return self.turn_s + TOKENISER_SHARE * self.prompt_token_s * prompt_tokens

    def beside_s(self, prompt_tokens: int) -> float:
        """What else a lone request waits for; overlaps with other requests."""
        own = max(self.fixed_s - 2 * self.turn_s, 0.0)
        return own + (1 - TOKENISER_SHARE) * self.prompt_token_s * prompt_tokens


def burst_arrivals_s(costs: FrontEndCosts, requests: int, prompt_tokens: int) -> list[float]:
    """When like requests that are sent together at 0 reach an idle engine, one after the other."""
    turn_s, handed_s = costs.turn_s, costs.handed_s(prompt_tokens)
    first = requests * turn_s + handed_s + costs.beside_s(prompt_tokens)
    read = first + (requests - 1) * turn_s
    return [first, *(read + place * handed_s for place in range(1, requests))]


class FrontEnd:
    """Client and API server before one engine.

    `submit` hands a request to the engine core; `streaming` says how many tokens a second the
    engine gives out now.
    """

    def __init__(
        self,
        env: Environment,
        costs: FrontEndCosts,
        submit: Callable[[Request], None],
        streaming: Callable[[], float],
    ):
        self._env, self._costs = env, costs
        self._submit, self._streaming = submit, streaming
        self._outbox: list[Request] = []
        self._client_free_s = 0.0
        self._to_end = 0
        self._unread: list[Request] = []
        self._ready: deque[Request] = deque()
        self._idle: Event | None = None
        env.process(self._serve())

    def send(self, request: Request) -> None:
        """Send a request now; those that are sent at one moment share the client's turns."""
        self._outbox.append(request)
        if len(self._outbox) == 1:
            self._env.timeout(0.0).callbacks.append(self._begin)

    def end(self) -> None:
        """A request has got its last token now: its answer is closed, a turn of the server.

        Where nothing is left in the engine that is part of the way back, and not to be told.
        """
        if self._costs.turn_s:
            self._to_end += 1
            self._wake()

    def _begin(self, _now: Event) -> None:
        """The client begins what was put into its outbox; then all of it leaves."""
        env, turn_s = self._env, self._costs.turn_s
        sent, self._outbox = self._outbox, []
        begun_s = max(env.now, self._client_free_s)
        for place, request in enumerate(sent):
            request.sent_s = begun_s + place * turn_s
        self._client_free_s = begun_s + len(sent) * turn_s
        if not turn_s and not self._costs.prompt_token_s:
            arrived = env.timeout(self._costs.fixed_s)  # nobody waits for another
            arrived.callbacks.append(partial(self._submit_all, sent))
            return
        left = env.timeout(begun_s + (len(sent) - 1) * turn_s - env.now)
        left.callbacks.append(partial(self._reach, sent))

    def _submit_all(self, sent: Sequence[Request], _now: Event) -> None:
        for request in sent:
            self._submit(request)

    def _reach(self, sent: Sequence[Request], _now: Event) -> None:
        self._unread.extend(sent)
        self._wake()

    def _wake(self) -> None:
        if self._idle is not None:
            self._idle.succeed()
            self._idle = None

    def _serve(self) -> Iterator[Event]:
        """The server's loop: close what ended, read what came, or else hand one over."""
        env, costs = self._env, self._costs
        while True:
            if self._to_end:
                ending, self._to_end = self._to_end, 0
                yield env.timeout(self._beside_streaming(ending * costs.turn_s))
            elif self._unread:
                read, self._unread = self._unread, []
                yield env.timeout(self._beside_streaming(len(read) * costs.turn_s))
                for request in read:
                    waits = env.timeout(self._beside_streaming(costs.beside_s(request.prompt)))
                    waits.callbacks.append(partial(self._get_ready, request))
            elif self._ready:
                request = self._ready.popleft()
                yield env.timeout(self._beside_streaming(costs.handed_s(request.prompt)))
                self._submit(request)
            else:
                self._idle = env.event()
                yield self._idle
                if self._unread and not self._streaming():
                    yield from self._pass(self._unread.pop(0))

    def _pass(self, request: Request) -> Iterator[Event]:
        """Read a request and hand it over before the loop turns to others."""
        costs = self._costs
        yield self._env.timeout(costs.turn_s + costs.handed_s(request.prompt))
        passed = self._env.timeout(costs.beside_s(request.prompt))
        passed.callbacks.append(lambda _now: self._submit(request))

    def _get_ready(self, request: Request, _now: Event) -> None:
        self._ready.append(request)
        self._wake()

    def _beside_streaming(self, seconds: float) -> float:
        """What work takes while tokens are streamed."""
        streaming = self._streaming() * self._costs.streamed_token_s
        return seconds / (1 - min(streaming, _MOST_STREAMING))
