"""The address of a server, checked before anything is asked of it: what no request could be sent to is a mistake in a
config, and not a server that is away."""

from __future__ import annotations

import httpx


def check_address(url: str) -> None:
    """Raises ValueError for what is no address of a server, or has a secret in it, which is not quoted."""
    if set(url) & set("@?#"):
        raise ValueError("url: a user, a password or a query stands in it; the key is given by key_env")
    if not url.startswith(("http://", "https://")):
        raise ValueError(f"url={url!r}: begins with http:// or https://")
    try:
        address = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise ValueError(f"url={url!r}: no address of a server: {error}") from None
    if address.port is not None and not 0 < address.port < 1 << 16:
        raise ValueError(f"url={url!r}: no address of a server: ports are 1 to 65535")
    if not address.host or any(character.isspace() for character in url):
        raise ValueError(f"url={url!r}: no address of a server: it has {'blanks' if address.host else 'no host'}")
