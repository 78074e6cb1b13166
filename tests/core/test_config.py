import json
from dataclasses import FrozenInstanceError, dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from axonal.core.config import Config
from axonal.core.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Sizes(Config):
    width: int
    depths: tuple[int, ...] = (1, 2)
    name: str = "net"


@given(st.integers(), st.lists(st.integers()).map(tuple), st.text())
def test_survives_json(width, depths, name):
    sizes = Sizes(width=width, depths=depths, name=name)
    assert Sizes.from_dict(json.loads(json.dumps(sizes.to_dict()))) == sizes


def test_is_frozen_and_keyword_only():
    with pytest.raises(FrozenInstanceError):
        Sizes(width=1).width = 2
    with pytest.raises(TypeError):
        Sizes(1)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"width": 1, "hight": 2}, "unknown field 'hight'; the fields are width, depths, name"),
        ({}, "width"),
        ([1], "not a table"),
        (None, "not a table"),
    ],
)
def test_what_does_not_fit_is_refused(values, message):
    with pytest.raises(InputError, match=f"Sizes: .*{message}"):
        Sizes.from_dict(values)
