"""The README's code runs, its settings watch, and what it links to is there."""

import re
from pathlib import Path

from axonal.commands import watch

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "README.md").read_text()


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
