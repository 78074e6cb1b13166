"""What a user gets: the wheel has all of the package and nothing else; the sdist has the clone."""

import tarfile
import zipfile
from pathlib import Path

import pytest
from hatchling.builders.sdist import SdistBuilder
from hatchling.builders.wheel import WheelBuilder

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src"


def files(folder):
    """Paths of a folder's files below the clone, but for what is built."""
    return {
        path.relative_to(ROOT)
        for path in folder.rglob("*")
        if path.is_file() and not {"__pycache__", "_build"} & {*path.parts}
    }


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    [path] = WheelBuilder(str(ROOT)).build(directory=str(tmp_path_factory.mktemp("wheel")))
    with zipfile.ZipFile(path) as archive:
        return {Path(name) for name in archive.namelist()}


@pytest.fixture(scope="module")
def sdist(tmp_path_factory):
    [path] = SdistBuilder(str(ROOT)).build(directory=str(tmp_path_factory.mktemp("sdist")))
    with tarfile.open(path) as archive:
        return {Path(*Path(name).parts[1:]) for name in archive.getnames()}


def test_the_wheel_has_the_package_with_its_data_and_nothing_else(wheel):
    package = {path.relative_to("src") for path in files(SOURCE / "axonal")}
    about = {path for path in wheel if path.parts[0].endswith(".dist-info")}
    assert wheel - about == package
    for kind in (".j2", ".css", ".toml", ".safetensors", ".json"):
        assert any(path.suffix == kind for path in package), kind


def test_the_sdist_has_benches_and_docs_too(sdist):
    for folder in ("src", "tests", "benchmarks", "docs"):
        assert files(ROOT / folder) <= sdist
    assert {Path(name) for name in ("Makefile", "constraints.txt", "pyproject.toml")} <= sdist


def test_the_package_never_imports_the_benches():
    for path in (SOURCE / "axonal").rglob("*.py"):
        for line in path.read_text().splitlines():
            assert not line.strip().startswith(("import benchmarks", "from benchmarks")), path
