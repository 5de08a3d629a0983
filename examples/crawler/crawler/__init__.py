"""A crawler: pages over HTTP into a database, by whatever plan treadle decided.

The map, in the order of a page's way::

    site       the local site that is crawled here: slow, flaky, hanging, limited
    addresses  one spelling for each address
    robots     what a host allows, and how fast
    visiting   one page: fetch, read                      (the only part that runs in workers)
    frontier   which address may be asked next, and when
    store      pages, links and the queue, in SQLite or PostgreSQL
    crawl      the loop over all of it
"""
