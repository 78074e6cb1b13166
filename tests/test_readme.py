"""What the README says is what the benches measured, and its code runs."""

import re
from pathlib import Path

import pytest

from axonal.commands import watch
from benchmarks import render

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "README.md").read_text()
PAGES = TEXT + (ROOT / "docs/encodings.md").read_text()


RESULTS = sorted((ROOT / "benchmarks/results").glob("*.json"))


def test_every_result_has_its_table_made_from_it():
    found = {mark[2]: mark[3] for mark in render.MARK.finditer(PAGES)}
    assert set(found) == {path.stem for path in RESULTS}
    for path in RESULTS:
        assert found[path.stem] == render.TABLES[path.stem](render.read(path))


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_every_figure_has_what_it_takes_to_make_it_again(path):
    results = render.read(path)
    for value in results["figures"].values():
        if isinstance(value, dict):
            assert value["low"] <= value["value"] <= value["high"]
    bench = "convert" if path.stem == "encodings" else path.stem
    assert f"axonal bench {bench}" in results["command"] and str(results["seed"]) in TEXT


def test_the_code_runs():
    blocks = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    assert len(blocks) == 7
    for block in blocks:
        exec(block, {})


def test_its_settings_watch(tmp_path):
    [text] = re.findall(r"```toml\n(.*?)```", TEXT, re.DOTALL)
    (tmp_path / "watch.toml").write_text(text.replace("7200", "300"))
    said = watch.watch(str(tmp_path / "watch.toml"), tmp_path / "state", None, live=False)
    assert "in 5.0 min: a larger model would be called" in said


def test_the_files_it_links_to_are_there():
    for target in re.findall(r"\]\(([^)#:]+)\)", TEXT):
        assert (ROOT / target).exists(), target
