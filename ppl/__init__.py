"""The language: effects, the interpreter, traces, densities and conditioning.

A probabilistic program is an ordinary Python function that calls :func:`sample`, :func:`observe` and
:func:`factor`. Everything else here is a transformation of such functions.
"""

from . import branches as _branches  # registers how sites in branches behave under vmap
from .choices import Masked
from .condition import condition, do
from .density import log_density
from .edit import Edit, regenerate, update
from .effects import deterministic, factor, observe, sample, scope, twist
from .errors import (
    AddressError,
    BorelaxError,
    ChoiceError,
    LeakError,
    SiteError,
    UnseededError,
    UnsupportedError,
)
from .from_numpyro import from_numpyro
from .graph import Graph, graph
from .history import append, history, recall
from .loop import loop
from .marginal import marginal
from .memoise import mem
from .normalize import normalize
from .partly import Partly, partly, prefix
from .policy import Cloud, Draw, Extension, Policy, Reduction
from .population_walk import populate
from .reweigh import reweigh
from .seed import seed
from .selection import Selection, select
from .show import show
from .trace import Trace, simulate, trace
from .types import SiteType, trace_type
from .unconstrain import Unconstrained, unconstrain
from .unobserve import unobserve
from .weigh import weigh

del _branches
