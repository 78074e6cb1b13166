"""NIR, the exchange format of spiking networks: files and graphs of `nir`, read and written.

NIR (Pedersen et al. 2024, Nat. Commun. 15:8122) says neurons as differential equations; a `Graph`
has steps. So whoever reads or writes says how long a step is and how a neuron is cut into steps:
`dt`, and a name out of `CONVENTIONS`. With a = exp(-dt/tau) or 1 - dt/tau, a membrane

    tau v' = v_leak - v + r x,   a spike at v_threshold sets v to v_reset

is, measured from where it is reset, u = v - v_reset, exactly

    u <- a u + (1 - a) (r x + v_leak - v_reset),   a spike at v_threshold - v_reset sets u to 0.

So a population starts at v_reset, integrators start at 0 (NIR says neither), and what pulls at u
besides the input is a `Bias`. Integrators (I, LI, CubaLI) hand on their membrane, which a
population does not, and become y = a y[t - 1] + ... of `Delay`, `Scale` and `Add`.

Several edges into a node mean their sum. A cycle takes a step even where no Delay says so, as it
does in every simulator: one is put on the edge by which a population enters the way back to itself,
and is called `NODE.recurrent` after the node it leads to. Nodes of nested graphs are `GRAPH.NODE`.
"""

from .conventions import CONVENTIONS, Convention
from .read import from_nir, read
from .write import to_nir, write

__all__ = ["CONVENTIONS", "Convention", "from_nir", "read", "to_nir", "write"]
