"""Presigned links: their name without the signature, by the exact parameter names of each service."""

from __future__ import annotations

from urllib.parse import unquote


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_SCHEMES: tuple[tuple[frozenset[str], frozenset[str]], ...] = (
    # AWS, signature version 4
    (
        _words("X-Amz-Signature X-Amz-Credential"),
        _words("X-Amz-Algorithm X-Amz-Date X-Amz-Expires X-Amz-SignedHeaders X-Amz-Security-Token"),
    ),
    # AWS, signature version 2
    (_words("Signature AWSAccessKeyId Expires"), _words("x-amz-security-token")),
    # Google, version 4
    (
        _words("X-Goog-Signature X-Goog-Credential"),
        _words("X-Goog-Algorithm X-Goog-Date X-Goog-Expires X-Goog-SignedHeaders"),
    ),
    # Google, version 2
    (_words("Signature GoogleAccessId Expires"), frozenset()),
    # Azure, shared access signature
    (
        _words("sig sv"),
        _words("ss srt sr sp se st spr sip si sdd ses skoid sktid skt ske sks skv saoid suoid scid"),
    ),
    # Aliyun OSS, version 1
    (_words("Signature OSSAccessKeyId Expires"), _words("security-token")),
    # Aliyun OSS, version 4
    (
        _words("x-oss-signature x-oss-credential"),
        _words("x-oss-signature-version x-oss-date x-oss-expires x-oss-security-token x-oss-additional-headers"),
    ),
    # Tencent COS
    (
        _words("q-signature q-ak"),
        _words("q-sign-algorithm q-sign-time q-key-time q-header-list q-url-param-list x-cos-security-token"),
    ),
    # CloudFront
    (_words("Signature Key-Pair-Id"), _words("Expires Policy Hash-Algorithm")),
)
"""For each way of signing: the parameters that it cannot do without, and the others that belong to it."""


def unsigned(link: str) -> str | None:
    """The link without its signature; None where it is not a presigned link.

    Every other parameter stays: `token=`, `x-oss-process=` or `versionId=` may say which file is meant.

    Args:
        link: The link, as the caller gave it.
    """
    head, mark, query = link.partition("?")
    query, hash_mark, fragment = query.partition("#")
    if not mark or not query:
        return None
    pairs = [(pair, unquote(pair.partition("=")[0])) for pair in query.split("&")]
    names = {name for _, name in pairs}
    drop: set[str] = set().union(*(needed | others for needed, others in _SCHEMES if needed <= names))
    if not drop:
        return None
    kept = [pair for pair, name in pairs if name not in drop]
    return head + ("?" + "&".join(kept) if kept else "") + hash_mark + fragment
