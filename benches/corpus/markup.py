"""Documents of tags: the standard library's XML, lxml, Beautiful Soup, Jinja."""

from __future__ import annotations

import io
import xml.etree.ElementTree as ElementTree

import bs4
import jinja2
from lxml import etree

from benches.corpus import material
from benches.corpus.workload import workload


def feeds() -> list[bytes]:
    """500 XML documents of 250 KB, of which 8 differ."""
    some = [material.orders_xml(seed, 1500).encode() for seed in range(8)]
    return material.repeated(some, 500)


@workload(
    feeds, "cpu-bound", because="ElementTree builds Python objects from Expat's events, lock held"
)
def stock_value(feed: bytes) -> float:
    """The value of all lines of a document."""
    total = 0.0
    for line in ElementTree.fromstring(feed).iter("line"):
        total += float(line.attrib["price"]) * int(line.attrib["count"])
    return total


def many_feeds() -> list[bytes]:
    """600 of the same documents."""
    return (feeds() * 2)[:600]


@workload(
    many_feeds,
    "cpu-bound-releasing",
    because="lxml releases the lock while libxml2 parses from memory and while XPath is evaluated "
    "(its FAQ on threads), and the result is one number",
)
def count_dear_lines(feed: bytes) -> float:
    """How many lines cost more than 800, by XPath."""
    tree = etree.parse(io.BytesIO(feed), etree.XMLParser())
    return tree.xpath("count(//line[@price > 800])")


def web_pages() -> list[str]:
    """400 HTML pages with a table of 60 rows, of which 40 differ."""
    found = []
    for seed in range(40):
        rows = "".join(
            f"<tr><td>{order['id']}</td><td>{order['customer']['name']}</td>"
            f"<td><a href='/order/{order['id']}'>open</a></td></tr>"
            for order in material.orders(seed, 60)
        )
        found.append(
            f"<html><head><title>Orders {seed}</title></head><body><table>{rows}</table></body></html>"
        )
    return found * 10


@workload(web_pages, "cpu-bound", because="Beautiful Soup over html.parser is plain Python")
def links(page: str) -> list[str]:
    """The addresses that a page links to."""
    soup = bs4.BeautifulSoup(page, "html.parser")
    return [anchor["href"] for anchor in soup.find_all("a")]


TEMPLATE = jinja2.Environment(autoescape=True).from_string(
    "<h1>{{ title }}</h1><table>{% for order in orders %}<tr class='{{ loop.cycle('odd', 'even') }}'>"
    "<td>{{ order.id }}</td><td>{{ order.customer.name|title }}</td>"
    "{% for line in order.lines %}<td>{{ line.sku }} {{ '%.2f'|format(line.price * line.count) }}</td>"
    "{% endfor %}</tr>{% endfor %}</table>"
)


def reports() -> list[int]:
    """350 numbers of reports."""
    return list(range(350))


ORDERS = material.orders(1, 400)


@workload(reports, "cpu-bound", because="a Jinja template is compiled to Python")
def render(number: int) -> int:
    """The length of a page with a table of 400 orders."""
    return len(TEMPLATE.render(title=f"Report {number}", orders=ORDERS))
