"""HDF5 files read whole and in slices; what means harm is tried on files of NIR and of events."""

import h5py
import numpy as np
import pytest

from axonal.core import hdf5
from axonal.core.errors import FileError


@pytest.fixture
def path(tmp_path):
    return tmp_path / "a.h5"


def test_groups_numbers_and_text_are_read(path):
    with h5py.File(path, "w") as file:
        file["a/numbers"] = np.arange(6, dtype=np.int16).reshape(2, 3)
        file["a/text"] = "β = 0.9"
        file["a/fixed"] = np.array([b"xy", b"z"])
        file.create_dataset("packed", data=np.zeros(10_000), compression="gzip", shuffle=True)
        file["names"] = ["one", ""]
    tree = hdf5.read(path)
    assert set(tree) == {"a", "packed", "names"} and tree["a"]["text"] == "β = 0.9"
    assert tree["a"]["numbers"].dtype == np.int16 and tree["a"]["numbers"].tolist()[1] == [3, 4, 5]
    assert tree["a"]["fixed"].tolist() == ["xy", "z"] and tree["names"].tolist() == ["one", ""]
    assert not tree["packed"].any() and tree["packed"].shape == (10_000,)


def test_texts_that_share_their_bytes_count_each(path):
    """One long string, told a million times, would be terabytes."""
    with h5py.File(path, "w") as file:
        file["t"] = ["x" * 1000] * 2000
    assert len(hdf5.read(path)["t"]) == 2000
    with pytest.raises(FileError, match="would take the file's data over"):
        hdf5.read(path, limit=3_500_000)


def test_one_table_is_taken_by_its_name(path):
    with h5py.File(path, "w") as file:
        file["events/t"] = np.arange(5)
        file["events/words"] = ["a"]
        file["soft"] = h5py.SoftLink("/events")
        file["events/link"] = h5py.ExternalLink("/etc/hosts", "/")
        file.create_dataset("huge", (2**40,), "u1", chunks=(2**20,), compression="gzip")
        file.create_dataset("wide", (2**27,), "u1", chunks=(2**27,), compression="gzip")[0] = 1
        file.create_dataset("nbit", (4,), "u1", chunks=(4,), scaleoffset=0)
    with h5py.File(path) as file:
        assert hdf5.dataset(file, "events/t", 1)[1:3].tolist() == [1, 2]
        for name, axes, reason in (
            ("events/x", 1, "events/x is not in it"),
            ("events/link", 1, "is not in it"),
            ("soft/t", 1, "is not in it"),
            ("events", 1, "no table of numbers with 1 axes"),
            ("events/t", 2, "no table of numbers with 2 axes"),
            ("events/words", 1, "no table of numbers"),
            ("huge", 1, "declares 1099511627776 bytes in chunks of 1048576"),
            ("wide", 1, "in chunks of 134217728"),
            ("nbit", 1, "filter that comes as a plugin"),
        ):
            with pytest.raises(FileError, match=rf"a\.h5: .*{reason}.*it was not read$"):
                hdf5.dataset(file, name, axes)
