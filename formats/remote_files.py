"""Files at a URL (hf://, s3://, https:// and whatever else fsspec opens): finding them, telling whether they changed, opening them."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import PurePosixPath
from typing import IO, Any

from system.errors import BAD_FLAGS, LostConnection, UserError, first_line

VERSIONS = ("etag", "ETag", "blob_id", "sha256", "md5Hash", "mtime", "last_modified", "LastModified", "created")  # what storages call it
BLOCK_BYTES = 8 << 20  # asked for at once


def is_remote(path: str) -> bool:
    """Whether a path is a URL."""
    return "://" in path


def find_remote_files(given: str, endings: tuple[str, ...]) -> list[str]:
    """The URLs of a file or of a glob, with these endings, or of all files in a folder; sorted."""
    with _explaining(given):
        system, path = _storage(given)
        if any(character in path for character in "*?["):
            found = [name for name in system.glob(path) if name.lower().endswith(endings)]
        elif path.lower().endswith(endings):
            found = [path] if system.exists(path) else []
        else:
            found = system.find(path)
        return [str(system.unstrip_protocol(name)) for name in sorted(found)]


def remote_fingerprint(url: str) -> str:
    """A file's name, its size, and a hash of what its storage calls its version."""
    with _explaining(url):
        system, path = _storage(url)
        about = system.info(path)
    version = [str(about[name]) for name in VERSIONS if about.get(name)]
    digest = hashlib.sha256("\n".join(version).encode()).hexdigest()
    return f"{PurePosixPath(path).name} ({about.get('size') or 0:,} bytes, {digest[:12]})"


def open_remote(url: str) -> IO[bytes]:
    """A file that can seek."""
    with _explaining(url):
        system, path = _storage(url)
        file: IO[bytes] = system.open(path, "rb", block_size=BLOCK_BYTES)
        return file


def _storage(url: str) -> tuple[Any, str]:
    import fsspec  # comes with datasets; worker processes import it only for files at a URL

    if url.startswith("hf://"):
        from formats.hub_client import raise_network_errors_at_once

        raise_network_errors_at_once()
    system, path = fsspec.url_to_fs(url)
    return system, path


@contextmanager
def reading(path: str, how: str = "") -> Iterator[None]:
    """Errors while a file is read: a local one is refused; with one at a URL the connection was lost, which is worth a retry."""
    try:
        yield
    except OSError as error:
        if is_remote(path) and not isinstance(error, FileNotFoundError | PermissionError):
            raise _lost(path, error) from error
        raise UserError(f"{path} cannot be read{how}: {first_line(error)}") from error
    except Exception as error:  # each storage has its own; those of a local file pass
        if is_remote(path) and not isinstance(error, UserError | ValueError):
            raise _lost(path, error) from error
        raise


def _lost(url: str, error: Exception) -> LostConnection:
    if isinstance(error, LostConnection):
        return LostConnection(f"{url}: {error}", error.pause)
    return LostConnection(f"{url}: {type(error).__name__}: {first_line(error)}")


@contextmanager
def _explaining(url: str) -> Iterator[None]:
    try:
        yield
    except (ImportError, ValueError) as error:  # the storage needs a package, or there is no such storage
        raise UserError(f"{url}: {first_line(error)}", BAD_FLAGS) from error
    except FileNotFoundError as error:
        raise UserError(f"{url}: no such file", BAD_FLAGS) from error
    except UserError:
        raise
    except Exception as error:  # each storage has its own, and a retry tells whether it stays
        raise _lost(url, error) from error
