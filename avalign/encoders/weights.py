"""Stock weights: from the Hugging Face hub's cache or the hub, read safely, and never loaded in part."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from avalign.errors import AvalignError


def hub_file(repository: str, *names: str) -> Path:
    """The first of `names` that the hub's `repository` holds, as a local file.

    A cached file is used without asking. When the hub cannot be reached this says so after seconds, with the
    ways out (huggingface_hub itself retries for up to a minute).
    """
    import huggingface_hub
    from huggingface_hub import constants, errors

    for name in names:
        cached = huggingface_hub.try_to_load_from_cache(repository, name)
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
            return Path(huggingface_hub.hf_hub_download(repository, name))
        except errors.RemoteEntryNotFoundError:
            continue
        except errors.GatedRepoError as error:
            raise _missing(repository, names, "its licence has to be accepted on its page first") from error
        except errors.RepositoryNotFoundError as error:
            raise _missing(repository, names, "the hub knows no such model") from error
        except (OSError, errors.HfHubHTTPError) as error:
            raise _missing(repository, names, str(error)) from error
    raise _missing(repository, names, "the model has no such file")


def _missing(repository: str, names: tuple[str, ...], why: str) -> AvalignError:
    return AvalignError(
        f"{repository}: {' or '.join(names)} is not in the local cache and cannot be fetched ({why}). "
        f"Fetch it where there is a network by `hf download {repository}` and copy the cache (HF_HOME), "
        "name a local file or folder in the recipe, or set `pretrained: false` for random weights."
    )


def read_weights(file: Path) -> dict[str, Tensor]:
    """The tensors of a .safetensors file; AvalignError if it is not one."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not file.is_file():
        raise AvalignError(f"{file}: no such file.")
    if file.suffix != ".safetensors":
        raise AvalignError(f"{file}: only .safetensors files are read, others can run code.")
    try:
        return load_file(file)
    except SafetensorError as error:
        raise AvalignError(f"{file}: is not a safetensors file: {error}") from error


def load_all(module: nn.Module, weights: Mapping[str, Tensor], source: str | Path) -> None:
    """Load every weight of `module`. AvalignError names the missing, the unexpected and the misshapen."""
    wanted = module.state_dict()
    missing = [k for k in wanted if k not in weights]
    unexpected = [k for k in weights if k not in wanted]
    misshapen = [
        f"{k} {tuple(weights[k].shape)} for {tuple(v.shape)}"
        for k, v in wanted.items()
        if k in weights and weights[k].shape != v.shape
    ]
    problems = [
        f"{len(keys)} {what}: {', '.join(keys[:5])}{', ...' if len(keys) > 5 else ''}"
        for what, keys in (("missing", missing), ("unexpected", unexpected), ("of another shape", misshapen))
        if keys
    ]
    if problems:
        raise AvalignError(
            f"{source}: these weights are not those of {type(module).__name__}. {'; '.join(problems)}."
        )
    module.load_state_dict(dict(weights))
