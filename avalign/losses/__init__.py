"""Losses for anyone's loop: tensors in, a scalar out; `terms` gives each sample's, and named parts."""

from avalign.losses.avace import AVACE
from avalign.losses.avopt import AVOpT
from avalign.losses.contrastive import Contrastive
from avalign.losses.language_modelling import LanguageModelling
from avalign.losses.siglip import SigLip
from avalign.losses.value import LossValue, PerSampleLoss

__all__ = ["AVACE", "AVOpT", "Contrastive", "LanguageModelling", "LossValue", "PerSampleLoss", "SigLip"]
