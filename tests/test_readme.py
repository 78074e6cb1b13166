"""What the README says is what the benches measured, and its code runs."""

import re
from pathlib import Path

from axonal.recipes import readme

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "README.md").read_text()


def test_the_table_is_made_from_the_results():
    results = readme.read(ROOT / "benchmarks/results/generate.json")
    found = readme.MARK.search(TEXT)
    assert found and found[2] == readme.table(results)


def test_every_figure_has_what_it_takes_to_make_it_again():
    results = readme.read(ROOT / "benchmarks/results/generate.json")
    for value in results["figures"].values():
        if isinstance(value, dict):
            assert value["low"] <= value["value"] <= value["high"]
    assert "axonal bench generate" in results["command"] and str(results["seed"]) in TEXT


def test_the_code_runs():
    blocks = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    assert len(blocks) == 2
    for block in blocks:
        exec(block, {})


def test_the_files_it_links_to_are_there():
    for target in re.findall(r"\]\(([^)#:]+)\)", TEXT):
        assert (ROOT / target).exists(), target
