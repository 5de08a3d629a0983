"""The crawler's parts: addresses, reading, rules, the frontier's pace, the site's own promises."""

from __future__ import annotations

import itertools

import pytest

from crawler.addresses import host_of, normal
from crawler.frontier import HELD, Frontier
from crawler.reading import read
from crawler.robots import Rules
from crawler.site import SHARES, STORABLE, Site
from crawler.store import Waiting, without_password


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("HTTP://Example.COM:80/a#part", "http://example.com/a"),
        ("https://example.com:443", "https://example.com/"),
        ("http://example.com:8080/a?b=1&a=2", "http://example.com:8080/a?b=1&a=2"),
        ("../up", "http://host/up"),
        ("/a b", "http://host/a%20b"),
        ("/a%20b", "http://host/a%20b"),
        ("//other/", "http://other/"),
        ("http://[::1]:81/", "http://[::1]:81/"),
        ("mailto:someone@example.com", None),
        ("javascript:void(0)", None),
        ("http://host:port/", None),
        ("/" + "a" * 3000, None),
    ],
)
def test_an_address_has_one_spelling(address: str, expected: str | None) -> None:
    assert normal(address, "http://host/folder/page") == expected
    if expected is not None:
        assert normal(expected) == expected


def test_reading_takes_title_text_and_links() -> None:
    page = read(
        "<title> A  page\0 </title><base href='/folder/'><style>p {}</style><body>Some <b>text</b>"
        "<script>no()</script><a href='one#x'>1</a><a href='one'>1</a><a rel='nofollow' href='two'>2</a>"
        "<a href='ftp://x/'>3</a><a>4</a><p>unclosed",
        "http://host/",
    )
    assert page.title == "A page\ufffd"  # PostgreSQL's text could not hold the NUL
    assert page.text.split() == ["Some", "text", "1", "1", "2", "3", "4", "unclosed"]
    assert page.links == ("http://host/folder/one",)


@pytest.mark.parametrize("markup", ["", "\0\0", "<", "no markup", "<a href='\ufffd", "<a href>"])
def test_reading_takes_anything(markup: str) -> None:
    page = read(markup, "http://host/")
    assert set(page.links) <= {"http://host/", "http://host/%EF%BF%BD"}
    assert "\0" not in page.text + page.title


def test_rules_keep_to_the_slower_rate() -> None:
    text = "User-agent: *\nDisallow: /private/\nRequest-rate: 25/1\n"
    assert Rules(text, 50).rate == 25
    assert Rules(text, 10).rate == 10
    assert Rules("User-agent: *\nCrawl-delay: 2\n", 50).rate == 0.5
    assert Rules("", 50).rate == 50
    assert not Rules(text, 50).allow("http://host/private/1")
    assert Rules(text, 50).allow("http://host/page/1")


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.time = 1000.0

    def __call__(self) -> float:
        return self.time


class Waits:
    """A queue in memory with the pages 0 to `count` - 1 of each host."""

    def __init__(self, hosts: list[str], count: int) -> None:
        self.pages = {
            host: [Waiting(f"{host}/{n}", 0, 0, 0.0) for n in range(count)] for host in hosts
        }
        self.largest = 0

    def waiting_hosts(self) -> list[str]:
        return [host for host, pages in self.pages.items() if pages]

    def waiting(self, host: str, limit: int) -> list[Waiting]:
        self.largest = max(self.largest, limit)
        return sorted(self.pages[host], key=lambda page: (page.due, page.depth, page.address))[
            :limit
        ]

    def finish(self, page: Waiting) -> None:
        self.pages[host_of(page.address)].remove(page)


def test_the_frontier_keeps_the_pace_of_each_host() -> None:
    clock = Clock()
    queue = Waits(["http://slow", "http://fast"], 40)
    frontier = Frontier(queue, clock)
    frontier.admit(frontier.hosts["http://slow"], Rules("", 2))
    frontier.admit(frontier.hosts["http://fast"], Rules("", 10))
    asked: dict[str, list[float]] = {"http://slow": [], "http://fast": []}
    while clock.time < 1003:
        found = frontier.next()
        if found is None:
            wait = frontier.until_next()
            assert wait is not None
            clock.time += max(wait, 1e-9)
            continue
        asked[found[0].host].append(clock.time)
    for host, rate in (("http://slow", 2), ("http://fast", 10)):
        gaps = [b - a for a, b in itertools.pairwise(asked[host])]
        assert min(gaps) > 0.999 / rate
        assert len(asked[host]) == pytest.approx(3 * rate, abs=1)


def test_the_frontier_hands_out_each_address_once_and_holds_few() -> None:
    clock = Clock()
    queue = Waits(["http://host"], 5 * HELD)
    frontier = Frontier(queue, clock)
    host = frontier.hosts["http://host"]
    frontier.admit(host, Rules("", 1e9))
    seen: list[str] = []
    flying: list[Waiting] = []
    while (found := frontier.next()) is not None or flying:
        if found is not None:
            seen.append(found[1].address)
            flying.append(found[1])
        if len(flying) >= 50 or found is None:
            for page in flying:
                queue.finish(page)
                host.forget(page.address)
            flying = []
            frontier.refresh()
        assert len(host.known) <= 2 * HELD
        clock.time += 1
    assert len(seen) == len(set(seen)) == 5 * HELD
    assert queue.largest <= 3 * HELD


def test_an_address_that_was_put_off_does_not_hold_up_others() -> None:
    clock = Clock()
    queue = Waits(["http://host"], 2 * HELD)
    late = [page._replace(due=2000.0) for page in queue.pages["http://host"][:HELD]]
    queue.pages["http://host"][:HELD] = late
    frontier = Frontier(queue, clock)
    frontier.admit(frontier.hosts["http://host"], Rules("", 1e9))
    taken = 0
    while (found := frontier.next()) is not None:
        assert found[1].due == 0
        taken += 1
        frontier.refresh()
        clock.time += 0.001
    assert taken == HELD


def test_a_page_of_the_site_is_always_the_same() -> None:
    one, other = Site(), Site()
    natures = [one.nature(host, page) for host in range(8) for page in range(375)]
    assert natures == [other.nature(host, page) for host in range(8) for page in range(375)]
    kinds = [nature.kind for nature in natures]
    assert {*SHARES, "ordinary"} == set(kinds)
    assert all(one.nature(host, 0).kind == "ordinary" for host in range(8))
    reachable = one.storable()
    assert len(reachable) > 0.95 * sum(kind in STORABLE for kind in kinds)


def test_a_password_is_not_shown() -> None:
    assert without_password("postgresql://me:secret@host/db") == "postgresql://me:…@host/db"
    assert without_password("postgresql://me@host/db") == "postgresql://me@host/db"
    assert "secret" not in without_password("redis://me:secret@[host")
