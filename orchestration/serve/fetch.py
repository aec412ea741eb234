"""Fetching what a client names by http(s), without becoming its way into the operator's network.

A name is resolved once; every address that it has must be a public one, and the connection goes to one of the addresses
that were looked at, so that a name server that answers otherwise the next time changes nothing. A redirect is another
URL: it is looked at as the first one was. Bytes and time are bounded; proxies and credentials of this machine are not
used, and the body is taken as it comes, so that nothing is unpacked.
Source: OWASP, Server-Side Request Forgery Prevention; RFC 6890 and its registries, as Python's `ipaddress` has them.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import cache

import httpx

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Resolver = Callable[[str, int], Awaitable[Sequence[str]]]
"""All addresses of a host, as texts, for a port."""

REDIRECTS = 3
_PORTS = {"http": 80, "https": 443}
_EMBEDDED = tuple(map(ipaddress.IPv6Network, ("64:ff9b::/96", "::/96")))
"""IPv6 addresses that end in one of IPv4, which a gateway may connect to (RFC 6052)."""
_LOCAL = tuple(map(ipaddress.IPv6Network, ("64:ff9b:1::/48", "fec0::/10")))
"""IPv6 addresses that mean something in one network alone: of its gateways to IPv4, where the prefix decides which bits
hold the address (RFC 8215), and of a site (RFC 3879). Not every Python's registries have them."""


class FetchRefused(ValueError):
    """A URL that is not fetched, or did not give what was asked for. The message is for the client."""


class TooLarge(FetchRefused):
    """More bytes than were asked for at most."""


async def resolve(host: str, port: int) -> list[str]:
    """By this machine's resolver."""
    answers = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in answers))


@dataclass(frozen=True)
class Fetcher:
    """`hosts` that may be named, each at the usual ports or, as `host:port`, at that one; "*": every one at the usual
    ports. `resolver` and `transport`: others than the network's, for tests."""

    hosts: tuple[str, ...]
    resolver: Resolver = resolve
    transport: httpx.AsyncBaseTransport | None = field(default=None, compare=False)

    async def get(self, url: str, most: int) -> bytes:
        """What a URL gives, so many bytes at most. Raises FetchRefused, TooLarge. The caller bounds the time."""
        target = _parsed(url)
        for _ in range(REDIRECTS + 1):
            answer = await self._once(target, most)
            if isinstance(answer, bytes):
                return answer
            target = answer
        raise FetchRefused(f"more than {REDIRECTS} redirects")

    async def _once(self, url: httpx.URL, most: int) -> bytes | httpx.URL:
        """The body, or where it is said to be."""
        port = url.port or _PORTS[url.scheme]
        names = {"*", url.host} if port in _PORTS.values() else set()
        if not (names | {f"{url.host}:{port}"}) & set(self.hosts):
            raise FetchRefused(f"{url.host}:{port}: this server fetches images from {', '.join(self.hosts)}")
        addresses = await self._addresses(url.host, port)
        for address in addresses:
            try:
                return await self._from(url, address, most)
            except httpx.ConnectError:
                continue  # as a browser does: of two addresses one may be of a network that this machine has not
            except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
                # Not the error's text: it may tell of the machine and its network.
                raise FetchRefused(f"{url.host} gave no image ({type(error).__name__})") from error
        raise FetchRefused(f"{url.host} cannot be connected to")

    async def _from(self, url: httpx.URL, address: Address, most: int) -> bytes | httpx.URL:
        # The URL that is connected to has the address that was looked at; the name goes along for the certificate and
        # the header, and is resolved by nobody.
        pinned = url.copy_with(host=str(address))
        headers = {"Host": url.netloc.decode("ascii"), "Accept": "image/*", "Accept-Encoding": "identity"}
        extensions = {"sni_hostname": url.raw_host.decode("ascii")}
        async with (
            httpx.AsyncClient(transport=self.transport, verify=_tls(), trust_env=False, timeout=None) as client,
            client.stream("GET", pinned, headers=headers, extensions=extensions) as response,
        ):
            if response.has_redirect_location:
                return _parsed(str(url.join(response.headers["location"])))
            if response.status_code != 200:
                raise FetchRefused(f"{url.host} answered {response.status_code}")
            return await _body(response, most)

    async def _addresses(self, host: str, port: int) -> list[Address]:
        """Where to connect to. Raises FetchRefused where any address of the host is not public."""
        try:
            addresses = [ipaddress.ip_address(text) for text in await self.resolver(host, port)]
        except (OSError, ValueError) as error:  # no such name, or one that no name server is asked for
            raise FetchRefused(f"host {host!r} is not known") from error
        if not addresses or not all(map(is_public, addresses)):
            raise FetchRefused(f"host {host!r} is not at public addresses alone: nothing is fetched from it")
        return addresses


@cache
def _tls() -> ssl.SSLContext:
    return ssl.create_default_context()


def is_public(address: Address) -> bool:
    """Whether an address is one of the Internet's: not of this machine, its network, a group, or a special use; of one
    that holds an address of IPv4, whether that is."""
    if isinstance(address, ipaddress.IPv6Address):
        if any(address in network for network in _LOCAL):
            return False
        inner = address.ipv4_mapped or address.sixtofour
        if inner is None and any(address in network for network in _EMBEDDED):
            inner = ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
        if inner is not None:
            return is_public(inner)
        if address.scope_id is not None or address.teredo is not None:
            return False
    return address.is_global and not address.is_multicast and not address.is_reserved


def _parsed(url: str) -> httpx.URL:
    """Raises FetchRefused for what is no URL of http or https, and one with a user."""
    try:
        parsed = httpx.URL(url)
    except (httpx.InvalidURL, UnicodeError, ValueError) as error:
        raise FetchRefused(f"no URL: {error}"[:200]) from error
    if parsed.scheme not in _PORTS or not parsed.host:
        raise FetchRefused(f"{url[:40]!r}: allowed are data:, https: and http: with a host")
    if parsed.userinfo:
        raise FetchRefused("a URL with a user or password: send one without")
    return parsed


async def _body(response: httpx.Response, most: int) -> bytes:
    """Raises TooLarge for more than so many bytes, by what is announced or by what comes."""
    announced = response.headers.get("content-length", "")
    data = bytearray()
    if not (announced.isdigit() and int(announced) > most):
        async for part in response.aiter_raw():
            data += part
            if len(data) > most:
                break
        else:
            return bytes(data)
    raise TooLarge(f"larger than {most:,} bytes")
