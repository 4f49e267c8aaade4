"""Models by their name on the Hugging Face hub."""

from __future__ import annotations

from pathlib import Path

import huggingface_hub
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, HTTPError

from ..ppl.errors import BorelaxError

# What ``weights.load_folder`` reads; weights in other formats, often as large again, stay behind.
_FILES = [
    "config.json",
    "generation_config.json",
    "model.safetensors.index.json",
    "*.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
]


class HubError(BorelaxError, OSError):
    """A model that could not be had from the hub."""


def download(name: str, revision: str | None = None) -> Path:
    """The folder of a hub model, downloaded unless it is in the hub's own cache already.

    Args:
      name: ``owner/model``.
      revision: a branch, tag or commit; the default branch if not given.

    Raises:
      HubError: if the name is not one, if there is no such model or no access to it, or if the hub cannot be
        reached and the model is not in the cache.
    """
    try:
        return Path(huggingface_hub.snapshot_download(name, revision=revision, allow_patterns=_FILES))
    except HFValidationError as error:
        raise HubError(f"{name!r} is not a hub model's name, which has the form 'owner/model'") from error
    except HfHubHTTPError as error:
        raise HubError(f"the hub does not give out {name!r}: {error}") from error
    except (OSError, HTTPError) as error:
        raise HubError(
            f"{name!r} is not in the local cache and cannot be downloaded from the Hugging Face hub ({error}); "
            "offline, download it elsewhere and load it by its folder's path"
        ) from error
