import math

import pytest

from axonal.core import errors
from axonal.core.errors import AxonalError, FileError, InputError, MissingExtra
from axonal.core.extras import require


@pytest.mark.parametrize(
    ("error", "builtin"),
    [
        (InputError, ValueError),
        (errors.NotFinite, InputError),
        (FileError, OSError),
        (errors.ProcessError, RuntimeError),
        (MissingExtra, ImportError),
    ],
)
def test_one_tree_over_the_builtin_errors(error, builtin):
    with pytest.raises(builtin) as caught:
        raise error("what, where, what to do")
    assert isinstance(caught.value, AxonalError) and str(caught.value) == "what, where, what to do"


def test_a_missing_extra_is_named():
    assert require("math", "any") is math
    with pytest.raises(MissingExtra, match=r"pip install 'axonal\[nir\]'"):
        require("a_module_that_is_not_there", "nir")
