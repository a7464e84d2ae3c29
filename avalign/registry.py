"""Every shipped component by name, on one page. A component is imported when it is asked for, not before.

Others add theirs with an entry point (`[project.entry-points."avalign.losses"]  mine = "my_module:MyLoss"`),
or write `name: my_module:MyLoss` in a recipe, or `name: ./my_loss.py:MyLoss` for a file beside it. What a
component of each kind must offer stands in interfaces.py.
"""

from __future__ import annotations

import importlib
import inspect
import os
import sys
import types
import typing
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from avalign.errors import AvalignError, suggest
from avalign.local_components import LocalFileError, is_local, load_class, split, trust

SHIPPED: dict[str, dict[str, str]] = {
    "image_encoder": {
        "small": "avalign.encoders.small:SmallImageEncoder",
        "timm": "avalign.encoders.timm:TimmImageEncoder",
        "clip": "avalign.encoders.clip:ClipImageEncoder",
    },
    "audio_encoder": {
        "small": "avalign.encoders.small:SmallAudioEncoder",
        "clap": "avalign.encoders.clap:ClapAudioEncoder",
        "laion_clap": "avalign.encoders.laion_clap:LaionClapAudioEncoder",
        "ast": "avalign.encoders.ast:AstAudioEncoder",
        "whisper": "avalign.encoders.whisper:WhisperAudioEncoder",
        "wav2vec2": "avalign.encoders.wav2vec2:WaveformAudioEncoder",
    },
    "projector": {
        "linear": "avalign.projectors.linear:Linear",
        "mlp": "avalign.projectors.mlp:Mlp",
        "pool": "avalign.projectors.pool:Pool",
        "gated": "avalign.projectors.gated:Gated",
        "resampler": "avalign.projectors.resampler:Resampler",
        "qformer": "avalign.projectors.qformer:QFormer",
        "conv_attention": "avalign.projectors.conv_attention:ConvAttention",
        "spatial_temporal_pool": "avalign.projectors.spatial_temporal_pool:SpatialTemporalPool",
    },
    "fusion": {
        "avace": "avalign.fusion.avace:AvaceAdapters",
        "gated_cross_attention": "avalign.fusion.gated_cross_attention:GatedCrossAttention",
        "concat": "avalign.fusion.concat:Concat",
        "none": "avalign.fusion.none:NoFusion",
    },
    "loss": {
        "language_modelling": "avalign.losses.language_modelling:LanguageModelling",
        "avopt": "avalign.losses.avopt:AVOpT",
        "avace": "avalign.losses.avace:AVACE",
        "contrastive": "avalign.losses.contrastive:Contrastive",
        "siglip": "avalign.losses.siglip:SigLip",
    },
    "llm": {
        "small": "avalign.llm:SmallLlama",
        "huggingface": "avalign.llm:HuggingFaceLlm",
    },
    "source": {
        "avworld": "avalign.data.avworld:AvWorld",
        "paired_folder": "avalign.data.paired_folder:PairedFolder",
        "manifest": "avalign.data.manifest:Manifest",
        "shards": "avalign.data.shards:Shards",
    },
    "dataset": {
        "vgg_ss": "avalign.avfit.datasets.vgg_ss:VggSs",
        "avsbench": "avalign.avfit.datasets.avsbench:AvsBench",
        "flickr_soundnet": "avalign.avfit.datasets.flickr_soundnet:FlickrSoundNet",
        "llp": "avalign.avfit.datasets.llp:Llp",
        "ave": "avalign.avfit.datasets.ave:Ave",
        "avqa": "avalign.avfit.datasets.avqa:Avqa",
        "music_avqa": "avalign.avfit.datasets.music_avqa:MusicAvqa",
        "valor": "avalign.avfit.datasets.valor:Valor",
        "openimages": "avalign.avfit.datasets.openimages:OpenImages",
        "pascal_voc": "avalign.avfit.datasets.pascal_voc:PascalVoc",
        "audioset": "avalign.avfit.datasets.audioset:AudioSet",
        "audioset_strong": "avalign.avfit.datasets.audioset_strong:AudioSetStrong",
        "vgg_sound": "avalign.avfit.datasets.vgg_sound:VggSound",
        "esc50": "avalign.avfit.datasets.esc50:Esc50",
    },
    "pairing": {
        "by_class": "avalign.avfit.pairing.pairing:Pairing",
    },
}

# options that had another name: read by it, with a note, for this release
RENAMED = {
    "avopt": {"rounds": "iterations"},
    "by_class": {"draw": "sampling"},
    "avsbench": {"hear": "audio_span"},
}

# kind -> its plural; both are understood wherever a kind is written
PLURALS = {kind: {"loss": "losses", "fusion": "fusion"}.get(kind, f"{kind}s") for kind in SHIPPED}
# module -> what to give to pip, where the two differ
PIP_NAMES = {
    "laion_clap": "laion-clap",
    "ot": "pot",
    "PIL": "pillow",
    "sklearn": "scikit-learn",
    "yaml": "pyyaml",
}


class RegistryError(AvalignError, ValueError):
    """No such component, two of one name, or one that cannot be imported."""


# In an Annotated: a keyword-only argument of a component used by itself, which is no option of a recipe
NO_OPTION = "no option of a recipe"


@dataclass(frozen=True)
class Option:
    name: str
    type: str  # for people: "float, above 0"
    default: str  # as Python writes it; "required" when there is none


@dataclass(frozen=True)
class Manual:
    """What `avalign options` prints: a component's docstring and every option it takes."""

    kind: str
    name: str
    location: str  # "module:Class"
    text: str
    options: tuple[Option, ...]


def kind_named(word: str) -> str:
    """The kind a word stands for: "loss" and "losses" are both "loss"."""
    for kind, plural in PLURALS.items():
        if word.replace("-", "_") in (kind, plural):
            return kind
    raise RegistryError(f"no kind of component is called {word!r}.{suggest(word, SHIPPED)}")


def locations(kind: str) -> dict[str, str]:
    """Name -> "module:Class" of every component of a kind: shipped ones first, then installed ones."""
    kind = kind_named(kind)
    found = dict(SHIPPED[kind])
    for group in sorted({f"avalign.{kind}", f"avalign.{PLURALS[kind]}"}):
        for point in installed(group):
            location = found.setdefault(point.name, point.value)
            if location != point.value:
                raise RegistryError(
                    f"two {PLURALS[kind]} are named {point.name!r}: {location}, {point.value}"
                )
    return found


@cache  # every installed package is asked
def installed(group: str) -> tuple[EntryPoint, ...]:
    return tuple(entry_points(group=group))


def names(kind: str) -> list[str]:
    return list(locations(kind))


def load(kind: str, name: str) -> type[Any]:
    """The class of a component, by its name, as "module:Class", or as "path/to/file.py:Class"."""
    kind = kind_named(kind)
    known = locations(kind)
    if is_local(name):
        try:
            return load_class(name)
        except LocalFileError as error:
            raise RegistryError(str(error)) from error
    location = name if ":" in name else known.get(name)
    if location is None:
        raise RegistryError(f"no {kind} is named {name!r}.{suggest(name, known)} Or write 'module:Class'.")
    module_name, _, class_name = location.partition(":")
    if not all(part.isidentifier() for part in [*module_name.split("."), class_name]):
        raise RegistryError(f"{kind} {name!r} is neither a known name nor of the form 'module:Class'.")
    if location not in known.values():
        find_modules_here()
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise RegistryError(f"{kind} {name!r} {why_not_imported(error, module_name)}") from error
    found = getattr(module, class_name, None)
    if not isinstance(found, type):
        own = [n for n, value in vars(module).items() if getattr(value, "__module__", "") == module_name]
        raise RegistryError(
            f"{kind} {name!r}: {module_name} has no class {class_name!r}.{suggest(class_name, own)}"
        )
    return found


def own_files(name: str) -> list[Path] | None:
    """The files that a component is taken from that is not installed as one; None if it is. Runs nothing."""
    if is_local(name):
        return [split(name)[0]]
    if ":" not in name or any(name in locations(kind).values() for kind in SHIPPED):
        return None
    find_modules_here()
    return trust.module_files(name.partition(":")[0])


def refuse_strange(name: str) -> None:
    """AvalignError if a run's recipe takes a component from code that nobody has asked for."""
    files = own_files(name)
    if files is not None:
        trust.refuse(name, files)


def find_modules_here() -> None:
    """A recipe may name a class of a module in the working directory: last on the Python path, and only once
    one is named, for a package that is not installed would be looked for there too."""
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())


def why_not_imported(error: ImportError, module_name: str = "avalign") -> str:
    """What an ImportError means to the user; a missing package comes with the command that installs it."""
    missing = error.name if isinstance(error, ModuleNotFoundError) else None
    if missing is None or missing.startswith("avalign."):
        return f"cannot be imported: {error}"
    if module_name == missing or module_name.startswith(f"{missing}."):
        return f"cannot be imported: there is no module {missing!r} on the Python path."
    package = missing.partition(".")[0]
    command = f"pip install {PIP_NAMES.get(package, package)}"
    return f"needs the package {package!r}, which is not installed: {command}"


def options(component: type[Any]) -> dict[str, inspect.Parameter]:
    """The keyword-only arguments of a class, which are its recipe options; annotations as types."""
    scope = getattr(inspect.unwrap(component.__init__), "__globals__", {})
    found = {}
    for name, parameter in inspect.signature(component).parameters.items():
        hint = _resolved(parameter.annotation, scope)
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY and NO_OPTION not in get_args(hint)[1:]:
            found[name] = parameter.replace(annotation=hint)
    return found


def manual(kind: str, name: str) -> Manual:
    component = load(kind, name)
    rows = tuple(
        Option(
            parameter.name,
            "" if parameter.annotation is parameter.empty else _readable(parameter.annotation),
            "required" if parameter.default is parameter.empty else repr(parameter.default),
        )
        for parameter in options(component).values()
    )
    location = name if is_local(name) else f"{component.__module__}:{component.__qualname__}"
    return Manual(kind_named(kind), name, location, inspect.cleandoc(component.__doc__ or ""), rows)


def _resolved(annotation: Any, scope: dict[str, Any]) -> Any:
    """`from __future__ import annotations` leaves text; a name known to type checkers only stays text."""
    if not isinstance(annotation, str):
        return annotation
    holder = types.SimpleNamespace(__annotations__={"option": annotation})
    try:
        return typing.get_type_hints(holder, scope, include_extras=True)["option"]
    except NameError:
        return annotation


# what pydantic and annotated_types call a limit -> how it is said
_LIMITS = {
    "gt": "above {}",
    "ge": "{} or above",
    "lt": "below {}",
    "le": "{} or below",
    "multiple_of": "a multiple of {}",
}


def _readable(annotation: Any) -> str:
    """An annotation as people say it: Annotated[float, Field(gt=0)] is "float, above 0"."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return ", ".join([_readable(inner[0]), *_limits(inner[1:])])
    if origin in (Union, types.UnionType):
        said = [_readable(part) for part in inner]
        return " | ".join(f"({part})" if ", " in part and "[" not in part else part for part in said)
    if origin is not None and origin is not Literal and inner:
        return f"{origin.__name__}[{', '.join(map(_readable, inner))}]"
    if isinstance(annotation, str):
        return annotation
    if annotation is Ellipsis or annotation is type(None):
        return "..." if annotation is Ellipsis else "None"
    return annotation.__name__ if isinstance(annotation, type) else inspect.formatannotation(annotation)


def _limits(metadata: Iterable[Any]) -> list[str]:
    """What an Annotated adds to its type, as far as it limits numbers."""
    found: dict[str, Any] = {}
    for part in metadata:
        for rule in getattr(part, "metadata", None) or [part]:  # pydantic's Field holds a list of rules
            found |= {name: getattr(rule, name) for name in _LIMITS if getattr(rule, name, None) is not None}
    both = [f"{found.pop('ge')}..{found.pop('le')}"] if {"ge", "le"} <= set(found) else []
    return both + [_LIMITS[name].format(number) for name, number in found.items()]
