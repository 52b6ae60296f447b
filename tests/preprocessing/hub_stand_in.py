"""A stand-in for the Hugging Face hub on this machine, as far as streaming a data set or downloading a model needs one.

It serves one repository: HEAD and GET of a file, with ranges; the revision; the listing of a folder. Every other
request gets a 404, as from the hub. It keeps a log, and fails on demand.
"""

import hashlib
import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Literal, NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Request(NamedTuple):
    """A request to the hub."""

    method: str
    path: str
    first: int | None  # first byte of the range, if there is one


@dataclass
class Trouble:
    """A failure of the requests whose path has this ending."""

    ending: str
    times: int = 1
    status: int | None = None  # answer with this status; None: hang up
    headers: dict[str, str] = field(default_factory=dict)
    after_bytes: int | None = None  # hang up after this much of the body; None: before the answer
    let_through: int = 0  # requests that succeed first
    for_good: bool = False  # from then on, hang up on every request


class Answer(NamedTuple):
    """An answer of the hub."""

    status: int
    body: bytes = b""
    headers: dict[str, str] = {}  # noqa: RUF012  never changed


class HubStandIn:
    """The server; a context manager. `repository` is the name of its one data set or model, `files` are its contents by path."""

    def __init__(self, repository: str, files: dict[str, bytes], kind: Literal["datasets", "models"] = "datasets") -> None:
        self.kind = kind
        self.repository = repository
        self.files = files
        self.troubles: list[Trouble] = []
        self.gone = False
        self.log: list[Request] = []
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> "HubStandIn":
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()

    def heal(self) -> None:
        """Forget all troubles and empty the log."""
        self.troubles, self.gone, self.log = [], False, []

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                url = urlsplit(self.path)
                path = unquote(url.path)
                span = self.headers.get("Range")
                first, last = (int(end) for end in span.removeprefix("bytes=").split("-")) if span else (None, None)
                trouble = hub._note(Request(self.command, path, first))
                if hub.gone or (trouble and trouble.status is None and trouble.after_bytes is None):
                    self.close_connection = True
                    return
                recursive = parse_qs(url.query).get("recursive") == ["true"]
                answer = hub._answer(path, recursive)
                if trouble and trouble.status is not None:
                    answer = Answer(trouble.status, headers=trouble.headers)
                body = answer.body
                if answer.status == 200 and first is not None and last is not None:
                    part = body[first : last + 1]
                    place = f"bytes {first}-{first + len(part) - 1}/{len(body)}"
                    answer, body = Answer(206, headers={**answer.headers, "Content-Range": place}), part
                self.send_response(answer.status)
                for name, value in {**answer.headers, "Content-Length": str(len(body))}.items():
                    self.send_header(name, value)
                self.end_headers()
                if self.command == "GET":
                    cut = trouble.after_bytes if trouble else None
                    self.wfile.write(body[:cut])
                    self.close_connection = self.close_connection or cut is not None

            do_HEAD = do_GET

            def log_message(self, format: str, *arguments: object) -> None:
                pass

        return Handler

    def _note(self, request: Request) -> Trouble | None:
        with self._lock:
            self.log.append(request)
            for trouble in self.troubles:
                if trouble.times and request.path.endswith(trouble.ending):
                    if trouble.let_through:
                        trouble.let_through -= 1
                        continue
                    trouble.times -= 1
                    self.gone = self.gone or trouble.for_good
                    return trouble
        return None

    def _answer(self, path: str, recursive: bool) -> Answer:
        files = f"{'/datasets' if self.kind == 'datasets' else ''}/{self.repository}/resolve/"
        api = f"/api/{self.kind}/{self.repository}/"
        if path.startswith(files):
            return self._file(path.removeprefix(files).partition("/")[2])
        what, _, rest = path.removeprefix(api).partition("/")
        if path == api.rstrip("/") or (path.startswith(api) and what == "revision"):
            return _as_json({"_id": "0", "id": self.repository, "sha": COMMIT, "siblings": [{"rfilename": name} for name in self.files]})
        if path.startswith(api) and what == "tree":
            return self._listing(rest.partition("/")[2], recursive)
        return Answer(404, headers={"X-Error-Code": "RepoNotFound"})

    def _file(self, name: str) -> Answer:
        if name not in self.files:
            return Answer(404, headers={"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT})
        return Answer(200, self.files[name], {"ETag": f'"{_digest(name)}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"})

    def _listing(self, folder: str, recursive: bool) -> Answer:
        prefix = f"{folder}/" if folder else ""
        entries: dict[str, dict[str, str | int]] = {}
        for name in (name for name in self.files if name.startswith(prefix)):
            parts = name.removeprefix(prefix).split("/")
            for depth in range(1, len(parts) if recursive else min(2, len(parts))):
                path = prefix + "/".join(parts[:depth])
                entries[path] = {"type": "directory", "path": path, "oid": _digest(path), "size": 0}
            if recursive or len(parts) == 1:
                entries[name] = {"type": "file", "path": name, "oid": _digest(name), "size": len(self.files[name])}
        return _as_json(list(entries.values())) if entries else Answer(404, headers={"X-Error-Code": "EntryNotFound"})


def _as_json(value: object) -> Answer:
    return Answer(200, json.dumps(value).encode(), {"Content-Type": "application/json"})


def _digest(text: str) -> str:
    return hashlib.sha1(text.encode()).hexdigest()
