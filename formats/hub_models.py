"""Downloading a model from the Hugging Face hub."""

import fnmatch
import re
from collections.abc import Sequence
from pathlib import Path

from formats.hugging_face import INDEX, OURS, TOKENIZER
from system.errors import BAD_FLAGS, UserError, first_line

SCHEME = "hf://"
NAME = re.compile(r"hf://(?P<repository>[\w.-]+/[\w.-]+)(?:@(?P<revision>[^/]+))?(?:/(?P<path>.+?))?/?")
FILES = ("config.json", OURS, TOKENIZER, INDEX, "*.safetensors")  # of a Hugging Face folder


def is_on_hub(name: str) -> bool:
    """Whether a model is named by its place on the hub."""
    return name.startswith(SCHEME)


def download_model(name: str, files: Sequence[str] = FILES) -> Path:
    """The local copy of hf://owner/name[@revision], or of a folder or a .pt file in it.

    What is in the cache already is not downloaded again; without a connection the cache alone is used.
    """
    parts = NAME.fullmatch(name)
    if not parts:
        raise UserError(
            f"{name}: a model on the hub is named hf://owner/name, hf://owner/name@revision or hf://owner/name/file.pt", BAD_FLAGS
        )
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )
    from huggingface_hub.utils import httpx  # type: ignore[attr-defined]  # re-exported, not declared

    inner = parts["path"] or ""
    wanted = [inner] if inner.endswith(".pt") else [f"{inner}/{file}" if inner else file for file in files]
    try:
        folder = Path(snapshot_download(parts["repository"], revision=parts["revision"], allow_patterns=wanted))
    except GatedRepoError as error:
        raise UserError(f"{name}: its owner decides who may read it. Ask on its page, then run: hf auth login") from error
    except RevisionNotFoundError as error:
        raise UserError(f"{name}: there is no revision {parts['revision']}. Check it on the model's page", BAD_FLAGS) from error
    except RepositoryNotFoundError as error:
        raise UserError(f"{name}: no such model on the hub. Check the name; if it is private, run: hf auth login") from error
    except (LocalEntryNotFoundError, HfHubHTTPError, httpx.RequestError, ConnectionError, TimeoutError) as error:
        raise UserError(
            f"{name} cannot be downloaded ({first_line(error)}). Run the same command again; what was downloaded is kept"
        ) from error
    there = [str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()]
    if not any(fnmatch.fnmatchcase(path, pattern) for path in there for pattern in wanted):
        raise UserError(f"{name} has no {' or '.join(wanted)}. For a checkpoint, give its path: {name.rstrip('/')}/best_checkpoint.pt")
    return folder / inner
