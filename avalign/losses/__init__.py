"""Losses: tensors in, one scalar and its named parts out (LossValue). Usable in anyone's loop."""

from avalign.losses.avace import AVACE
from avalign.losses.avopt import AVOpT
from avalign.losses.contrastive import Contrastive
from avalign.losses.language_modelling import LanguageModelling
from avalign.losses.siglip import SigLip
from avalign.losses.value import LossValue

__all__ = ["AVACE", "AVOpT", "Contrastive", "LanguageModelling", "LossValue", "SigLip"]
