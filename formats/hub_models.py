"""Downloading a model from the Hugging Face hub."""

import logging
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from formats.hugging_face import INDEX, OURS, TOKENIZER
from system.errors import BAD_FLAGS, UserError, first_line
from system.escapes import tell

SCHEME = "hf://"
NAME = re.compile(r"hf://(?P<repository>[\w.-]+/[\w.-]+)(?:@(?P<revision>refs/pr/\d+|[^/]+))?(?:/(?P<path>[^/*?\[][^*?\[]*?))?/?")
WEIGHT_ENDINGS = (".pt", ".safetensors")
FILES = ("config.json", OURS, TOKENIZER, INDEX, "*.safetensors")  # of a Hugging Face folder


def is_on_hub(name: str) -> bool:
    """Whether a model is named by its place on the hub."""
    return name.startswith(SCHEME)


def download_model(name: str) -> Path:
    """The local copy of hf://owner/name[@revision], or of a folder or a .pt file in it."""
    parts = NAME.fullmatch(name)
    if not parts or ".." in name or not is_repository(parts["repository"]):
        raise UserError(
            f"{name}: a model on the hub is named hf://owner/name, hf://owner/name@revision or hf://owner/name/file.pt", BAD_FLAGS
        )
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    inner = parts["path"] or ""
    wanted = [inner] if inner.endswith(".pt") else [f"{inner}/{file}" if inner else file for file in FILES]
    try:
        folder = _snapshot(name, parts["repository"], parts["revision"], wanted)
    except GatedRepoError as error:
        raise UserError(f"{name}: its owner decides who may read it. Ask on its page, then run: hf auth login") from error
    except RevisionNotFoundError as error:
        raise UserError(f"{name}: there is no revision {parts['revision']}. Check it on the model's page", BAD_FLAGS) from error
    except RepositoryNotFoundError as error:
        raise UserError(f"{name}: no such model on the hub. Check the name; if it is private, run: hf auth login") from error
    if not _holds(folder, wanted):
        way_out = "Check the path" if inner.endswith(".pt") else f"For a checkpoint, give its path: {name.rstrip('/')}/best_checkpoint.pt"
        raise UserError(f"{name} has no {' or '.join(wanted)}. {way_out}", BAD_FLAGS)
    return folder / inner


def _snapshot(name: str, repository: str, revision: str | None, wanted: list[str]) -> Path:
    """The folder of the cache that holds the wanted files of this revision; what is there already is not downloaded again."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.constants import HF_HUB_OFFLINE
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError, RevisionNotFoundError
    from huggingface_hub.utils import disable_progress_bars, httpx  # type: ignore[attr-defined]  # re-exported, not declared

    logging.getLogger("huggingface_hub").setLevel(logging.CRITICAL)  # errors are told below, in one line
    if not sys.stderr.isatty():
        disable_progress_bars()
    try:
        return Path(snapshot_download(repository, revision=revision, allow_patterns=wanted))
    except (RepositoryNotFoundError, RevisionNotFoundError):
        raise
    except UnicodeDecodeError as error:
        raise _damaged_cache(name, repository) from error
    except (LocalEntryNotFoundError, HfHubHTTPError, httpx.RequestError, ConnectionError, TimeoutError) as error:
        trouble = first_line(error)
        try:
            folder: Path | None = Path(snapshot_download(repository, revision=revision, allow_patterns=wanted, local_files_only=True))
        except LocalEntryNotFoundError:
            folder = None
        except UnicodeDecodeError:
            raise _damaged_cache(name, repository) from error
        if folder is None or not _holds(folder, [file for file in wanted if file.endswith(WEIGHT_ENDINGS)]):
            reason = "HF_HUB_OFFLINE is set" if HF_HUB_OFFLINE else trouble
            again = "unset HF_HUB_OFFLINE" if HF_HUB_OFFLINE else "run the same command again (files that are complete are kept)"
            raise UserError(
                f"{name} cannot be downloaded ({reason}), and this machine has no copy of it. "
                f"Check the name, and {again}; offline, name a local file or folder"
            ) from error
        tell(f"{name} cannot be reached ({trouble}): using the copy that was downloaded earlier", sys.stderr)
        return folder


def _damaged_cache(name: str, repository: str) -> UserError:
    """The error for a note of a revision that is no text; where the hub can be reached, it is written anew before it is read."""
    from huggingface_hub import constants

    folder = Path(constants.HF_HUB_CACHE) / f"models--{repository.replace('/', '--')}"
    return UserError(f"{name} cannot be reached, and its copy in {folder} is damaged. Delete that folder, and try again with a network")


def is_repository(repository: str) -> bool:
    """Whether the hub can have something of this name."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]  # re-exported, not declared

    try:
        validate_repo_id(repository)
    except HFValidationError:
        return False
    return True


def _holds(folder: Path, wanted: Sequence[str]) -> bool:
    """Whether any of the wanted files is there."""
    return any(any(folder.glob(pattern)) for pattern in wanted)
