"""Pages from the templates of this room."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from . import charts


def page(template: str, filters: Mapping[str, Callable], **values: Any) -> str:
    """Fill a template of this room with `values`; its filter `si` writes numbers with prefixes."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"si": charts.si, **filters}
    return environment.get_template(template).render(**values)
