"""Addresses: one spelling for each, so that no page is fetched under two names."""

from __future__ import annotations

from urllib.parse import quote, unquote, urljoin, urlsplit, urlunsplit

DEFAULT_PORTS = {"http": 80, "https": 443}
LONGEST = 2000  # characters; longer ones are traps or mistakes


def normal(address: str, base: str = "") -> str | None:
    """The one spelling of `address`, read relative to `base`; None if it is no page on the web."""
    try:
        parts = urlsplit(urljoin(base, address.strip()))
        port = parts.port
    except ValueError:
        return None
    scheme, host = parts.scheme.lower(), parts.hostname
    if scheme not in DEFAULT_PORTS or not host:
        return None
    place = f"[{host}]" if ":" in host else host
    if port is not None and port != DEFAULT_PORTS[scheme]:
        place += f":{port}"
    path = quote(unquote(parts.path), safe="/:@!$&'()*+,;=~") or "/"
    found = urlunsplit((scheme, place, path, parts.query, ""))
    return found if len(found) <= LONGEST else None


def host_of(address: str) -> str:
    """Scheme, host and port: what has one robots.txt and one rate."""
    parts = urlsplit(address)
    return f"{parts.scheme}://{parts.netloc}"
