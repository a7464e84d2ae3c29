"""Stock weights: from the Hugging Face hub's cache or the hub, read safely, and never loaded in part unasked.

weights = read_weights(hub_file("owner/name", "model.safetensors", "pytorch_model.bin"))
encoder.loaded = load_all(tower, weights, source)   # all of them, or AvalignError and nothing changed
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from avalign.errors import AvalignError, suggest
from avalign.weights.tensors import read_tensors, refuse_not_finite

PICKLED = (".bin", ".pt", ".pth", ".ckpt")  # PyTorch's own format: tensors inside a pickle


@dataclass(frozen=True)
class Loaded:
    """What came of loading a file into a module; `share` is of the module's numbers, 0..1.

    keys, parameters: tensors and numbers that were loaded, of `keys_wanted` and `parameters_wanted`
    missing, misshapen: the module's tensors that stayed as they were made
    unexpected:       the file's tensors that have no place in the module
    dropped:          the file's tensors that were left out on purpose, by reason
    """

    source: str
    module: str
    keys: int
    keys_wanted: int
    parameters: int
    parameters_wanted: int
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    misshapen: tuple[str, ...] = ()  # "name (3,) for (64,)"
    dropped: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def share(self) -> float:
        return self.parameters / self.parameters_wanted if self.parameters_wanted else 1.0

    @property
    def complete(self) -> bool:
        """Nothing of the module stayed random, and nothing of the file was of no use."""
        return not (self.missing or self.unexpected or self.misshapen)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"share": self.share, **asdict(self)}

    def problems(self, most: int = 5) -> str:
        """ "1 missing: norm.weight; 2 unexpected: a, b", `most` names each; "" if there is none."""
        named = (
            ("missing", self.missing),
            ("unexpected", self.unexpected),
            ("of another shape", self.misshapen),
        )
        return "; ".join(
            f"{len(keys)} {what}: {', '.join(keys[:most])}{', ...' if len(keys) > most else ''}"
            for what, keys in named
            if keys
        )

    def __str__(self) -> str:
        return (
            f"{self.source}: {self.keys} of {self.keys_wanted} tensors of {self.module}, "
            f"{self.parameters:,} of {self.parameters_wanted:,} numbers ({100 * self.share:.4g} %)"
        )


def load_all(
    module: nn.Module,
    weights: Mapping[str, Tensor],
    source: str | Path,
    *,
    min_loaded: float = 1.0,
    dropped: Mapping[str, Iterable[str]] | None = None,
) -> Loaded:
    """Load `weights` into `module` and report it, or raise AvalignError and change nothing.

    min_loaded: the share of the module's numbers that must be there, above 0 and up to 1. At 1, the file's
                tensors must also all have a place. Below, what stays random is named by a UserWarning
    dropped:    what the caller left out of `weights` on purpose: reason -> names, for the report

    Refused in any case: numbers that are not finite, and integers where the module has floats.
    """
    if not 0 < min_loaded <= 1:
        raise AvalignError(f"min_loaded is {min_loaded}: a share above 0 and up to 1 is needed.")
    wanted = module.state_dict()
    if any(tensor.is_meta for tensor in wanted.values()):
        raise AvalignError(f"{source}: a model on the meta device holds no weights: set `pretrained: false`.")
    fitting = {
        name: tensor
        for name, tensor in weights.items()
        if name in wanted
        and tensor.shape == wanted[name].shape
        and tensor.is_floating_point() == wanted[name].is_floating_point()
    }
    report = Loaded(
        source=str(source),
        module=type(module).__name__,
        keys=len(fitting),
        keys_wanted=len(wanted),
        parameters=sum(tensor.numel() for tensor in fitting.values()),
        parameters_wanted=sum(tensor.numel() for tensor in wanted.values()),
        missing=tuple(name for name in wanted if name not in weights),
        unexpected=tuple(name for name in weights if name not in wanted),
        misshapen=tuple(
            f"{name} {_form(weights[name], tensor)} for {_form(tensor, weights[name])}"
            for name, tensor in wanted.items()
            if name in weights and name not in fitting
        ),
        dropped={reason: tuple(names) for reason, names in (dropped or {}).items() if names},
    )
    if report.share < min_loaded or (min_loaded == 1 and not report.complete):
        share = (
            "" if min_loaded == 1 else f" They fill {report.share:.4f} of it, and min_loaded is {min_loaded}."
        )
        raise AvalignError(
            f"{source}: these weights are not those of {report.module}. {report.problems()}.{share}"
        )
    refuse_not_finite(source, fitting)
    if not report.complete:
        warnings.warn(
            f"{report}. What is missing or misshapen stays as it was drawn at random. {report.problems(20)}",
            UserWarning,
            stacklevel=2,
        )
    module.load_state_dict(fitting, strict=False)  # compared above, name by name and shape by shape
    return report


def _form(tensor: Tensor, other: Tensor) -> str:
    return str(tuple(tensor.shape) if tensor.shape != other.shape else tensor.dtype)


# ---- files ---------------------------------------------------------------------------------------


def read_weights(file: Path, *, inside: str | None = None) -> dict[str, Tensor]:
    """The tensors of a .safetensors file or of a checkpoint of PyTorch's, on the CPU; no code in it is run.

    A checkpoint may hold its weights in one entry beside others (epoch, optimizer): that one is found.

    inside: the entry to take, where a checkpoint has several sets of weights (model, model_ema)
    """
    file = Path(file)
    if not file.is_file():
        raise AvalignError(f"{file}: no such file.")
    if file.suffix == ".safetensors":
        return read_tensors(file)
    if file.suffix in PICKLED:
        return _entry(file, _unpickle_tensors(file), inside)
    raise AvalignError(f"{file}: weights are read from .safetensors, {', '.join(PICKLED)} files only.")


def _unpickle_tensors(file: Path) -> Any:
    """What torch.load makes of tensors, containers, plain values and NumPy's scalars, and of nothing else."""
    import pickle

    import numpy as np

    # Training loops keep a loss or a learning rate as a NumPy scalar; it is made of a type and its bytes.
    scalar = np.float64(0).__reduce__()[0]
    kinds = {type(np.dtype(kind)) for kind in "bBhHiIlLqQefd?"}
    plain: list[Any] = [
        np.dtype,
        *kinds,
        *((scalar, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
    ]
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals(plain):
            warnings.simplefilter("ignore")  # what it says of archives of other kinds, the error below says
            return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        named = re.search(r"(?:GLOBAL|function|class|find) ([\w.]+\.\w+)", str(error))
        if named:
            raise AvalignError(
                f"{file}: is refused: reading it would run {named[1]}, no weight, or it is not complete. "
                "Ask for a .safetensors file, or save its state_dict alone where you trust it."
            ) from error
        raise AvalignError(
            f"{file}: is no complete checkpoint of PyTorch's (other pickles are not read: they can run code)."
        ) from error
    except (RuntimeError, OSError) as error:
        said = _line(error)
        raise AvalignError(
            f"{file}: is not a checkpoint of PyTorch, or not a complete one: {said}."
        ) from error
    except Exception as error:  # bytes that are taken for instructions can fail in any way
        raise AvalignError(f"{file}: is not a checkpoint of PyTorch, or not a complete one.") from error


def _entry(file: Path, found: Any, inside: str | None) -> dict[str, Tensor]:
    """The set of named tensors in what a checkpoint holds."""
    if inside is None and _are_weights(found):
        return dict(found)
    sets = {k: v for k, v in found.items() if _are_weights(v)} if isinstance(found, Mapping) else {}
    if inside is None and len(sets) == 1:
        inside = next(iter(sets))
    if inside in sets:
        return dict(sets[inside])
    if not sets:
        raise AvalignError(f"{file}: holds no set of named tensors.")
    if inside is None:
        raise AvalignError(
            f"{file}: holds several sets of weights ({', '.join(map(str, sets))}): save the one meant."
        )
    raise AvalignError(f"{file}: has no set of weights {inside!r}.{suggest(inside, map(str, sets))}")


def _are_weights(value: Any) -> bool:
    return (
        isinstance(value, Mapping)
        and bool(value)
        and all(isinstance(k, str) and isinstance(v, Tensor) for k, v in value.items())
    )


def _line(error: BaseException) -> str:
    """The first sentence of what a library says."""
    return (str(error).strip() or type(error).__name__).splitlines()[0].partition(". ")[0].rstrip(".")


# ---- the hub -------------------------------------------------------------------------------------


def hub_file(repository: str, *names: str, revision: str | None = None) -> Path:
    """The first of `names` that the hub's `repository` holds, as a local file.

    revision: branch, tag or commit; the main branch when not given

    A cached file is used without asking. When the hub cannot be reached this says so after seconds, with the
    ways out (huggingface_hub itself retries for up to a minute).
    """
    import huggingface_hub
    from huggingface_hub import constants, errors

    for name in names:
        cached = huggingface_hub.try_to_load_from_cache(repository, name, revision=revision)
        if isinstance(cached, str):
            return Path(cached)
    if huggingface_hub.is_offline_mode():
        raise _missing(repository, names, "HF_HUB_OFFLINE is set")
    try:
        huggingface_hub.get_session().head(constants.ENDPOINT, timeout=5)
    except Exception as error:  # however the network fails, the message is this one
        raise _missing(repository, names, f"{constants.ENDPOINT} does not answer: {error}") from error
    for name in names:
        try:
            return Path(huggingface_hub.hf_hub_download(repository, name, revision=revision))
        except errors.RemoteEntryNotFoundError:
            continue
        except errors.GatedRepoError as error:
            raise _missing(repository, names, "its licence has to be accepted on its page first") from error
        except errors.RevisionNotFoundError as error:
            raise _missing(repository, names, f"the model has no revision {revision}") from error
        except errors.RepositoryNotFoundError as error:
            raise _missing(repository, names, "the hub knows no such model") from error
        except (OSError, errors.HfHubHTTPError) as error:
            raise _missing(repository, names, str(error)) from error
    raise _missing(repository, names, "the model has no such file")


def model_file(model: str, *names: str) -> Path:
    """The first of `names` in `model`: a local folder, or a hub id (owner/name, owner/name@revision)."""
    folder = Path(model).expanduser()
    if folder.is_dir():
        for name in names:
            if (folder / name).is_file():
                return folder / name
        raise AvalignError(f"{model}: this folder holds no {' or '.join(names)}.")
    repository, _, revision = model.partition("@")
    if model.startswith((".", "/", "~")) or repository.count("/") != 1:
        raise AvalignError(f"{model}: no such folder, and no hub id (owner/name) either.")
    return hub_file(repository, *names, revision=revision or None)


def _missing(repository: str, names: tuple[str, ...], why: str) -> AvalignError:
    return AvalignError(
        f"{repository}: {' or '.join(names)} is not in the local cache and cannot be fetched ({why}). "
        f"Fetch it where there is a network by `hf download {repository}` and copy the cache (HF_HOME), "
        "name a local file or folder in the recipe, or set `pretrained: false` for random weights."
    )
