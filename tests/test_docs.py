"""What README and docs show runs, links to what is there, and says what was measured."""

import json
import re
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "docs"))

from operators import page

from axonal.commands import watch

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
PAGES = [path for path in PAGES if "_build" not in path.parts]
EXAMPLES = [
    (path, i, block)
    for path in PAGES
    for i, block in enumerate(re.findall(r"```python\n(.*?)```", path.read_text(), re.DOTALL))
]
IMPORT = re.compile(r"^(?:from|import) (axonal[\w.]*)", re.MULTILINE)


@pytest.mark.parametrize(
    ("path", "block"),
    [pytest.param(p, block, id=f"{p.relative_to(ROOT)}-{i}") for p, i, block in EXAMPLES],
)
def test_an_example_imports_from_the_top_or_one_room_and_runs(path, block):
    assert all(name.count(".") <= 1 for name in IMPORT.findall(block))
    exec(compile(block, str(path), "exec"), {})


def test_there_are_examples_in_every_guide_and_the_readme():
    shown = {path for path, _, _ in EXAMPLES}
    guides = set((ROOT / "docs/guides").glob("*.md")) - {ROOT / "docs/guides/watch_settings.md"}
    assert {ROOT / "README.md", ROOT / "docs/quickstart.md", *guides} <= shown


def test_settings_of_a_watch_run(tmp_path):
    text = (ROOT / "docs/guides/watch.md").read_text()
    [settings] = re.findall(r"```toml\n(.*?)```", text, re.DOTALL)
    (tmp_path / "watch.toml").write_text(settings.replace("7200", "300"))
    verdict = watch.watch(str(tmp_path / "watch.toml"), tmp_path / "state", None, live=False)
    assert "in 5.0 min: a larger model would be called" in verdict


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_what_a_page_links_to_is_there(path):
    for target in re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", path.read_text()):
        assert (path.parent / target).exists(), target


def test_the_readme_is_one_page():
    assert len((ROOT / "README.md").read_bytes()) <= 7000


FIGURES = {
    ("generate", "saving_at_equal_quality"): "{:.1%}",
    ("generate", "saving_vs_zero_skipping"): "{:.1%}",
    ("convert", "loss [cifar10-vgg, graded, T 2]"): "{:.2f}",
    ("learn", "epoch_vs_spikingjelly [convolutional]"): "{:.2f}",
    ("engine", "fc4096_5pct"): "{:.2f}",
}


@pytest.mark.parametrize(("bench", "figure"), FIGURES)
def test_figures_of_the_readme_are_those_of_the_benches(bench, figure):
    results = json.loads((ROOT / f"benchmarks/results/{bench}.json").read_text())
    value = results["figures"][figure]
    form = FIGURES[bench, figure].format
    first, low, high = (form(value[key]).replace("%", " %") for key in ("value", "low", "high"))
    bounds = f"{low}–{high}".replace(" %", "")
    assert f"{first} ({bounds})" in (ROOT / "README.md").read_text()


def test_the_page_of_operators_is_made_from_the_table():
    assert (ROOT / "docs/operators.md").read_text() == page()
