"""A detector that sees rows in their context, by four views of their history."""

from .context import Context

__all__ = ["Context"]
