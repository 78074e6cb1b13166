"""The command line from the user's side: what is printed, and the exit status."""

import json
import subprocess
import sys

import pytest
import torch

from axonal import cli
from axonal.models.base import WEIGHTS
from axonal.models.flow import FlowConfig, FlowUNet
from axonal.recipes import showcase

COMMANDS = [
    ["demo"],
    ["generate"],
    ["inspect"],
    ["train"],
    ["bench", "engine"],
    ["bench", "nir"],
    ["bench"],
    ["bench", "generate"],
]


@pytest.fixture
def axonal(monkeypatch, capsys):
    """Runs `axonal` with arguments: (exit status, stdout, stderr)."""

    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["axonal", *map(str, arguments)])
        try:
            cli.main()
            status = 0
        except SystemExit as stop:
            status = stop.code or 0
        return status, *capsys.readouterr()

    return run


@pytest.fixture
def tiny(tmp_path):
    torch.manual_seed(0)
    config = FlowConfig(size=8, patch=2, widths=(4, 8), depths=(1, 1), classes=3)
    return FlowUNet(config).save(tmp_path / "tiny")


def refused(result, message):
    status, out, err = result
    assert status == 1 and out == ""
    assert err.startswith("axonal: ") and err.count("\n") == 1 and "Traceback" not in err
    assert message in err
    return True


@pytest.mark.parametrize("command", [[], *COMMANDS], ids=" ".join)
def test_help(axonal, command):
    status, out, err = axonal(*command, "--help")
    assert status == 0 and err == "" and "Usage: axonal" in out


@pytest.mark.parametrize("command", ["demo", "generate", "train"])
def test_help_tells_what_each_option_is(axonal, command):
    _, out, _ = axonal(command, "--help")
    assert "of the noise" in out or "of everything random" in out


def test_the_version_is_told(axonal):
    status, out, _ = axonal("--version")
    assert status == 0 and out.strip()


def test_pictures_are_made(axonal, tiny, tmp_path):
    out = tmp_path / "new" / "digits.png"
    status, _, err = axonal("generate", tiny, "--classes", 0, 2, 1, "--steps", 2, "--out", out)
    assert status == 0 and "3 images at" in err and str(out) in err
    assert out.read_bytes().startswith(b"\x89PNG")
    about = json.loads(out.with_suffix(".json").read_text())
    assert about["classes"] == [0, 2, 1] and about["counts"]["samples"] == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--classes", "3"], "class 3 does not exist; classes are 0 to 2"),
        (["--classes", "0", "--steps", "0"], "steps is 0; it must be an integer of at least 1"),
        (["--classes", "0", "--sampler", "ddim"], "unknown sampler 'ddim'; choose one of euler"),
        (["--classes", "0", "--budget", "0.1"], "has no sigma-delta form"),
        (["--classes", "0", "--out", "picture.jpg"], "picture.jpg is no name for a picture"),
    ],
)
def test_what_can_not_be_generated_is_told(axonal, tiny, tmp_path, monkeypatch, options, message):
    monkeypatch.chdir(tmp_path)
    assert refused(axonal("generate", tiny, *options), message)
    assert not list(tmp_path.glob("*.png")) and not list(tmp_path.glob("*.json"))


@pytest.mark.parametrize("name", ["vermeer", "[/x]", "[red]x", ":smile:"])
def test_unknown_names_are_told_as_they_were_typed(axonal, tmp_path, name):
    result = axonal("generate", name, "--out", tmp_path / "a.png")
    assert refused(result, f"no generator {name!r}; there are mnist")
    assert refused(axonal("train", name, "--out", tmp_path / "run"), f"no recipe {name!r}")


@pytest.mark.parametrize("command", [["demo"], ["bench", "generate"], ["generate"]], ids=" ".join)
def test_folders_that_can_not_be_written_are_told(axonal, tmp_path, tiny, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    options = [tiny, "--out", "file/a.png"] if command == ["generate"] else ["--out", "file"]
    assert refused(axonal(*command, *options), "can't write file")


@pytest.mark.parametrize("part", [0, 0.5, 0.99])
def test_damaged_weights_are_told(axonal, tiny, tmp_path, part):
    path = tiny / WEIGHTS
    content = path.read_bytes()
    path.write_bytes(content[: int(part * len(content))])
    result = axonal("generate", tiny, "--classes", 0, "--out", tmp_path / "a.png")
    assert refused(result, f"can't load a FlowUNet from {tiny}")


def test_other_devices_are_told(axonal, tmp_path):
    result = axonal("train", "mnist", "--device", "abacus", "--out", tmp_path / "run")
    assert refused(result, "there is no device 'abacus' here")


@pytest.mark.parametrize("command", [["paint"], ["generate", "--steps", "many"], ["train"]])
def test_commands_that_are_none_fail(axonal, command):
    status, _, err = axonal(*command)
    assert status in (1, 2) and "Traceback" not in err  # cyclopts 4 ends with 1, 5 with 2


def test_ctrl_c_is_told_and_ends_with_130(axonal, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(showcase, "demo", interrupted)
    status, _, err = axonal("demo")
    assert status == 130 and "Interrupted; what was finished is kept" in err
    assert "Traceback" not in err


def test_the_command_line_itself_needs_no_torch():
    code = "import sys, axonal.cli; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300)


def test_inspect_shows_and_draws_a_network(axonal, tmp_path):
    out = tmp_path / "graph.svg"
    status, shown, _ = axonal("inspect", "mnist-spiking-classifier", "--out", out)
    assert status == 0 and "478,608" in shown
    assert out.read_text().startswith("<svg")


def test_inspect_refuses_what_it_can_not_show(axonal, tmp_path):
    status, _, said = axonal("inspect", tmp_path / "x.nir")
    assert status != 0 and "--discretisation" in said
    status, _, said = axonal("inspect", "nowhere")
    assert status != 0 and "networks that ship are mnist" in said
    status, _, said = axonal("inspect", "mnist-classifier")
    assert status != 0 and "convert it first" in said
