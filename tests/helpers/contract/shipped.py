"""For mypy alone: every shipped component is held to the interface of its kind, and none is abstract."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from avalign import interfaces
    from avalign.avfit.datasets.audioset import AudioSet
    from avalign.avfit.datasets.audioset_strong import AudioSetStrong
    from avalign.avfit.datasets.ave import Ave
    from avalign.avfit.datasets.avqa import Avqa as DatasetAvqa
    from avalign.avfit.datasets.avsbench import AvsBench
    from avalign.avfit.datasets.esc50 import Esc50
    from avalign.avfit.datasets.flickr_soundnet import FlickrSoundNet
    from avalign.avfit.datasets.llp import Llp
    from avalign.avfit.datasets.music_avqa import MusicAvqa
    from avalign.avfit.datasets.openimages import OpenImages
    from avalign.avfit.datasets.pascal_voc import PascalVoc
    from avalign.avfit.datasets.valor import Valor
    from avalign.avfit.datasets.vgg_sound import VggSound
    from avalign.avfit.datasets.vgg_ss import VggSs
    from avalign.data.avworld import AvWorld
    from avalign.data.manifest import Manifest
    from avalign.data.paired_folder import PairedFolder
    from avalign.data.shards import Shards
    from avalign.encoders.ast import AstAudioEncoder
    from avalign.encoders.clap import ClapAudioEncoder
    from avalign.encoders.clip import ClipImageEncoder
    from avalign.encoders.laion_clap import LaionClapAudioEncoder
    from avalign.encoders.small import SmallAudioEncoder, SmallImageEncoder
    from avalign.encoders.timm import TimmImageEncoder
    from avalign.encoders.wav2vec2 import WaveformAudioEncoder
    from avalign.encoders.whisper import WhisperAudioEncoder
    from avalign.evaluation.tasks.arig import Arig
    from avalign.evaluation.tasks.avcap import Avcap
    from avalign.evaluation.tasks.avfc import Avfc
    from avalign.evaluation.tasks.avqa import Avqa
    from avalign.evaluation.tasks.igatl import Igatl
    from avalign.fusion.avace import AvaceAdapters
    from avalign.fusion.concat import Concat
    from avalign.fusion.gated_cross_attention import GatedCrossAttention
    from avalign.fusion.none import NoFusion
    from avalign.llm import HuggingFaceLlm, SmallLlama
    from avalign.losses.avace import AVACE
    from avalign.losses.avopt import AVOpT
    from avalign.losses.contrastive import Contrastive
    from avalign.losses.language_modelling import LanguageModelling
    from avalign.losses.siglip import SigLip
    from avalign.projectors.conv_attention import ConvAttention
    from avalign.projectors.gated import Gated
    from avalign.projectors.linear import Linear
    from avalign.projectors.mlp import Mlp
    from avalign.projectors.pool import Pool
    from avalign.projectors.qformer import QFormer
    from avalign.projectors.resampler import Resampler
    from avalign.projectors.spatial_temporal_pool import SpatialTemporalPool

    image_encoder: list[type[interfaces.ImageEncoder]] = [
        SmallImageEncoder,
        TimmImageEncoder,
        ClipImageEncoder,
    ]
    audio_encoder: list[type[interfaces.AudioEncoder]] = [
        SmallAudioEncoder,
        ClapAudioEncoder,
        LaionClapAudioEncoder,
        AstAudioEncoder,
        WhisperAudioEncoder,
        WaveformAudioEncoder,
    ]
    projector: list[type[interfaces.Connector]] = [
        Linear,
        Mlp,
        Pool,
        Gated,
        Resampler,
        QFormer,
        ConvAttention,
        SpatialTemporalPool,
    ]
    fusion: list[type[interfaces.Fusion]] = [AvaceAdapters, GatedCrossAttention, Concat, NoFusion]
    loss: list[type[interfaces.Loss]] = [LanguageModelling, AVOpT, AVACE, Contrastive, SigLip]
    llm: list[type[interfaces.LanguageModel]] = [SmallLlama, HuggingFaceLlm]
    source: list[type[interfaces.Source]] = [AvWorld, PairedFolder, Manifest, Shards]
    dataset: list[type[interfaces.Dataset]] = [
        VggSs,
        AvsBench,
        FlickrSoundNet,
        Llp,
        Ave,
        DatasetAvqa,
        MusicAvqa,
        Valor,
        OpenImages,
        PascalVoc,
        AudioSet,
        AudioSetStrong,
        VggSound,
        Esc50,
    ]
    task: list[type[interfaces.Task]] = [Arig, Igatl, Avfc, Avqa, Avcap]
    mapped: list[type[interfaces.Mapped]] = [Arig]
