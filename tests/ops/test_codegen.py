import pytest

from axonal.ops import codegen

SOURCE = "def answer():\n    return 42\n"


@pytest.fixture(autouse=True)
def fresh(monkeypatch, tmp_path):
    codegen.module.cache_clear()
    monkeypatch.setenv("AXONAL_CACHE", str(tmp_path / "cache"))
    yield
    codegen.module.cache_clear()


def test_source_becomes_a_module_in_the_cache():
    generated = codegen.module(SOURCE)
    assert generated.answer() == 42 and codegen.module(SOURCE) is generated
    (path,) = codegen.folder().glob("*.py")
    assert path.read_text() == SOURCE and generated.__file__ == str(path)


def test_a_file_that_was_changed_is_not_run():
    codegen.module(SOURCE)
    (path,) = codegen.folder().glob("*.py")
    path.write_text("raise SystemExit\n")
    codegen.module.cache_clear()
    assert codegen.module(SOURCE).answer() == 42 and path.read_text() == SOURCE


def test_a_cache_that_can_not_be_written_is_done_without(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("AXONAL_CACHE", str(tmp_path / "file" / "cache"))
    assert codegen.module(SOURCE).answer() == 42


def test_the_cache_lies_where_the_user_says(monkeypatch, tmp_path):
    monkeypatch.delenv("AXONAL_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert codegen.folder() == tmp_path / "axonal"
