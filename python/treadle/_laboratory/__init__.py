"""The measuring process: runs the user's function where a crash or a hang hurts nobody.

``python -m treadle._laboratory POSITION_FILE`` is started by the engine, one process for the profile and
one for each raced plan. It reads requests (one JSON object a line) from its standard input and answers on
its standard output:

    load -> target + items        profile -> serial        plan, block -> trial
              |                                |                      |
            refusal  (a clear error)     serialisation           treadle.Executor

*Guarantees*: whatever the function prints, raises or leaves running, each request gets one reply or the
process ends; the position file names the input that was being processed. Nobody listening any more ends
the process and its group.

*Assumes*: the starter gives the process a group of its own, keeps the deadline and kills the group.
"""
