"""Optimal transport between batches of small weighted sets, with gradients. Nothing audio-visual here."""

from avalign.ot.cost import cosine_cost, squared_euclidean_cost
from avalign.ot.divergence import Divergence, sinkhorn_divergence
from avalign.ot.exact import exact
from avalign.ot.features import cosine_sinkhorn
from avalign.ot.geomloss_backend import by_geomloss
from avalign.ot.ipot import ipot
from avalign.ot.pairwise import AllPairs, all_pairs
from avalign.ot.partial import partial
from avalign.ot.plan import Plan
from avalign.ot.problem import TransportError, marginal_from
from avalign.ot.sinkhorn import NotConverged, sinkhorn
from avalign.ot.unbalanced import unbalanced

__all__ = [
    "AllPairs",
    "Divergence",
    "NotConverged",
    "Plan",
    "TransportError",
    "all_pairs",
    "by_geomloss",
    "cosine_cost",
    "cosine_sinkhorn",
    "exact",
    "ipot",
    "marginal_from",
    "partial",
    "sinkhorn",
    "sinkhorn_divergence",
    "squared_euclidean_cost",
    "unbalanced",
]
