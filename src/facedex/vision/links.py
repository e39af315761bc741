"""Photos from web addresses, fetched so that a stranger's link reaches no machine of ours.

A link is judged before anything is sent: http or https only, no user name or password, and a host whose every address
is public. The connection then goes to the very address that was judged, so a name that changes its mind between the
look-up and the connection gains nothing. Each redirect is judged like a first link. Proxies of the environment are not
used: a proxy would look names up by itself.
"""

from __future__ import annotations

import functools
import http.client
import io
import ipaddress
import re
import socket
import ssl
import time
import urllib.parse
from dataclasses import dataclass
from typing import Any, NamedTuple

from facedex.errors import FacedexError, PhotoLinkRefused, PhotoTooLarge, PhotoUnavailable

__all__ = ["Fetcher", "has_scheme", "is_public", "masked"]

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_CHUNK = 1 << 16
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_SAFE_IN_PATH = "/%:=&?~+!$,;'@()*[]"
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_USERINFO = re.compile(r"(?<=//)[^/?#]*@")


@dataclass(frozen=True, slots=True)
class Fetcher:
    """How links are fetched.

    timeout            seconds that one step (connecting, the TLS handshake, each wait for data) may take.
    deadline           seconds for the whole fetch, redirects included; looking a name up is the system's own time.
    redirects          how many are followed.
    private_addresses  also allow loopback, private and other addresses that are not public. For tests, and for
                       networks in which everybody who may send a link may also reach every host.
    tls                trust for https; the system's certificates by default.
    """

    timeout: float = 10.0
    deadline: float = 30.0
    redirects: int = 5
    private_addresses: bool = False
    tls: ssl.SSLContext | None = None

    def fetch(self, url: str, max_bytes: int) -> bytes:
        """The bytes behind a link; at most ``max_bytes`` are ever held.

        Raises  PhotoLinkRefused  not a link we follow, or one that leads to an address that is not public.
                PhotoUnavailable  no such host, no answer in time, a status other than 200, an answer that broke off.
                PhotoTooLarge     more than ``max_bytes``; the rest is not read.
        """
        ends = time.monotonic() + self.deadline
        shown = masked(url)
        for _ in range(self.redirects + 1):
            place = self._judged(url)
            try:
                answer = self._get(place, ends, max_bytes)
            except FacedexError:
                raise
            except TimeoutError as error:
                raise PhotoUnavailable(
                    f"{masked(url)} did not answer in time ({self.timeout:g} s a step, {self.deadline:g} s in all).",
                    link=shown,
                ) from error
            except (OSError, http.client.HTTPException, ValueError) as error:
                raise PhotoUnavailable(
                    f"{masked(url)} could not be fetched: {type(error).__name__}: {error}.", link=shown
                ) from error
            if isinstance(answer, bytes):
                return answer
            url = urllib.parse.urljoin(place.url, answer.target)
            if place.secure and url.lower().startswith("http:"):
                raise PhotoLinkRefused(
                    f"{shown} redirects from https to {masked(url)}, which anybody on the way could change.",
                    link=shown,
                )
        raise PhotoUnavailable(f"{shown} redirects more than {self.redirects} times.", link=shown)

    def _judged(self, url: str) -> _Place:
        """Take a link apart and decide whether, and at which addresses, it may be reached."""
        shown = masked(url)

        def refused(reason: str) -> PhotoLinkRefused:
            return PhotoLinkRefused(f"{shown} is refused: {reason}.", link=shown, reason=reason)

        try:
            parts = urllib.parse.urlsplit(url)
            port = parts.port
            host = (parts.hostname or "").encode("idna" if not _is_address(parts.hostname) else "ascii").decode()
        except (ValueError, UnicodeError):
            raise refused("it is not a well-formed link") from None
        if parts.scheme not in ("http", "https"):
            raise refused("only http and https links are followed")
        if parts.username is not None or parts.password is not None:
            raise refused("it holds a user name or password")
        if not host:
            raise refused("it names no host")
        secure = parts.scheme == "https"
        port = (443 if secure else 80) if port is None else port
        try:
            addresses = _addresses(host, port)
        except (OSError, UnicodeError) as error:
            raise PhotoUnavailable(f"{shown} could not be fetched: no host {host!r} is known.", link=shown) from error
        if not self.private_addresses:
            # One private address among public ones is enough: a name is either safe to reach or not.
            for address in addresses:
                if not is_public(address.ip):
                    raise refused(f"its host {host!r} is at {address.ip}, which is not a public address")
        target = urllib.parse.quote(parts.path or "/", safe=_SAFE_IN_PATH)
        if parts.query:
            target += "?" + urllib.parse.quote(parts.query, safe=_SAFE_IN_PATH)
        named = f"[{host}]" if ":" in host else host
        return _Place(
            url=url,
            host=host,
            authority=named if port == (443 if secure else 80) else f"{named}:{port}",
            target=target,
            secure=secure,
            addresses=addresses,
        )

    def _get(self, place: _Place, ends: float, max_bytes: int) -> bytes | _Redirect:
        """One request to one place: the photo's bytes, or where it has gone."""
        plain = self._connected(place.addresses, ends)
        try:
            sock: socket.socket = plain
            if place.secure:
                plain.settimeout(_patience(self.timeout, ends))
                sock = (self.tls or _system_trust()).wrap_socket(plain, server_hostname=place.host)
            with sock:
                return self._ask(sock, place, ends, max_bytes)
        finally:
            plain.close()

    def _connected(self, addresses: tuple[_Address, ...], ends: float) -> socket.socket:
        failure: OSError | None = None
        for address in addresses:
            sock = socket.socket(address.family, socket.SOCK_STREAM)
            try:
                sock.settimeout(_patience(self.timeout, ends))
                sock.connect(address.endpoint)
            except OSError as error:
                sock.close()
                failure = error
            else:
                return sock
        raise failure or OSError("the host has no address")

    def _ask(self, sock: socket.socket, place: _Place, ends: float, max_bytes: int) -> bytes | _Redirect:
        connection = http.client.HTTPConnection(place.host)
        connection.sock = _TimedSocket(sock, self.timeout, ends)
        connection.putrequest("GET", place.target, skip_host=True, skip_accept_encoding=True)
        connection.putheader("Host", place.authority)
        connection.putheader("Accept", "image/*")
        connection.putheader("Accept-Encoding", "identity")
        connection.putheader("User-Agent", "facedex")
        connection.putheader("Connection", "close")
        connection.endheaders()
        response = connection.getresponse()
        shown = masked(place.url)
        target = response.headers.get("Location")
        if response.status in _REDIRECTS and target:
            return _Redirect(target)
        if response.status != 200:
            raise PhotoUnavailable(
                f"{shown} answered {response.status} {response.reason}.", link=shown, status=response.status
            )
        announced = response.length
        if announced is not None and announced > max_bytes:
            raise _too_large(shown, f"announces {announced:,} bytes", max_bytes)
        data = bytearray()
        while chunk := response.read(min(_CHUNK, max_bytes + 1 - len(data))):
            data += chunk
            if len(data) > max_bytes:
                raise _too_large(shown, f"holds more than {max_bytes:,} bytes", max_bytes)
        if announced is not None and len(data) < announced:
            raise PhotoUnavailable(f"{shown} broke off after {len(data):,} of {announced:,} bytes.", link=shown)
        return bytes(data)


def is_public(address: str) -> bool:
    """Whether an IP address is one of the public internet.

    Private, loopback, link-local, shared, multicast, reserved and unspecified addresses are not, and neither is an IPv6
    address that stands for such an IPv4 address (mapped, 6to4, NAT64), or any Teredo address.
    """
    ip = ipaddress.ip_address(address)
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped is not None:
            return is_public(str(ip.ipv4_mapped))
        if ip in _NAT64:
            return is_public(str(ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)))
        if ip.is_site_local or (ip.sixtofour is not None and not is_public(str(ip.sixtofour))):
            return False
    barred = ip.is_private, ip.is_loopback, ip.is_link_local, ip.is_multicast, ip.is_reserved, ip.is_unspecified
    return ip.is_global and not any(barred)


def masked(url: str) -> str:
    """A link fit for messages and logs: user name and password hidden, control characters escaped, not endless."""
    shown = _USERINFO.sub("***@", url)
    shown = "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in shown)
    return shown if len(shown) <= 200 else shown[:199] + "…"


def has_scheme(text: str) -> bool:
    """Whether a text is meant as a link of any kind (``https://…``, ``s3://…``), not as a path."""
    return _SCHEME.match(text) is not None


class _Address(NamedTuple):
    family: int
    ip: str
    endpoint: Any  # what socket.connect takes


class _Redirect(NamedTuple):
    target: str


@dataclass(frozen=True, slots=True)
class _Place:
    """A link that was judged: whom to ask for what, and at which addresses."""

    url: str
    host: str
    authority: str
    target: str
    secure: bool
    addresses: tuple[_Address, ...]


class _TimedSocket:
    """The little of a socket that http.client uses, with a time limit on every wait.

    A server that sends a byte now and then keeps within any limit on one wait; the deadline ends that.
    """

    def __init__(self, sock: socket.socket, timeout: float, ends: float) -> None:
        self._sock, self._timeout, self._ends = sock, timeout, ends

    def sendall(self, data: bytes) -> None:
        self._sock.settimeout(_patience(self._timeout, self._ends))
        self._sock.sendall(data)

    def makefile(self, _mode: str) -> io.BufferedReader:
        return io.BufferedReader(_TimedReader(self._sock, self._timeout, self._ends))

    def close(self) -> None:
        """Nothing: http.client closes before the body is read; the fetcher closes the real socket."""


class _TimedReader(io.RawIOBase):
    def __init__(self, sock: socket.socket, timeout: float, ends: float) -> None:
        self._sock, self._timeout, self._ends = sock, timeout, ends

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._sock.settimeout(_patience(self._timeout, self._ends))
        return self._sock.recv_into(buffer)


def _patience(timeout: float, ends: float) -> float:
    left = ends - time.monotonic()
    if left <= 0:
        raise TimeoutError("the deadline has passed")
    return min(timeout, left)


def _addresses(host: str, port: int) -> tuple[_Address, ...]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return tuple(_Address(family, str(endpoint[0]), endpoint) for family, _, _, _, endpoint in found)


def _is_address(host: str | None) -> bool:
    try:
        ipaddress.ip_address(host or "")
    except ValueError:
        return False
    return True


@functools.cache
def _system_trust() -> ssl.SSLContext:
    return ssl.create_default_context()


def _too_large(shown: str, what: str, max_bytes: int) -> PhotoTooLarge:
    return PhotoTooLarge(
        f"{shown} {what}; the limit is {max_bytes:,}. Raise Limits(max_bytes=…) if you trust it.",
        photo=shown,
        max_bytes=max_bytes,
    )
