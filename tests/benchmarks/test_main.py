"""`python -m benchmarks` from the user's side, and a bench that is added by one row."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from axonal.core.errors import InputError
from benchmarks import __main__ as main
from benchmarks.benches import BENCHES
from benchmarks.harness import page
from benchmarks.harness.bench import Bench, perform

ROOT = Path(__file__).parents[2]
TEMPLATE = """\
{% extends "page.md.j2" %}
{% block title %}Toys{% endblock %}
{% block headline %}A toy weighs {{ figures.grams | shown(".1f") }} g.{% endblock %}
{% block body %}
{{ weights }}
{% endblock %}
"""


@pytest.fixture
def benchmarks(monkeypatch, capsys):
    """Runs `python -m benchmarks` with arguments: (exit status, stdout, stderr)."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["benchmarks", *map(str, arguments)])
        try:
            main.main()
            status = 0
        except SystemExit as stop:
            status = stop.code or 0
        return status, *capsys.readouterr()

    return run


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """A bench in a folder of its own."""
    folder = tmp_path / "toy"
    folder.mkdir()
    (folder / "toy.md.j2").write_text(TEMPLATE)
    (folder / "run.py").write_text(
        '''"""Toys."""


def measure(*, run, heavy: bool = False, rounds: int = 3, seed: int = 0):
    """Weigh a toy.

    Args:
        run: where.
        heavy: whether it is.
        rounds: of weighing.
        seed: of the toy.
    """
    parts = {"grams": lambda: {"grams": {"value": seed + 1.0, "low": 0.5, "high": seed + 2.0}}}
    return {"figures": run.measure(parts), "toys": ["bear"]}


def tables(results):
    return {"weights": f"{results['toys'][0]}: {results['figures']['grams']['value']:g}"}
'''
    )
    monkeypatch.syspath_prepend(folder)
    module = __import__("run")
    monkeypatch.delitem(sys.modules, "run")
    return Bench(name="toy", measure=module.measure, tables=module.tables)


def test_a_folder_and_a_row_are_a_bench(toy, monkeypatch, benchmarks, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(main, "app", main.App(name="benchmarks", version_flags=[]))
    main.app.command(main.command(toy), name=toy.name)
    status, _, err = benchmarks("toy", "--seed", 4, "--out", tmp_path / "out")
    assert status == 0 and err.startswith("A toy weighs 5.0 (0.5–6.0) g. All lies in ")
    written = json.loads((tmp_path / "out/toy.json").read_text())
    assert written["command"] == "python -m benchmarks toy --heavy False --rounds 3 --seed 4"
    assert written["toys"] == ["bear"] and written["seed"] == 4 and written["versions"]["torch"]
    text = (tmp_path / "out/toy.md").read_text()
    assert "# Toys\n" in text and "\nbear: 5\n" in text and "](toy.json)" in text
    status, shown, _ = benchmarks("toy", "--help")
    assert status == 0 and "Weigh a toy." in shown and "whether it is" in shown
    page.render_index([toy], tmp_path / "out", tmp_path / "out")
    index = (tmp_path / "out" / page.INDEX).read_text()
    assert "| [Toys](toy.md) | A toy weighs 5.0 (0.5–6.0) g. |" in index


def test_what_an_interrupted_run_has_measured_is_told_and_used(toy, tmp_path, capsys):
    perform(toy, tmp_path / "out", tmp_path / "runs", seed=1)
    part = tmp_path / "runs/bench-toy/seed-1/grams.json"
    stored = json.loads(part.read_text())
    stored["figures"]["grams"]["value"] = 1.75
    part.write_text(json.dumps(stored))
    perform(toy, tmp_path / "out", tmp_path / "runs", seed=1)
    assert json.loads((tmp_path / "out/toy.json").read_text())["figures"]["grams"]["value"] == 1.75
    assert f"{part} has this part of an earlier run" in capsys.readouterr().err
    perform(toy, tmp_path / "out", tmp_path / "runs", seed=1, rounds=4)
    assert json.loads((tmp_path / "out/toy.json").read_text())["figures"]["grams"]["value"] == 2


def test_too_few_rounds_have_no_spread(toy, tmp_path):
    with pytest.raises(InputError, match="2 rounds have no spread; take at least 3"):
        perform(toy, tmp_path, tmp_path / "runs", rounds=2)
    assert not list(tmp_path.glob("*.json"))


def test_the_list_has_a_line_for_each():
    shown = subprocess.run(
        [sys.executable, "-m", "benchmarks"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    for bench in BENCHES.values():
        assert any(f"│ {bench.name} " in line and ". " in line for line in shown.splitlines())


@pytest.mark.parametrize("name", BENCHES)
def test_help_tells_what_each_option_is(benchmarks, name):
    status, shown, err = benchmarks(name, "--help")
    assert status == 0 and err == "" and f"Usage: python -m benchmarks {name}" in shown
    for option in ("--seed", "--out"):
        assert option in shown
    assert "run" not in [p.name for p in BENCHES[name].options]


def refused(result, message):
    status, out, err = result
    assert status == 1 and out == "" and "Traceback" not in err
    assert err.startswith("benchmarks: ") and err.count("\n") == 1 and message in err
    return True


def test_mistakes_are_told_in_a_sentence(benchmarks, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    for name in BENCHES:
        assert refused(benchmarks(name, "--out", "file"), "can't write file")
    for name in ("neurons", "engine", "learn", "watch"):
        result = benchmarks(name, "--rounds", 2, "--out", tmp_path)
        assert refused(result, "2 rounds have no spread; take at least 3")
    status, _, err = benchmarks("paint")
    assert status in (1, 2) and "Traceback" not in err


def test_ctrl_c_is_told_and_ends_with_130(benchmarks, monkeypatch, tmp_path):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(main, "perform", interrupted)
    status, _, err = benchmarks("nir", "--out", tmp_path)
    assert status == 130 and "Interrupted; what was finished is kept" in err
