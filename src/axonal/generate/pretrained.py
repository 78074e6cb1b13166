"""Generators in folders, those that ship among them, and their certificates."""

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

from ..convert.certificate import Certificate
from ..core.errors import FileError, InputError
from ..data import ASSETS
from ..models.base import CONFIG, Model
from .media import MEDIA

CERTIFICATES, START = "certificates.json", "start"


def pretrained_names() -> list[str]:
    """The names of the generators that ship."""
    folders = (path.parent for path in ASSETS.glob(f"*/{CONFIG}"))
    return sorted(folder.name for folder in folders if "classifier" not in folder.name)


def generator_folder(name: str | Path) -> Path:
    """The folder of the generator that ships as `name`, or `name` itself.

    Raises:
        InputError: there is no generator.
    """
    folder = ASSETS / str(name) if str(name) in pretrained_names() else Path(name)
    if not (folder / CONFIG).exists() or "classifier" in folder.name:
        raise InputError(f"no generator {str(name)!r}; there are {', '.join(pretrained_names())}")
    return folder


def load_network(folder: Path) -> Model:
    """The network in `folder`, of the kind in `MEDIA` whose configuration has the same fields.

    Raises:
        FileError: files are missing, damaged, or belong to another version or model.
    """
    kinds = [*MEDIA]
    try:
        names = json.loads((folder / CONFIG).read_text()).keys()
        fitting = [kind for kind in kinds if names == {f.name for f in fields(kind.Config)}]
    except (OSError, ValueError, AttributeError):
        fitting = []  # whose `load` says what is wrong
    return (fitting or kinds)[0].load(folder)


def read_certificates(folder: Path) -> dict[str, Any]:
    """{"sampler", "steps", "default" budget, "certificates"} of a sigma-delta generator.

    Raises:
        FileError: the file is missing, damaged or of another version.
    """
    path = folder / CERTIFICATES
    try:
        table = json.loads(path.read_text())
        table["certificates"] = [Certificate.from_dict(row) for row in table["certificates"]]
        for key, kind in {"sampler": str, "steps": int, "default": int | float}.items():
            if not isinstance(table[key], kind):
                raise ValueError(f"{key} is {table[key]!r}")
        return {key: table[key] for key in ("sampler", "steps", "default", "certificates")}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FileError(f"can't read {path} ({error}); convert the generator again") from error
