"""`axonal demo` and `axonal generate`."""

import json

import pytest

from axonal.commands.demo import demo
from axonal.commands.generate import generate
from axonal.core.errors import FileError, InputError
from axonal.energy import tables
from axonal.models.flow import FlowConfig, FlowUNet


def test_a_picture_and_its_counts(tmp_path):
    config = FlowConfig(size=8, widths=(4, 8), depths=(1, 1), classes=3)
    folder = FlowUNet(config).save(tmp_path / "tiny")
    out = tmp_path / "out" / "digits.png"
    sentence = generate(folder, [0, 2], out, steps=2, seed=1)
    assert str(out) in sentence and out.read_bytes().startswith(b"\x89PNG")
    about = json.loads(out.with_suffix(".json").read_text())
    assert about["classes"] == [0, 2] and about["counts"]["samples"] == 2
    assert about["an_image"]["synops"] > 0


def test_bad_requests(tmp_path):
    with pytest.raises(InputError, match="too few"):
        demo(tmp_path, samples=10)
    with pytest.raises(InputError, match=r"end in \.png"):
        generate("mnist", [0], tmp_path / "x.jpg")
    (tmp_path / "file").write_text("")
    with pytest.raises(FileError, match="can't write"):
        demo(tmp_path / "file" / "demo")


def test_tables_are_read_before_work_begins(tmp_path):
    with pytest.raises(FileError, match="shipped are: cmos45"):
        demo(tmp_path / "demo", table="cmos1")
    table = tmp_path / "narrow.toml"
    table.write_text((tables.SHIPPED / "cmos45.toml").read_text().replace(".32", ".64"))
    with pytest.raises(InputError, match="has no 32-bit datapath; use 8, 16, 64"):
        demo(tmp_path / "demo", table=str(table))
    assert not (tmp_path / "demo").exists()
