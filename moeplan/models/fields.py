"""`Fields`: typed, bounded access to the entries of a config.json."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn

from moeplan.errors import ModelConfigError

LARGEST = 10**6
"""Largest structural size that is believed; models of today stay below 300,000."""
LARGEST_OF = {
    "num_hidden_layers": 10**4,
    "vocab_size": 10**8,
    "vision_params": 10**12,
    "max_position_embeddings": 10**10,
    "sliding_window": 10**10,
    "attention_chunk_size": 10**10,
}
MISSING = object()


class Fields:
    """Reads structural fields by name; every refusal names the field, its value and the remedy.

    `defaults` holds the values that transformers documents for this model type *and* that the
    published config.json really leaves out; nothing else is ever filled in. `read` collects the
    fields that an architecture was built from.
    """

    def __init__(self, values: Mapping[str, Any], model: str, defaults: Mapping[str, Any]):
        self._values = values
        self._defaults = defaults
        self._model = model
        self.read: set[str] = set()

    def refuse(self, name: str, value: object, remedy: str) -> NoReturn:
        """Raise ModelConfigError about a field."""
        raise ModelConfigError(f"{self._model}: {name} = {_shown(value)}: {remedy}")

    def has(self, name: str) -> bool:
        """Whether the config states the field (null counts as unstated)."""
        return self._values.get(name) is not None

    def integer(self, *names: str, minimum: int = 1) -> int:
        """A whole number, under the first of several spellings that the config holds."""
        name = next((n for n in names if self.has(n)), names[0])
        value = self._get(name)
        largest = LARGEST_OF.get(name, LARGEST)
        if isinstance(value, bool) or not isinstance(value, int):
            self.refuse(name, value, "must be a whole number; correct config.json")
        if not minimum <= value <= largest:
            self.refuse(name, value, f"must lie between {minimum} and {largest:,}")
        return value

    def optional_integer(self, name: str) -> int | None:
        """A whole number, or None where the config says null or leaves an optional part out."""
        return self.integer(name) if self.has(name) else None

    def nullable_integer(self, name: str) -> int | None:
        """A whole number or a null that the config states: leaving it out is refused."""
        if name in self._values and self._values[name] is None:
            return None
        return self.integer(name)

    def flag(self, name: str) -> bool:
        """true or false."""
        value = self._get(name)
        if not isinstance(value, bool):
            self.refuse(name, value, "must be true or false; correct config.json")
        return value

    def choice(self, name: str, meanings: Mapping[str, Any]) -> Any:
        """The meaning of a word from a closed list."""
        value = self._get(name)
        if not isinstance(value, str) or value not in meanings:
            self.refuse(name, value, f"must be one of {', '.join(meanings)}")
        return meanings[value]

    def words(self, name: str, meanings: Mapping[str, Any], length: int | None) -> list[Any]:
        """The meanings of a list (or string) of words, one a layer."""
        value = self._get(name)
        if not isinstance(value, list | str) or not value:
            self.refuse(name, value, "must be a list with one entry a layer")
        for word in value:
            if not isinstance(word, str) or word not in meanings:
                self.refuse(name, word, f"every entry must be one of {', '.join(meanings)}")
        if length is not None and len(value) != length:
            remedy = f"holds {len(value)} entries for num_hidden_layers = {length}; both must agree"
            self.refuse(name, value, remedy)
        return [meanings[word] for word in value]

    def indices(self, name: str, length: int) -> set[int]:
        """A list of layer numbers."""
        value = self._get(name)
        if not isinstance(value, list):
            self.refuse(name, value, "must be a list of layer numbers")
        for index in value:
            if isinstance(index, bool) or not isinstance(index, int) or not 0 <= index < length:
                self.refuse(name, index, f"every layer number must lie between 0 and {length - 1}")
        return set(value)

    def stated_list(self, name: str) -> bool:
        """Whether the config holds a non-empty list (or anything else to complain about)."""
        return self.has(name) and self._values[name] != []

    def numbers(self, name: str, allowed: tuple[int, ...], length: int) -> list[int]:
        """A list of small whole numbers, one a layer."""
        value = self._get(name)
        if not isinstance(value, list) or len(value) != length:
            self.refuse(name, value, f"must be a list of {length} entries, one a layer")
        for entry in value:
            if isinstance(entry, bool) or entry not in allowed:
                self.refuse(name, entry, f"every entry must be one of {allowed}")
        return value

    def only(self, name: str, modelled: object) -> None:
        """Refuse any structure but the one that moeplan models."""
        value = self._get(name)
        if type(value) is not type(modelled) or value != modelled:
            remedy = f"only {_shown(modelled)} is modelled; this variant changes weights"
            self.refuse(name, value, remedy)

    def _get(self, name: str) -> Any:
        value = self._values.get(name)
        if value is not None:
            self.read.add(name)
            return value
        found = self._defaults.get(name, MISSING)
        if found is MISSING:
            state = "null" if name in self._values else "missing"
            raise ModelConfigError(
                f"{self._model}: {name} is {state}: the architecture needs it; "
                "take it from the model's published config.json"
            )
        return found


def _shown(value: object, width: int = 60) -> str:
    """A short JSON-like rendering of a value for an error line."""
    words = {None: "null", True: "true", False: "false"}
    text = words[value] if value is None or isinstance(value, bool) else repr(value)
    return text if len(text) <= width else text[: width - 1] + "…"
