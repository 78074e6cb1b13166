"""Generated source as modules, in the user's cache, where its compiled form is found again."""

import hashlib
import importlib.util
import os
import sys
import tempfile
from functools import lru_cache
from pathlib import Path
from types import ModuleType

from ..core import files
from ..core.errors import FileError


def folder() -> Path:
    """The folder of generated source: $AXONAL_CACHE, or axonal in the user's cache folder."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("AXONAL_CACHE") or Path(base) / "axonal")


@lru_cache(maxsize=4096)
def module(source: str) -> ModuleType:
    """Import generated source as a module; nothing from outside this process may be passed.

    Numba and Triton keep what they compiled beside or by the file, so that a later process starts
    fast. Where the cache can't be written a temporary folder takes its place.
    """
    name = f"axonal_generated_{hashlib.sha256(source.encode()).hexdigest()[:24]}"
    path = folder() / f"{name}.py"
    try:
        if not path.exists() or path.read_text() != source:
            files.write(path, source)
    except (OSError, FileError):
        path = Path(tempfile.mkdtemp(prefix="axonal-")) / path.name
        path.write_text(source)
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec and spec.loader
    generated = importlib.util.module_from_spec(spec)
    sys.modules[name] = generated  # inspect and pickle look here for the source
    spec.loader.exec_module(generated)
    return generated
