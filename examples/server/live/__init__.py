"""A live server: thousands of websocket clients on one loop, heavy reports in worker processes behind a durable queue.

The map, in the order of a job's way::

    server      the loop: clients, light requests, the page
    client      one client: its outbox, its pace
    schedule    jobs that come by themselves
    queue       jobs in SQLite: what survives a kill
    desk        takes jobs from the queue into the worker processes, and their outcomes back
    reports     the heavy work                                  (the only part that runs in workers)
    dataset     what the reports are about
    page.html   clients, queue and workers, live
"""
