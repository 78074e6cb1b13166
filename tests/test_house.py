"""The rules of the house that no linter knows; CONTRIBUTING.md says why."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import axonal

SOURCE = Path(axonal.__file__).parent
FILES = sorted(SOURCE.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_files_and_functions_keep_their_size(path):
    text = path.read_text()
    kernel = "ops" in path.relative_to(SOURCE).parts and path.stem in ("cpu", "triton")
    limit = 60 if path.stem == "reference" else 700 if kernel else 600
    assert len(text.splitlines()) <= limit
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            spoken = node.body[0].end_lineno if ast.get_docstring(node) else node.lineno
            assert node.end_lineno - spoken < 50, node.name


@pytest.mark.parametrize("room", ["core", "sense", "energy", "data", "deploy", "graph"])
def test_small_computers_need_no_torch(room):
    torch_alone = {SOURCE / "deploy" / name for name in ("from_torch.py", "certify.py")}
    free = [path for path in FILES if path not in torch_alone]
    names = [".".join(p.relative_to(SOURCE.parent).with_suffix("").parts) for p in free]
    imports = "\n".join(f"import {n}" for n in names if n.startswith(f"axonal.{room}."))
    code = f"{imports}\nimport sys\nassert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300)


def test_a_stream_is_watched_without_torch():
    code = "import axonal.commands.watch, sys\nassert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300)
