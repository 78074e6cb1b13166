"""Configuration as frozen keyword-only dataclasses that survive a trip through JSON."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Self

from .errors import InputError


@dataclass(frozen=True, kw_only=True)
class Config:
    """Base of every configuration: subclass it as `@dataclass(frozen=True, kw_only=True)`."""

    def to_dict(self) -> dict[str, Any]:
        """A plain dictionary that JSON can hold."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """The configuration that `to_dict` wrote; lists become tuples.

        Raises:
            InputError: `values` is no dictionary, lacks a field, or names an unknown one.
        """
        known = [field.name for field in fields(cls)]
        if not isinstance(values, dict) or (unknown := sorted(set(values) - set(known))):
            what = f"unknown field {unknown[0]!r}" if isinstance(values, dict) else "not a table"
            raise InputError(f"{cls.__name__}: {what}; the fields are {', '.join(known)}")
        try:
            return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})
        except TypeError as error:
            raise InputError(f"{cls.__name__}: {error}") from error


def renamed(values: Mapping[str, Any], names: Mapping[str, str] | None) -> dict[str, Any]:
    """`values` under today's `names`, where a file of before has others; never two under one."""
    names = {old: new for old, new in (names or {}).items() if new not in values}
    return {names.get(name, name): value for name, value in values.items()}
