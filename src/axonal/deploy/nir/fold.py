"""What a simulator's importer leaves out, kept out of its files: factors within the weights."""

from typing import Any

import numpy as np

from ...core.errors import InputError
from .conventions import Convention

Parts = dict[str, tuple[str, dict[str, Any]]]  # name -> kind, parameters


def folded(parts: Parts, name: str | None, gain: np.ndarray) -> bool:
    """Whether the weights called `name` could take up what scales their values, one a channel."""
    kind, values = parts.get(name or "", ("", {}))
    each = gain.reshape(len(gain), -1)
    if "weight" not in values or (each != each[:, :1]).any():
        return False
    by, weight = each[:, 0].astype(np.float32), values["weight"]
    found = {"weight": weight * by.reshape(-1, *(1 for _ in weight.shape[1:]))}
    found |= {"bias": values["bias"] * by} if "bias" in values else {}
    parts[name or ""] = kind, values | found
    return True


def check(parts: Parts, convention: Convention) -> None:
    """Refuse what the importer would leave out.

    Raises:
        InputError: there is such a node.
    """
    for name, (kind, _) in parts.items():
        if not convention.knows(kind):
            raise InputError(
                f"nir: {name!r} would be a {kind}, which this simulator's importer leaves out "
                f"without a word; it has {', '.join(sorted(convention.nodes or ()))}"
            )
