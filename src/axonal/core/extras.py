"""Optional dependencies, imported where they are needed."""

from importlib import import_module
from types import ModuleType

from .errors import MissingExtra


def require(module: str, extra: str) -> ModuleType:
    """Import `module`, or say which extra brings it.

    Raises:
        MissingExtra: `module` can't be imported.
    """
    try:
        return import_module(module)
    except ImportError as error:
        raise MissingExtra(
            f"{module} is not installed; run: pip install 'axonal[{extra}]' ({error})"
        ) from error
