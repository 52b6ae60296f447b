"""The connection to the Hugging Face hub."""

import functools
from typing import Any

from system.errors import LostConnection

SILENCE_SECONDS = 30  # without a byte from the hub, after which the connection counts as lost


@functools.cache
def raise_network_errors_at_once() -> None:
    """Make the library raise errors that it would silently retry for minutes: whoever reads retries, and prints it."""
    import huggingface_hub
    from huggingface_hub.utils import get_session, httpx, parse_ratelimit_headers  # type: ignore[attr-defined]  # re-exported, not declared

    class Client(httpx.Client):
        def send(self, request: httpx.Request, **options: Any) -> httpx.Response:
            limits = request.extensions.get("timeout", {})
            request.extensions["timeout"] = {what: min(seconds or SILENCE_SECONDS, SILENCE_SECONDS) for what, seconds in limits.items()}
            try:
                response = super().send(request, **options)
            except httpx.RequestError as error:
                raise LostConnection(f"{error or type(error).__name__} ({request.url.host})") from error
            if response.status_code in (408, 429) or response.status_code >= 500:
                response.close()
                quota, retry_after = parse_ratelimit_headers(response.headers), response.headers.get("retry-after", "")
                pause = int(retry_after) if retry_after.isdecimal() else 0
                if quota and not quota.remaining:
                    pause = quota.reset_in_seconds + 1
                raise LostConnection(f"{request.url.host} answers {response.status_code} {response.reason_phrase}", pause)
            return response

    hooks = get_session().event_hooks
    huggingface_hub.set_client_factory(lambda: Client(event_hooks=hooks, follow_redirects=True))
