"""Generators that ship, and their certificates."""

import json
from pathlib import Path
from typing import Any

from ..convert.certificate import Certificate
from ..core.errors import FileError
from .features import ASSETS

CERTIFICATES, START = "certificates.json", "start"


def pretrained() -> list[str]:
    """The names of the generators that ship."""
    folders = (path.parent for path in ASSETS.glob("*/config.json"))
    return sorted(folder.name for folder in folders if "classifier" not in folder.name)


def read_certificates(folder: Path) -> dict[str, Any]:
    """{"sampler", "steps", "default" budget, "certificates"} of a sigma-delta generator.

    Raises:
        FileError: the file is missing, damaged or of another version.
    """
    path = folder / CERTIFICATES
    try:
        found = json.loads(path.read_text())
        found["certificates"] = [Certificate.from_dict(c) for c in found["certificates"]]
        for key, kind in {"sampler": str, "steps": int, "default": int | float}.items():
            if not isinstance(found[key], kind):
                raise ValueError(f"{key} is {found[key]!r}")
        return {key: found[key] for key in ("sampler", "steps", "default", "certificates")}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FileError(f"can't read {path} ({error}); convert the generator again") from error
