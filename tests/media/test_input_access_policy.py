"""Which inputs may be read: on the command line, in deployments, and where a link leads."""

from __future__ import annotations

import http.server
import socket
import ssl
import zipfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import copy_context
from pathlib import Path
from typing import ClassVar

import httpx
import pytest
import trustme

from rh_prefect.errors import MediaError, RunningHubError
from rh_prefect.media import input_access_policy
from rh_prefect.media.input_access_policy import CheckedTransport, InputAccess, current_access, is_public
from rh_prefect.media.input_files import fetch, file_state, open_input
from rh_prefect.pipelines.file_model import Param
from rh_prefect.pipelines.input_reader import identify, input_roots, list_files
from rh_prefect.table_files import read_table
from tests.support.servers.http_server import Handler, serving

OPEN = InputAccess()
TIMEOUT = httpx.Timeout(10)

PRIVATE = [
    *("127.0.0.1", "127.9.9.9", "0.0.0.0", "::1", "::", "::ffff:127.0.0.1", "::7f00:1"),  # this machine
    *("64:ff9b::7f00:1", "2002:7f00:1::"),  # this machine, by NAT64 and 6to4
    *("10.0.0.1", "172.16.0.1", "192.168.1.1", "fe80::1%eth0"),  # its networks
    *("169.254.169.254", "100.100.100.200", "fd00:ec2::254", "::ffff:169.254.169.254"),  # metadata of clouds
    *("224.0.0.1", "255.255.255.255", "ff02::1"),  # several machines
]


PUBLIC = ["1.1.1.1", "8.8.8.8", "2606:4700::1111", "::ffff:1.1.1.1"]


@pytest.mark.parametrize("address", PRIVATE + PUBLIC)
def test_what_is_an_address_of_the_internet(address: str) -> None:
    """Private, loopback, link-local, shared, multicast and metadata addresses are none, in IPv6 forms, too."""
    assert is_public(address) is (address in PUBLIC)


class BothFamilies(http.server.ThreadingHTTPServer):
    """A server at all addresses of this machine, of IPv4 and, where it has one, IPv6."""

    address_family = socket.AF_INET6 if socket.has_dualstack_ipv6() else socket.AF_INET

    def server_bind(self) -> None:
        if self.address_family == socket.AF_INET6:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        super().server_bind()


@contextmanager
def web(handler: type[http.server.BaseHTTPRequestHandler], context: ssl.SSLContext | None = None) -> Iterator[int]:
    if context is None:
        server: http.server.HTTPServer = BothFamilies(("", 0), handler)
    else:
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    with serving(handler, server):
        yield int(server.server_address[1])


class Files(Handler):
    asked: list[str]
    hosts: ClassVar[list[str | None]] = []

    def get(self) -> None:
        type(self).asked.append(self.path)
        type(self).hosts.append(self.headers["Host"])
        target = self.path.partition("to=")[2]
        self.answer(302, Location=target) if target else self.answer(200, b"secret")


@pytest.fixture
def files() -> Iterator[int]:
    Files.asked = []
    with web(Files) as port:
        yield port


def test_private_links_are_read_where_the_setting_allows_them(files: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """RH_ALLOW_PRIVATE_LINKS says so; it allows what a library opens by itself, too."""
    monkeypatch.setenv("RH_ALLOW_PRIVATE_LINKS", "0")
    with pytest.raises(MediaError, match="RH_ALLOW_PRIVATE_LINKS"), open_input(f"http://127.0.0.1:{files}/x"):
        pass
    monkeypatch.setenv("RH_ALLOW_PRIVATE_LINKS", "1")
    for link in (f"http://127.0.0.1:{files}/x", f"simplecache::http://127.0.0.1:{files}/a.csv"):
        with open_input(link) as reader:
            assert reader.read() == b"secret"


HOSTS = [
    *("127.0.0.1", "127.1", "2130706433", "0x7f000001", "0177.0.0.1", "0.0.0.0", "0", "localhost", "LOCALHOST."),
    *("127.0.0.1.", "user:word@127.0.0.1", "files.example@127.0.0.1"),
    *("[::1]", "[::]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[0:0:0:0:0:0:0:1]", "[::127.0.0.1]"),
]
"""Ways to write the address of this machine."""

LINKS = [
    *("http://{}/a.csv", "HTTP://{}/a.csv", "http://{}/a.csv?x=::y", "webhdfs://{}/a.csv"),
    *("simplecache::http://{}/a.csv", "filecache::http://{}/a.csv", "blockcache::http://{}/a.csv"),
    *("cached::http://{}/a.csv", "asyncwrapper::http://{}/a.csv", "SimpleCache::http://{}/a.csv"),
    *("simplecache::HTTP://{}/a.csv", "simplecache::filecache::http://{}/a.csv"),
    *("zip://a.csv::http://{}/a.csv", "zip::http://{}/a.csv", "tar://a.csv::http://{}/a.csv"),
    *("zip://a.csv::simplecache::http://{}/a.csv", "dir::http://{}/a.csv", "dir://a.csv::http://{}/a.csv"),
    *("reference::http://{}/a.csv", "reference://a.csv::http://{}/a.csv"),
    *("generic://http://{}/a.csv", "generic::http://{}/a.csv"),
]
"""Ways to have it asked for a file."""


def by_opening(place: str) -> None:
    with open_input(place):
        pass


DOORS: dict[str, Callable[[str], object]] = {
    "state": file_state,
    "opening": by_opening,
    "table": lambda place: list(read_table(place, "csv")),
    "folder": lambda place: list_files(place.removesuffix("a.csv"), "image", {}),
    "files parameter": lambda place: list_files(place.replace("a.csv", "*.png"), "image", {}),
    "file parameter": lambda place: identify(place, {}),
}


@pytest.mark.parametrize("is_restricted", ["0", "1"])
@pytest.mark.parametrize("door", DOORS)
def test_no_spelling_of_a_private_address_is_asked_through_any_door(
    files: int, door: str, is_restricted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RH_ALLOW_PRIVATE_LINKS")
    monkeypatch.setenv("RH_RESTRICT_INPUTS", is_restricted)
    places = [link.format(f"{host}:{files}") for link in LINKS for host in HOSTS[:1]]
    places += [f"{link}://{host}:{files}/a.csv" for link in ("http", "simplecache::http") for host in HOSTS]
    for place in places:
        with pytest.raises(RunningHubError):
            DOORS[door](place)
        assert Files.asked == [], place


def test_chains_without_links_are_read_without_the_setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RH_ALLOW_PRIVATE_LINKS")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a.txt", "content")
    with open_input(f"zip://a.txt::file://{tmp_path}/a.zip") as reader:
        assert reader.read() == b"content"


def test_the_link_of_a_table_allows_no_other_link(files: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A form may name any table, so that its host is no root below which private links are read."""
    monkeypatch.delenv("RH_ALLOW_PRIVATE_LINKS")

    def read() -> None:
        link = f"http://127.0.0.1:{files}/a.csv"
        input_access_policy.allow_below(*input_roots({"rows": Param(type="table")}, {"rows": link}))
        list(read_table(link, "csv"))

    with pytest.raises(MediaError, match="not a public address"):
        copy_context().run(read)
    assert Files.asked == []


class Names:
    """A name server of a test, whose answers change as they do in a rebinding."""

    def __init__(self, *answers: list[str]) -> None:
        self.answers, self.asked = answers, 0

    def __call__(self, host: str, port: int) -> Iterable[str]:
        self.asked += 1
        return self.answers[min(self.asked, len(self.answers)) - 1]


def read(transport: CheckedTransport, url: str) -> bytes:
    with httpx.Client(transport=transport, follow_redirects=True, timeout=TIMEOUT, trust_env=False) as client:
        return client.get(url).content


def test_a_name_that_leads_to_this_machine_is_not_read(files: int) -> None:
    for answer in (["127.0.0.1"], ["1.1.1.1", "127.0.0.1"]):
        with pytest.raises(MediaError, match=r"files\.example is not allowed: 127\.0\.0\.1"):
            read(CheckedTransport(OPEN, resolve=Names(answer)), f"http://files.example:{files}/x")
    assert Files.asked == []


def test_the_address_that_is_checked_is_the_one_that_is_connected_to() -> None:
    names = Names(["192.0.2.1"], ["127.0.0.1"])
    with pytest.raises((MediaError, httpx.ConnectError)):
        read(CheckedTransport(OPEN, resolve=names), "http://files.example:9/x")
    assert names.asked == 1


class Anywhere(InputAccess):
    def check_address(self, address: str, *, host: str) -> None:
        """Allows this machine, as no test can ask the internet."""


def test_a_checked_link_is_asked_under_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The certificate is that of the name, though the connection is made to an address, the first one that answers."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("files.example").configure_cert(context)
    Files.asked, Files.hosts = [], []
    with web(Files, context) as port:
        transport = CheckedTransport(Anywhere(), resolve=Names(["127.0.0.2", "127.0.0.1"]))
        assert read(transport, f"https://files.example:{port}/to/x?to=/y") == b"secret"
        with pytest.raises(httpx.ConnectError, match=r"files\.other"):
            read(transport, f"https://files.other:{port}/z")
    assert Files.asked == ["/to/x?to=/y", "/y"]
    assert set(Files.hosts) == {f"files.example:{port}"}


def test_a_redirect_to_a_private_address_is_not_followed(files: int) -> None:
    here = f"http://127.0.0.1:{files}"
    transport = CheckedTransport(InputAccess(roots=(f"{here}/open",)))
    with httpx.Client(transport=transport, follow_redirects=True, timeout=TIMEOUT) as client:
        assert client.get(f"{here}/open/a").content == b"secret"
        for target in (f"{here}/closed", "http://169.254.169.254/latest", f"http://localhost:{files}/"):
            with pytest.raises(MediaError, match="not a public address"):
                client.get(f"{here}/open/a?to={target}")
    assert not [path for path in Files.asked if not path.startswith("/open/")]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    below = tmp_path / "table"
    below.mkdir()
    (below / "a.png").write_bytes(b"mine")
    (tmp_path / "secret.txt").write_bytes(b"secret")
    (below / "link.png").symlink_to(tmp_path / "secret.txt")
    return below


def test_a_deployment_reads_files_below_its_roots_only(folder: Path) -> None:
    deployed = InputAccess(roots=(str(folder), "s3://bucket/inputs"), is_restricted=True)
    for allowed in (
        *(f"{folder}/a.png", f"file://{folder}/a.png", "https://files.example/a.png"),
        *("s3://bucket/inputs/x/a.png", "s3a://bucket/inputs/b"),
    ):
        deployed.check(allowed)
    for anywhere in ("/etc/passwd", "file:///etc/passwd", "s3://bucket/a.png", "http://files.example/a.png"):
        OPEN.check(anywhere)  # as on the command line
    for refused in (
        *("/etc/passwd", "file:///etc/passwd", "simplecache::file:///etc/passwd", "memory://a.png"),
        *(f"{folder}/../secret.txt", f"{folder}/link.png", f"{folder}2/a.png"),
        *("s3://bucket/inputs2/a.png", "s3://bucket/inputs/../other/a.png", "s3://other/a.png"),
        *("s3://bucket/inputs/%2e%2e/other/a.png", "ftp://10.0.0.1/a.png", "http://files.example/a.png"),
        *("https://127.0.0.1/a.png", "https://169.254.169.254/latest/meta-data", "https://files.example:port/a.png"),
    ):
        with pytest.raises(MediaError, match=r"is not allowed|not a valid link"):
            deployed.check(refused)


def test_a_message_tells_no_secret_of_what_it_refuses() -> None:
    for source in ("ftp://u:pa55w0rd@10.0.0.1/a", "http://h.example/a?token=pa55w0rd"):
        with pytest.raises(MediaError) as caught:
            InputAccess(is_restricted=True).check(source)
        assert "pa55" not in str(caught.value)


def test_the_setting_restricts_inputs_everywhere(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RH_RESTRICT_INPUTS", "1")
    monkeypatch.setenv("RH_STORAGE_URL", str(tmp_path / "out"))
    with pytest.raises(MediaError, match="RH_INPUT_ROOTS"):
        fetch(str(folder / "a.png"), tmp_path / "copy")
    monkeypatch.setenv("RH_INPUT_ROOTS", f"{folder}, s3://bucket")
    assert fetch(str(folder / "a.png"), tmp_path / "copy").size == 4
    with pytest.raises(MediaError, match="is not allowed here"):
        fetch(str(tmp_path / "secret.txt"), tmp_path / "copy")


def test_a_table_allows_what_lies_beside_it_for_its_own_run_alone() -> None:
    def run() -> tuple[str, ...]:
        input_access_policy.allow_below("/table")
        input_access_policy.allow_below("/table")
        return current_access().roots

    assert copy_context().run(run).count("/table") == 1
    assert "/table" not in current_access().roots


@pytest.mark.parametrize(
    ("kind", "place", "beside"),
    [
        ("table", "memory://joe:pw@host/data/rows.csv?v=a/b", "memory://host/data/a.png"),
        ("files", "memory://joe:pw@host/data/*.png", "memory://joe:pw@host/data/a.png"),
    ],
)
def test_a_table_and_a_pattern_with_a_user_are_read_themselves(kind: str, place: str, beside: str) -> None:
    allowed = InputAccess(tuple(input_roots({"rows": Param(type=kind)}, {"rows": place})), is_restricted=True)
    for one in (place, beside):
        allowed.check(one)
    with pytest.raises(MediaError, match="is not allowed here"):
        allowed.check("memory://host/other/a.png")
