"""The demo and pictures: what is refused, and what is counted."""

import json

import pytest
import torch

from axonal.commands import demo
from axonal.commands.generate import picture
from axonal.core.errors import FileError, InputError
from axonal.models.flow import FlowConfig, FlowUNet


def test_a_picture_and_its_counts(tmp_path):
    config = FlowConfig(size=8, widths=(4, 8), depths=(1, 1), classes=3)
    folder = FlowUNet(config).save(tmp_path / "tiny")
    out = tmp_path / "out" / "digits.png"
    told = picture(folder, [0, 2], out, steps=2, seed=1)
    assert str(out) in told and out.read_bytes().startswith(b"\x89PNG")
    about = json.loads(out.with_suffix(".json").read_text())
    assert about["classes"] == [0, 2] and about["counts"]["samples"] == 2
    assert about["an_image"]["synops"] > 0


def test_bad_requests(tmp_path):
    torch.manual_seed(0)
    with pytest.raises(InputError, match="too few"):
        demo.demo(tmp_path, samples=10)
    with pytest.raises(InputError, match=r"end in \.png"):
        picture("mnist", [0], tmp_path / "x.jpg")
    (tmp_path / "file").write_text("")
    with pytest.raises(FileError, match="can't write"):
        demo.demo(tmp_path / "file" / "demo")
