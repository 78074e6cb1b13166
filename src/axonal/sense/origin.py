"""Where a stream comes from: what a state belongs to, and goes on with alone."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

HEAD = 1 << 16  # bytes at the beginning of a file that tell it from others
Origin = dict[str, Any]


def origin_of(url: str, options: Mapping[str, Any]) -> Origin:
    """Describe a source: its address and options, and of a file the size and the beginning."""
    text = json.dumps(dict(options), sort_keys=True, default=str)
    path = Path(url)
    if not path.is_file():
        return {"url": url, "options": text, "size": 0, "head": ""}
    size = path.stat().st_size
    return {"url": str(path.resolve()), "options": text, "size": size, "head": _head(path, size)}


def difference(before: Origin, now: Origin) -> str:
    """Why `now` is not the stream that was `before`; "" if it is, or if it is a file that grew."""
    if before["url"] != now["url"]:
        return f"it is of {before['url']}, not of {now['url']}"
    if before["options"] != now["options"]:
        return f"it is of {now['url']} with the options {before['options']}, not {now['options']}"
    if now["size"] < before["size"]:
        return f"{now['url']} has become shorter, from {before['size']:,} to {now['size']:,} bytes"
    if before["size"] and _head(Path(now["url"]), before["size"]) != before["head"]:
        return f"{now['url']} is another file now: it begins otherwise"
    return ""


def _head(path: Path, size: int) -> str:
    with path.open("rb") as file:
        return hashlib.sha256(file.read(min(size, HEAD))).hexdigest()
