"""Optimal transport between batches of small weighted sets, with gradients. Nothing audio-visual here."""

from avalign.ot.cost import cosine_cost, squared_euclidean_cost
from avalign.ot.exact import exact
from avalign.ot.features import cosine_sinkhorn
from avalign.ot.plan import Plan
from avalign.ot.problem import TransportError
from avalign.ot.sinkhorn import NotConverged, sinkhorn

__all__ = [
    "NotConverged",
    "Plan",
    "TransportError",
    "cosine_cost",
    "cosine_sinkhorn",
    "exact",
    "sinkhorn",
    "squared_euclidean_cost",
]
