"""The address at which RunningHub is to tell of a task's end: our receiver's, a secret, and which submit it is."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from pydantic import SecretStr

from rh_prefect.errors import ConfigError
from rh_prefect.settings import Settings

_TOKEN = re.compile(r"[A-Za-z0-9_-]{16,200}")


@dataclass(frozen=True, slots=True)
class Callback:
    """Where ends are to be told.

    Attributes:
        url: The receiver's address, as RunningHub reaches it.
        token: The secret part.
    """

    url: str
    token: SecretStr

    def address(self, scope: str, key: str, n: int) -> str:
        """The address for one submit, by which the receiver finds its journal.

        Args:
            scope: The journal's scope.
            key: The job's key.
            n: The number of the submit.
        """
        return f"{self.url}/hook/{self.token.get_secret_value()}/{scope}/{key}/{n}"

    def hide(self, text: str) -> str:
        """Takes the secret out of a text that will be recorded."""
        return text.replace(self.token.get_secret_value(), "***")


def callback_of(settings: Settings) -> Callback | None:
    """Finds out whether and where ends are to be told.

    Args:
        settings: With RH_WEBHOOK_URL and RH_WEBHOOK_TOKEN.

    Returns:
        None where RH_WEBHOOK_URL is unset.

    Raises:
        ConfigError: One of the two cannot be used.
    """
    if not settings.webhook_url:
        return None
    url = settings.webhook_url.strip().rstrip("/")
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment or "@" in url:
        raise ConfigError(
            "RH_WEBHOOK_URL is no address of a receiver. What to do: give the one at which RunningHub reaches "
            "`rh-prefect webhook serve`, as in https://hooks.example.net; or unset it, and ends are polled for."
        )
    if settings.webhook_token is None:
        raise ConfigError(
            "RH_WEBHOOK_URL is set and RH_WEBHOOK_TOKEN is not. What to do: set it to the token that "
            "`rh-prefect webhook serve` shows; or unset RH_WEBHOOK_URL, and ends are polled for."
        )
    return Callback(url, usable_token(settings.webhook_token))


def usable_token(token: SecretStr) -> SecretStr:
    """Checks a token.

    Raises:
        ConfigError: It could be guessed, or cannot stand in an address.
    """
    if not _TOKEN.fullmatch(token.get_secret_value()):
        raise ConfigError(
            "RH_WEBHOOK_TOKEN must have 16 to 200 letters, digits, dashes and underscores. What to do: unset it for "
            "`rh-prefect webhook serve`, which makes one and shows it."
        )
    return token
