"""One compiled module for all graphs that tests draw, as compiling takes longer than running."""

import pytest
from graphs import DYNAMICS, VARYING

from axonal.core.neurons import Izhikevich, Leaky
from axonal.deploy.engine import codegen, layout


@pytest.fixture(scope="module")
def one_module():
    """Every graph's populations are kinds of one list, which is compiled once."""
    kinds = [codegen.population(d, ()) for d in [*DYNAMICS, Leaky(), Izhikevich()]]
    kinds += [codegen.population(d, ("threshold",)) for d in VARYING]
    finish = layout.Tables._finish

    def with_all_kinds(self):
        self.kinds[:] = dict.fromkeys([*kinds, *self.kinds])  # which stages of a graph share
        finish(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layout.Tables, "_finish", with_all_kinds)
        yield
