"""A model behind an OpenAI-compatible endpoint, asked through the official client."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from avalign.errors import AvalignError

KEY = "OPENAI_API_KEY"
LONGEST_WAIT = 600.0  # s that a server may ask for with Retry-After
# what the client tells of the machine, beside what is asked
_TELLTALES = ("Lang", "Package-Version", "OS", "Arch", "Runtime", "Runtime-Version", "Async")


class _Unusable(Exception):
    """A reply of status 200 with nothing in it."""


class Endpoint:
    """Chat completions of any server that speaks OpenAI's protocol. Sends the prompt and the model's name.

    model:       as the server calls it
    base_url:    such as http://localhost:8000/v1; OPENAI_BASE_URL or OpenAI's own if not given
    temperature: the server's own if not given
    timeout:     seconds until a request is given up and tried again
    attempts:    rounds of tries, each with the client's own retries, that a request gets
    tell:        hears of what goes wrong on the way

    The key comes from OPENAI_API_KEY; it stands in no message and no file.
    """

    def __init__(
        self,
        model: str,
        base_url: str | None = None,
        *,
        temperature: float | None = None,
        timeout: float = 120.0,
        attempts: int = 3,
        tell: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.model, self.temperature, self.attempts, self.tell = model, temperature, attempts, tell
        url = base_url or os.environ.get("OPENAI_BASE_URL") or "https://api.openai.com/v1"
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.query:
            raise AvalignError(
                "--base-url: an address such as http://localhost:8000/v1 is needed, without a key or a query"
            )
        self.variant = f"{url.rstrip('/')} {temperature}"
        self._host = parts.netloc
        self._settings: dict[str, Any] = {"base_url": url, "timeout": timeout, "max_retries": 2}

    def ask(self, prompt: str, number: int) -> str:
        """The reply's text. AvalignError when the server refuses, or does not answer after all attempts."""
        key = os.environ.get(KEY, "")
        if not key or not key.isascii() or not key.isprintable() or " " in key:
            raise AvalignError(
                f"{KEY} has to hold the key for {self._host}, without blanks (any word, for a server that "
                "asks for none)"
            )
        import openai

        silent: Any = {f"X-Stainless-{name}": openai.Omit() for name in _TELLTALES}
        with openai.OpenAI(
            api_key=key, default_headers={"User-Agent": "avalign", **silent}, **self._settings
        ) as client:
            return self._patiently(client, prompt, key)

    def _patiently(self, client: Any, prompt: str, key: str) -> str:
        import openai

        pause = 2.0
        for attempt in range(1, self.attempts + 1):
            wait = pause
            try:
                return self._once(client, prompt)
            except openai.APITimeoutError:
                why = f"no answer within {self._settings['timeout']:g} s"
            except openai.APIConnectionError as error:
                why = f"the connection failed ({type(error.__cause__ or error).__name__})"
            except openai.APIStatusError as error:
                why = f"status {error.status_code}: {_first_line(error, key)}"
                if not _passes(error):
                    raise AvalignError(f"{self._host}: {why}{self._advice(error.status_code)}") from None
                wait = max(pause, _asked_to_wait(error))
            except (_Unusable, openai.APIError, ValueError, RecursionError) as error:
                why = "a reply that is " + (str(error) if isinstance(error, _Unusable) else "not JSON")
            if wait > LONGEST_WAIT:
                raise AvalignError(f"{self._host}: asks to be left alone for {wait:.0f} s; come back later")
            if attempt < self.attempts:
                self.tell(f"{self._host}: {why}; again in {wait:.0f} s")
                time.sleep(wait)
                pause *= 4
        raise AvalignError(
            f"{self._host}: gave up after {self.attempts} attempts, the last: {why}. The same command goes "
            "on from here"
        )

    def _once(self, client: Any, prompt: str) -> str:
        options = {} if self.temperature is None else {"temperature": self.temperature}
        reply = client.chat.completions.create(
            model=self.model, messages=[{"role": "user", "content": prompt}], **options
        )
        choices = getattr(reply, "choices", None)
        if not isinstance(choices, list) or not choices:
            raise _Unusable("without choices")
        text = getattr(getattr(choices[0], "message", None), "content", None)
        if not isinstance(text, str) or not text.strip():
            raise _Unusable(f"without text (it ended for: {getattr(choices[0], 'finish_reason', None)})")
        return text

    def _advice(self, status: int) -> str:
        if status == 401:
            return f". {KEY} does not hold a key that it takes"
        if status == 404:
            return f". It has no model {self.model!r}, or --base-url is wrong (it often ends with /v1)"
        return ""


def _passes(error: Any) -> bool:
    """Whether trying again may help."""
    if error.code == "insufficient_quota":
        return False
    return error.status_code in (408, 409, 429) or error.status_code >= 500


def _asked_to_wait(error: Any) -> float:
    """Seconds of a Retry-After header; 0 when it is none or a date."""
    try:
        return max(0.0, float(error.response.headers.get("retry-after", 0)))
    except ValueError:
        return 0.0


def _first_line(error: Any, key: str) -> str:
    """What the server says, without the key that some of them repeat."""
    body = error.body if isinstance(error.body, dict) else {}
    said = str(body.get("message") or error.message).replace(key, "***").split("\n")[0]
    return said[:200] or "no word of why"
