"""Results of benches as JSON: figures, and what it takes to measure them again."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from axonal.commands.console import console
from axonal.core import files
from axonal.core.errors import FileError

# By name a number, or {"value", "low", "high"}; parts may hold lists, from which drawings are made.
Figures = dict[str, Any]
Results = dict[str, Any]  # "figures", `PROVENANCE`, and whatever else a bench's page needs

PROVENANCE = ("machine", "versions", "seed", "command")


def read(path: Path) -> Results:
    """Read a bench's results.

    Raises:
        FileError: the file is missing or damaged.
    """
    try:
        results = json.loads(path.read_text())
        return results | {key: results[key] for key in ("figures", *PROVENANCE)}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FileError(f"can't read {path} ({error}); run the bench again") from error


def write(path: Path, results: Results) -> Path:
    """Write a bench's results.

    Raises:
        FileError: the file can't be written.
    """
    return files.write(path, json.dumps(results, indent=1, ensure_ascii=False) + "\n")


def cached(path: Path, command: str, part: Callable[[], Figures]) -> Figures:
    """Measure a part of a bench, or read it from `path`, where the same command left it before.

    Args:
        path: a JSON file of this part alone.
        command: the bench's; another command, with another seed, say, measures anew.
        part: measures it.

    Raises:
        FileError: it can't be written.
    """
    try:
        earlier = json.loads(path.read_text())
        if earlier["command"] == command:
            console.print(f"{path} has this part of an earlier run; delete it to measure again")
            return earlier["figures"]
    except (OSError, ValueError, KeyError):
        pass  # that run was not finished
    figures = part()
    files.write(path, json.dumps({"command": command, "figures": figures}) + "\n")
    return figures
