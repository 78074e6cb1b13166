"""The command line from the user's side: what is printed, and the exit status."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from axonal import cli
from axonal.commands import demo, resolve
from axonal.convert import load
from axonal.energy import tables
from axonal.models.base import WEIGHTS
from axonal.models.flow import FlowConfig, FlowUNet
from axonal.models.vgg import VGG, VGGConfig
from axonal.recipes.training import CARD

COMMANDS = [
    ["demo"],
    ["generate"],
    ["inspect"],
    ["train"],
    ["assess"],
    ["convert"],
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
    *before, last = err.splitlines()
    assert last.startswith("axonal: ") and "Traceback" not in err
    assert all(line.endswith(" ...") for line in before)  # what was going on
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


def test_the_version(axonal):
    status, out, _ = axonal("--version")
    assert status == 0 and out.strip()


def test_a_picture_and_its_counts(axonal, tiny, tmp_path):
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
def test_generate_refuses(axonal, tiny, tmp_path, monkeypatch, options, message):
    monkeypatch.chdir(tmp_path)
    assert refused(axonal("generate", tiny, *options), message)
    assert not list(tmp_path.glob("*.png")) and not list(tmp_path.glob("*.json"))


@pytest.mark.parametrize("name", ["vermeer", "[/x]", "[red]x", ":smile:"])
def test_unknown_names_are_shown_as_they_were_typed(axonal, tmp_path, name):
    result = axonal("generate", name, "--out", tmp_path / "a.png")
    assert refused(result, f"no generator {name!r}; there are mnist")
    assert refused(axonal("train", name, "--out", tmp_path / "run"), f"no recipe {name!r}")


@pytest.mark.parametrize("command", [["demo"], ["generate"]], ids=" ".join)
def test_folders_that_can_not_be_written(axonal, tmp_path, tiny, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    options = [tiny, "--out", "file/a.png"] if command == ["generate"] else ["--out", "file"]
    assert refused(axonal(*command, *options), "can't write file")


@pytest.mark.parametrize("part", [0, 0.5, 0.99])
def test_damaged_weights(axonal, tiny, tmp_path, part):
    path = tiny / WEIGHTS
    content = path.read_bytes()
    path.write_bytes(content[: int(part * len(content))])
    result = axonal("generate", tiny, "--classes", 0, "--out", tmp_path / "a.png")
    assert refused(result, f"can't load a FlowUNet from {tiny}")


def test_other_devices(axonal, tmp_path):
    result = axonal("train", "mnist", "--device", "abacus", "--out", tmp_path / "run")
    assert refused(result, "there is no device 'abacus' here")


@pytest.mark.parametrize("command", [["paint"], ["generate", "--steps", "many"], ["train"]])
def test_commands_that_are_none_fail(axonal, command):
    status, _, err = axonal(*command)
    assert status in (1, 2) and "Traceback" not in err  # cyclopts 4 ends with 1, 5 with 2


def test_ctrl_c_ends_with_a_sentence_and_130(axonal, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(demo, "demo", interrupted)
    status, _, err = axonal("demo")
    assert status == 130 and "Interrupted; what was finished is kept" in err
    assert "Traceback" not in err


def test_the_command_line_itself_needs_no_torch():
    code = "import sys, axonal.cli; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300)


def test_inspect_shows_and_draws_a_network(axonal, tmp_path):
    out = tmp_path / "graph.md"
    status, text, _ = axonal("inspect", "mnist-spiking-classifier", "--out", out)
    assert status == 0 and "478,608" in text
    assert out.read_text().startswith("```mermaid\nflowchart TD\n")
    assert ", output" in out.read_text()


def test_inspect_refuses_what_it_can_not_show(axonal, tmp_path):
    (tmp_path / "x.nir").write_bytes(b"x")
    status, _, err = axonal("inspect", tmp_path / "x.nir")
    assert status != 0 and "--discretisation" in err
    status, _, err = axonal("inspect", "nowhere")
    assert status != 0 and "name one that ships (mnist-classifier" in err
    status, text, err = axonal("inspect", "mnist-classifier", "--out", tmp_path / "a.md")
    assert "neurons go here" in text and status != 0 and "convert it first" in err
    status, _, err = axonal("inspect", "mnist-classifier", "--shape", "1x28")
    assert status != 0 and "write it as 1,28,28" in err


@pytest.fixture
def pictures(tmp_path):
    """A small trained network's folder, and a file of its pictures."""
    torch.manual_seed(0)
    x = torch.randn(40, 1, 8, 8)
    model = VGG(VGGConfig(channels=1, size=8, widths=(4,), classes=3))
    model(x)  # its norms have seen data
    (model.save(tmp_path / "net/model") / CARD).write_text('{"recipe": "mnist-vgg"}')
    np.savez(tmp_path / "x.npz", x=x.numpy())
    return tmp_path / "net", tmp_path / "x.npz"


def test_assess_shows_a_page(axonal, pictures, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    out = tmp_path / "new" / "page.html"
    status, text, err = axonal("assess", *pictures, "--samples", 20, "--stream", "--out", out)
    assert status == 0 and f"The page is {out}" in err
    assert text.startswith("Not worth it") and max(map(len, text.splitlines())) <= 80
    words = " ".join(text.split())
    for part in ("features_3", "8 KiB SRAM", "follow each other", "Horowitz", "Left out: static"):
        assert part in words
    page = out.read_text()
    assert "Not worth it" in page and "features_3" in page and "Left out: static" in page
    assert "http" not in page.replace("(doi:", "") and "<script" not in page


def test_assess_prices_with_the_table_of_the_user(axonal, pictures, tmp_path):
    text = (tables.SHIPPED / "cmos45.toml").read_text().replace("45 nm CMOS at 0.9 V", "my process")
    (tmp_path / "mine.toml").write_text(text.replace("8 KiB SRAM", "registers"))
    out, table = tmp_path / "page.html", tmp_path / "mine.toml"
    status, text, _ = axonal("assess", *pictures, "--samples", 20, "--out", out, "--table", table)
    assert status == 0 and "registers" in text and "my process" in " ".join(text.split())
    assert "registers (low)" in out.read_text()


def test_assess_refuses(axonal, pictures, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model, data = pictures
    assert refused(axonal("assess", "vermeer", data), "'vermeer' is no network")
    assert refused(axonal("assess", model, "x.csv"), "x.csv is no data")
    assert refused(axonal("assess", model, data, "--out", "page.pdf"), "let it end in .html")
    assert refused(axonal("assess", model, data, "--steps", 0), "T is 0")
    assert refused(axonal("assess", model, data, "--table", "cmos1"), "shipped are: cmos45")
    (tmp_path / "bad.toml").write_text('kind = "datapath"')
    assert refused(axonal("assess", model, data, "--table", "bad.toml"), "bad.toml: ")
    assert not list(tmp_path.glob("*.html"))


@pytest.mark.parametrize(
    "options", [["--bits", 3], ["--method", "qcfs", "--schedule", "pipelined"]]
)
def test_convert_leaves_all_that_is_needed(axonal, pictures, tmp_path, monkeypatch, options):
    monkeypatch.setenv("COLUMNS", "80")
    command = ["convert", *pictures, "--steps", 4, "--out", tmp_path / "out", *options]
    status, text, err = axonal(*command)
    assert status == 0 and "Converted by" in err and str(tmp_path / "out") in err
    assert "features_2" in text and max(map(len, text.splitlines())) <= 80
    network, certificate = load(resolve.network(str(tmp_path / "out"))[0], tmp_path / "out")
    assert certificate.samples == 26 and certificate.steps == 4  # of 40, 500 to 1000
    assert network.answer(torch.zeros(2, 1, 8, 8)).shape == (2, 3)
    again = axonal(*command)[2]  # and goes on where it was
    assert again.splitlines()[-1] == err.splitlines()[-1]


def test_convert_to_changes_leaves_thresholds(axonal, pictures, tmp_path):
    out = tmp_path / "out"
    axonal("convert", *pictures, "--out", out)
    status, text, err = axonal(
        *("convert", *pictures, "--method", "sigma-delta", "--steps", 4, "--budget", 0.3),
        *("--samples", 20, "--held-out", 20, "--out", out),
    )
    assert status == 0 and "sigma-delta" in err and "share" in text
    assert json.loads((out / "certificate.json").read_text())["method"] == "sigma-delta"
    assert not (out / "plan.json").exists()  # of the conversion before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--method", "magic"], "no method 'magic'; there are graded"),
        (["--bit", "3"], "graded has no option 'bit'; it takes bits"),
        (["--bits", "many"], "--bits 'many' is no int"),
        (["--bits", "40"], "choose 1 to 16"),
        (["--method", "sigma-delta", "--budget", "low"], "--budget 'low' is no float"),
        (["--steps", "0"], "T is 0"),
        (["--samples", "0"], "0 samples can't be drawn"),
    ],
)
def test_convert_refuses(axonal, pictures, tmp_path, options, message):
    out = tmp_path / "out"
    assert refused(axonal("convert", *pictures, "--out", out, *options), message)
    assert not (out / "plan.json").exists()


def test_an_interruption_while_the_program_loads_leaves_no_traceback():
    code = (
        "import builtins, sys\n"
        "load = builtins.__import__\n"
        "def interrupted(name, *rest):\n"
        "    if name == 'cli' or name.endswith('.cli'):\n"
        "        raise KeyboardInterrupt\n"
        "    return load(name, *rest)\n"
        "import axonal.__main__ as program\n"
        "builtins.__import__ = interrupted\n"
        "program.main()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 130 and "Traceback" not in done.stderr


def test_where_only_ascii_can_be_written_nothing_breaks(tmp_path):
    (tmp_path / "é.csv").write_text("t_us,ü\n" + "".join(f"{k},{k}\n" for k in range(40)))
    environment = os.environ | {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    command = [sys.executable, "-m", "axonal", "watch", tmp_path / "é.csv", "--state", tmp_path]
    done = subprocess.run(command, capture_output=True, env=environment, cwd=tmp_path)
    assert done.returncode == 0 and b"Traceback" not in done.stderr
    assert b"columns: ?" in done.stderr


@pytest.mark.parametrize("words", ["inspect no.nir", "watch no.csv", "watch no.toml"])
def test_files_that_are_missing_or_empty_are_named(words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    name = words.split()[1]
    for content, message in [(None, f"there is no file {name}"), (b"", f"{name} is empty")]:
        if content is not None:
            (tmp_path / name).write_bytes(content)
        monkeypatch.setattr(sys, "argv", ["axonal", *words.split()])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        assert ended.value.code == 1 and message in capsys.readouterr().err
