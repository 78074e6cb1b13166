import json

import pytest

from axonal.core.errors import FileError
from benchmarks.harness import results


def test_results_that_are_damaged_say_so(tmp_path):
    path = tmp_path / "generate.json"
    for content in ("{", "[]", '{"figures": {}}'):
        path.write_text(content)
        with pytest.raises(FileError, match="run the bench again"):
            results.read(path)


def test_results_are_read_as_they_were_written(tmp_path):
    about = {"machine": "m", "versions": {}, "seed": 0, "command": "c"}
    written = {"figures": {"a [µ]": 1}, "reasons": {"b": "–"}} | about
    path = results.write(tmp_path / "x.json", written)
    assert results.read(path) == written and "µ" in path.read_text()


def test_a_part_is_measured_once_for_a_command(tmp_path):
    path, calls = tmp_path / "part.json", []

    def part():
        calls.append(1)
        return {"a": len(calls)}

    assert results.cached(path, "one", part) == results.cached(path, "one", part) == {"a": 1}
    assert results.cached(path, "two", part) == {"a": 2}
    path.write_text('{"command": "half')
    assert results.cached(path, "two", part) == {"a": 3}
    assert json.loads(path.read_text()) == {"command": "two", "figures": {"a": 3}}
