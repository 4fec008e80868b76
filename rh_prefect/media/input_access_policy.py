"""Restricts the files and addresses that may be read as inputs, because rows and form fields can name any address.

There are two rules. First, links are read from public addresses only, unless private addresses are allowed. Each
connection is checked, redirects included, with the address that it uses. Second, if inputs are restricted, as in
deployments, a file is read only below one of the roots.
"""

from __future__ import annotations

import ipaddress
import os
import socket
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import unquote

import httpx

from rh_prefect.errors import MediaError
from rh_prefect.media.storage_urls import (
    is_local,
    is_web_link,
    local_path,
    protocol_of,
    protocols_of,
    shown_url,
    split_url,
)
from rh_prefect.redaction import actual_request, hide_redirect
from rh_prefect.settings import get_settings, proxy_for

_EMBEDDED: Final = (ipaddress.ip_network("64:ff9b::/96"), ipaddress.ip_network("::/96"))
"""IPv6 networks in which the last four bytes are the IPv4 address of the connection."""

_UNCHECKED: Final = frozenset({"http", "https", "webhdfs", "reference"})
"""Protocols for which fsspec sends HTTP requests to hosts named in the URL, or in the file that the URL leads to."""

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True, slots=True)
class InputAccess:
    """The inputs that may be read.

    These are https links to public addresses, and files below the roots, which are folders and URL prefixes.
    `private_links` also allows other links.
    """

    roots: tuple[str, ...] = ()
    is_restricted: bool = False
    private_links: bool = False

    def check(self, source: str) -> None:
        """Raises `MediaError` if a source is not allowed; sends no request."""
        if self._is_below_root(source):
            return
        if is_web_link(source):
            self._check_link(source)
            return
        if self.is_restricted:
            raise MediaError(
                f"The file {_shown(source)} is not allowed here: inputs are restricted to files below the folder of "
                "the table, below the output location and below RH_INPUT_ROOTS, and to https links to public "
                "addresses. What to do: put the file into one of these folders, or add its folder to RH_INPUT_ROOTS on "
                "the worker."
            )
        self._check_unchecked(source)

    def check_listing(self, place: str) -> None:
        """Raises `MediaError` for a folder or pattern on a web host, because a listing follows links to any address."""
        if not self._is_below_root(place):
            self._check_unchecked(place)

    def _check_unchecked(self, source: str) -> None:
        if not self.private_links and not _UNCHECKED.isdisjoint(protocols_of(source)):
            raise MediaError(
                f"{_shown(source)} is not allowed: the library that opens it would follow links to any address, "
                "private ones included. Nothing was requested. What to do: pass the https link of the file itself, or "
                "download it and pass its path; or, for your own network, set RH_ALLOW_PRIVATE_LINKS=1."
            )

    def check_address(self, address: str, *, host: str) -> None:
        """Raises `MediaError` if a link leads to an address that is not public, unless such addresses are allowed."""
        if not self.private_links and not is_public(address):
            raise MediaError(
                f"A link to {host} is not allowed: {address} is not a public address. What to do: pass "
                "the file itself; or, for links to your own network, set RH_ALLOW_PRIVATE_LINKS=1 or add "
                "a prefix of the link to RH_INPUT_ROOTS."
            )

    def reads_any_address(self, url: str) -> bool:
        """Returns whether a link may lead to any address, even a private address."""
        return self.private_links or self._is_below_root(url)

    def _check_link(self, url: str) -> None:
        parts = split_url(url, to_request=True)
        if self.is_restricted and parts.scheme != "https" and not self.private_links:
            raise MediaError(
                f"The link {_shown(url)} is not allowed here: links are restricted to https links. "
                "What to do: give an https link, or add its prefix to RH_INPUT_ROOTS on the worker."
            )
        host = parts.hostname or ""
        with suppress(ValueError):
            self.check_address(str(ipaddress.ip_address(host)), host=host)

    def _is_below_root(self, source: str) -> bool:
        return any(_is_below(source, root) for root in self.roots)


def is_public(address: str) -> bool:
    """Returns whether an IP address is public: not private, loopback, link-local, shared or multicast."""
    found: Address = ipaddress.ip_address(address.partition("%")[0])
    return all(one.is_global and not one.is_multicast for one in (found, *_embedded(found)))


def _embedded(address: Address) -> Iterator[Address]:
    if not isinstance(address, ipaddress.IPv6Address):
        return
    found = (address.ipv4_mapped, address.sixtofour, *(address.teredo or ()))
    yield from (one for one in found if one is not None)
    if any(address in network for network in _EMBEDDED):
        yield ipaddress.IPv4Address(address.packed[-4:])


def _is_below(source: str, root: str) -> bool:
    if is_local(root):
        # Symbolic links are resolved, because one below the folder may lead out of it.
        folder = os.path.realpath(local_path(root))
        return is_local(source) and Path(os.path.realpath(local_path(source))).is_relative_to(folder)
    if is_local(source) or len(protocols_of(source)) > 1:
        return False
    if any(part in (".", "..") for part in unquote(source).split("/")):
        return False
    return _spelt(source).startswith(f"{_spelt(root).rstrip('/')}/")


def _spelt(uri: str) -> str:
    if is_web_link(uri):
        parts = split_url(uri, to_request=True)
        return f"{parts.scheme}://{parts.netloc.lower()}{parts.path}"
    return f"{protocol_of(uri)}://{uri.partition('://')[2]}"


def _shown(source: str) -> str:
    return shown_url(source).partition("?")[0]


# --- which rule holds ---

_is_deployed: list[Callable[[], bool]] = []
_roots: ContextVar[tuple[str, ...]] = ContextVar("rh_input_roots", default=())


def ask_whether_deployed(is_deployed: Callable[[], bool]) -> None:
    """Sets the function that reports whether the caller runs in a deployment; inputs are then restricted."""
    _is_deployed.append(is_deployed)


def is_deployed() -> bool:
    """Returns whether the caller runs in a deployment."""
    return any(is_deployed() for is_deployed in _is_deployed)


def allow_below(*roots: str) -> None:
    """Allows files below the given folders and URL prefixes, for the rest of the current context.

    Links stay restricted: a form may name any address, and each link is checked when it is opened.
    """
    _roots.set(tuple(dict.fromkeys((*_roots.get(), *(root for root in roots if not is_web_link(root))))))


@contextmanager
def allowed_below(*roots: str) -> Iterator[None]:
    """Allows files below the given folders and URL prefixes inside a `with` block; see `allow_below`."""
    before = _roots.get()
    allow_below(*roots)
    try:
        yield
    finally:
        _roots.set(before)


def current_access(*roots: str) -> InputAccess:
    """Returns which inputs the settings and the current run allow the caller to read; `roots` are additional roots."""
    settings = get_settings()
    return InputAccess(
        roots=(*roots, *_roots.get(), settings.storage_url, *settings.input_roots),
        is_restricted=settings.restrict_inputs or is_deployed(),
        private_links=settings.allow_private_links,
    )


# --- links ---


class CheckedTransport(httpx.BaseTransport):
    """A transport that sends requests, and follows redirects, only to allowed addresses."""

    def __init__(self, access: InputAccess, *, resolve: Callable[[str, int], Iterable[str]] | None = None) -> None:
        self._access = access
        self._resolve = resolve or _addresses
        # No connection is kept: the pool would reuse it for another host at this address, with the wrong certificate.
        self._checked = httpx.HTTPTransport(limits=httpx.Limits(max_keepalive_connections=0))
        self._by_proxy: dict[str | None, httpx.HTTPTransport] = {}

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Sends a request; raises `MediaError` if its address is not allowed."""
        actual = actual_request(request)
        response = self._send(actual)
        hide_redirect(request, response, to=actual.url)
        return response

    def _send(self, request: httpx.Request) -> httpx.Response:
        url = str(request.url)
        self._access.check(url)
        proxy = proxy_for(request.url.scheme, request.url.host)
        is_open = self._access.reads_any_address(url)
        if proxy is None and not is_open:
            return self._send_checked(request)
        if not is_open:
            with suppress(OSError):  # a name that only the proxy can resolve
                self._check_name(request.url.host)
        if proxy not in self._by_proxy:
            self._by_proxy[proxy] = httpx.HTTPTransport(proxy=proxy)
        return self._by_proxy[proxy].handle_request(request)

    def _send_checked(self, request: httpx.Request) -> httpx.Response:
        """Resolves a name, checks its addresses, and sends the request to a checked one, without a second lookup."""
        host = request.url.raw_host.decode("ascii")
        try:
            addresses = self._check_name(host, request.url.port or 0)
        except (OSError, UnicodeError) as failed:
            raise httpx.ConnectError(str(failed)) from failed
        error: httpx.TransportError = httpx.ConnectError(f"{host} has no address")
        for address in addresses:
            try:
                return self._checked.handle_request(_sent_to(address, request, host))
            except (httpx.ConnectError, httpx.ConnectTimeout) as failed:
                error = failed
        raise error

    def _check_name(self, host: str, port: int = 0) -> list[str]:
        addresses = list(self._resolve(host, port))
        for address in addresses:
            self._access.check_address(address, host=host)
        return addresses

    def close(self) -> None:
        """Closes the connections of the transport, both direct connections and connections through proxies."""
        for transport in (self._checked, *self._by_proxy.values()):
            transport.close()


def _sent_to(address: str, request: httpx.Request, host: str) -> httpx.Request:
    """Returns the request with an IP address as its target; the headers and the certificate check keep the host."""
    extensions = {**request.extensions, "sni_hostname": host}
    url, headers = request.url.copy_with(host=address), request.headers
    return httpx.Request(request.method, url, headers=headers, stream=request.stream, extensions=extensions)


def _addresses(host: str, port: int) -> list[str]:
    found = socket.getaddrinfo(host, port or None, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))
