"""Every page says what the benches measured, and with which command to measure it again."""

import re
from pathlib import Path

import pytest

from benchmarks.__main__ import app
from benchmarks.benches import BENCHES
from benchmarks.harness import page, results

ROOT = Path(__file__).parents[2]
RESULTS, PAGES = ROOT / "benchmarks/results", ROOT / "docs/benchmarks"


@pytest.fixture(params=BENCHES)
def bench(request):
    return BENCHES[request.param]


def test_every_result_and_every_page_is_that_of_a_bench():
    assert {path.stem for path in RESULTS.glob("*.json")} == set(BENCHES)
    assert {path.name for path in PAGES.iterdir()} == {page.INDEX, *(f"{n}.md" for n in BENCHES)}


def test_the_page_is_rendered_from_the_results(bench, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    written = page.PAGES / f"{bench.name}.md"
    there = written.read_text()
    monkeypatch.setattr(page.files, "write", lambda path, text: text)
    assert page.render(bench) == there
    assert "{{" not in there and "{%" not in there


def test_the_index_has_a_headline_of_each(monkeypatch):
    monkeypatch.chdir(ROOT)
    there = (page.PAGES / page.INDEX).read_text()
    monkeypatch.setattr(page.files, "write", lambda path, text: text)
    assert page.render_index(BENCHES.values()) == there
    for name in BENCHES:
        assert f"]({name}.md) | " in there


def test_every_figure_has_what_it_takes_to_make_it_again(bench):
    written = results.read(RESULTS / f"{bench.name}.json")
    for value in written["figures"].values():
        if isinstance(value, dict):
            assert value["low"] <= value["value"] <= value["high"]
    words = written["command"].split()
    assert words[:4] == ["python", "-m", "benchmarks", bench.name]
    _, arguments, _ = app.parse_args(words[3:])
    options = {p.name: p.default for p in bench.options} | arguments.kwargs
    assert bench.command(options) == written["command"]
    assert options["seed"] == written["seed"]
    text = (PAGES / f"{bench.name}.md").read_text()
    for about in (written["command"], f"seed {written['seed']}", written["machine"]):
        assert about in text
    for package, version in written["versions"].items():
        assert f"{package} {version}" in text


def test_what_a_page_links_to_is_there_and_every_drawing_is_shown():
    shown = set()
    for path in PAGES.iterdir():
        for target in re.findall(r"\]\(([^)#:]+)\)", path.read_text()):
            assert (path.parent / target).exists(), f"{path.name}: {target}"
            shown.add((path.parent / target).resolve())
    assert set(RESULTS.iterdir()) <= shown
