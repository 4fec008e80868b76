"""Takes secrets out of text that a person, a log or a database will see."""

from __future__ import annotations

import re
from typing import Final

from pydantic import SecretStr

MASK: Final = "***"
_SHORTEST_KEY: Final = 8
"""A shorter "key" is a test's, and would be found inside ordinary words."""

_SECRETS: Final = re.compile(
    r"""(?ix)
    ( bearer\s+ | api_?key["']?\s*[=:]\s*["']? | rh-comfy-auth= | /proxy(?:-plus|-ultra)?/
    | (?:q-signature|x-amz-signature|x-amz-credential|x-amz-security-token|signature|token)= )
    [\w.~+%=-]{12,}""",
)
_USER: Final = re.compile(r"(?<=://)[^/?#\s]*@")
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
"""All but tabs and line breaks: a terminal obeys some of them."""


def mask(text: str, *, key: SecretStr | None = None) -> str:
    """Masks the key, a password in a URL, and what looks like one of RunningHub's secrets (api.md 10, item 19).

    Control characters become blanks.
    """
    clean = _CONTROL.sub(" ", mask_key(text.encode(), key=key).decode())
    return _USER.sub(f"{MASK}@", _SECRETS.sub(rf"\1{MASK}", clean))


def mask_key(body: bytes, *, key: SecretStr | None) -> bytes:
    """Masks the key in an answer before it is read, so that no value made from it can hold the key."""
    secret = "" if key is None else key.get_secret_value()
    return body if len(secret) < _SHORTEST_KEY else body.replace(secret.encode(), MASK.encode())


def bare(url: str) -> str:
    """A link without its query, where signatures are; a `data:` URL without its content."""
    return url.split("," if url.startswith("data:") else "?", 1)[0]
