"""The solvers that AVOpT knows by name, and the options that each takes."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from functools import partial as bind
from typing import Any

import torch

from avalign.interfaces import OTBackend
from avalign.ot import NotConverged, Plan, by_geomloss, exact, ipot, partial, sinkhorn, unbalanced

# set for all; a solver without a use for one ignores it
SHARED = ("epsilon", "iterations", "tolerance", "value")
SOLVERS: dict[str, tuple[Callable[..., Plan], tuple[str, ...]]] = {
    "sinkhorn": (sinkhorn, (*SHARED, "engine", "products")),
    "exact": (exact, ()),
    "unbalanced": (unbalanced, (*SHARED, "rho")),
    "partial": (partial, (*SHARED, "mass", "partial_backend")),
    "ipot": (ipot, ("iterations", "beta", "threshold", "threshold_over")),
    "geomloss": (by_geomloss, ("epsilon", "value", "scaling", "diameter")),
}
NEEDED = {"unbalanced": "rho", "partial": "mass"}


def refuse_clash(backend: str, options: Mapping[str, Any]) -> None:
    """ValueError where an option, None when not given, is for other back ends, or one is missing."""
    if backend not in SOLVERS:
        *names, last = map(repr, SOLVERS)
        raise ValueError(f"AVOpT: backend must be {', '.join(names)} or {last}, not {backend!r}")
    known = SOLVERS[backend][1]
    specified = [name for name, value in options.items() if value is not None]
    for name in specified:
        if name not in (*SHARED, *known):
            takers = " or ".join(repr(other) for other, (_, takes) in SOLVERS.items() if name in takes)
            raise ValueError(f"AVOpT: backend {backend!r} takes no {name!r}, which is for {takers}")
    needed = NEEDED.get(backend)
    if needed is not None and needed not in specified:
        raise ValueError(f"AVOpT: backend {backend!r} needs {needed!r}")


def solver(backend: str, options: Mapping[str, Any]) -> OTBackend:
    """The solver of a name with its options, of which None is one not given. Tried on a 1 x 1 problem."""
    refuse_clash(backend, options)
    solve, known = SOLVERS[backend]
    specified = {name: value for name, value in options.items() if value is not None}
    bound = bind(solve, **{_NAMES.get(name, name): specified[name] for name in known if name in specified})
    if backend == "sinkhorn":
        bound.keywords.pop("products", None)  # they are made before the cost is
        return bound
    # A setting that cannot be, a package that is not there: now, and not at the first step. In float64, for
    # which no kernel needs to be built; that one token is not solved to 1e-13 says nothing.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotConverged)
        bound(torch.zeros(1, 1, 1, dtype=torch.float64, device="cpu"))
    return bound


_NAMES = {"partial_backend": "backend"}  # the solver's own name for an option
