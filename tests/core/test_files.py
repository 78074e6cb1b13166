import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from axonal.core import files
from axonal.core.errors import FileError


@given(st.binary())
def test_bytes_arrive_unchanged(tmp_path, content):
    assert files.write(tmp_path / "file", content).read_bytes() == content


def test_text_is_utf8_and_parents_are_created(tmp_path):
    path = files.write(tmp_path / "a" / "b" / "file.txt", "β = 0.9\n")
    assert path.read_bytes() == "β = 0.9\n".encode()


def test_a_function_fills_the_file_and_the_old_one_is_replaced(tmp_path):
    path = files.write(tmp_path / "file", "old")
    files.write(path, lambda partial: partial.write_text("new"))
    assert path.read_text() == "new" and os.listdir(tmp_path) == ["file"]


def fail(error):
    def fill(partial):
        partial.write_text("half")
        raise error

    return fill


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), ValueError("bug")])
def test_a_failure_keeps_the_old_file_and_leaves_nothing_behind(tmp_path, error):
    path = files.write(tmp_path / "file", "old")
    with pytest.raises(FileError if isinstance(error, OSError) else ValueError):
        files.write(path, fail(error))
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["file"]


def test_a_full_disk_is_named_with_its_remedy(tmp_path):
    with pytest.raises(FileError, match=r"file: No space left on device; free space"):
        files.write(tmp_path / "file", fail(OSError(28, "No space left on device")))


def test_a_file_where_the_folder_should_be(tmp_path):
    (tmp_path / "folder").write_text("a file")
    with pytest.raises(FileError, match="choose another folder"):
        files.write(tmp_path / "folder" / "file", "content")
    assert os.listdir(tmp_path) == ["folder"]


def test_a_read_only_folder(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(files.tempfile, "mkstemp", refuse)
    with pytest.raises(FileError, match="Permission denied"):
        files.write(tmp_path / "file", "content")
    assert not os.listdir(tmp_path)
