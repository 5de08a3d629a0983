"""Reading a page: its title, its visible text, the addresses that it links to."""

from __future__ import annotations

from typing import NamedTuple

from selectolax.lexbor import LexborHTMLParser

from crawler.addresses import normal

UNSEEN = ["script", "style", "template", "noscript"]


class Content(NamedTuple):
    """What is kept of a page. `links` are distinct normal addresses in the order of the page."""

    title: str
    text: str
    links: tuple[str, ...]


def read(markup: str, address: str) -> Content:
    """The content of the HTML page at `address`. Any text is a page to an HTML parser: no errors."""
    tree = LexborHTMLParser(markup)
    base = address
    first = tree.css_first("base[href]")
    if first is not None:
        base = normal(first.attributes["href"] or "", address) or address
    links: dict[str, None] = {}
    for anchor in tree.css("a[href]"):
        if "nofollow" in (anchor.attributes.get("rel") or ""):
            continue
        link = normal(anchor.attributes["href"] or "", base)
        if link is not None:
            links[link] = None
    title = tree.css_first("title")
    name = clean(title.text()) if title is not None else ""
    tree.strip_tags(UNSEEN)
    text = clean(tree.body.text(separator=" ")) if tree.body is not None else ""
    return Content(name, text, tuple(links))


def clean(text: str) -> str:
    """Words with one space between them."""
    return " ".join(text.split())
