"""How good the advice is: `treadle compare` on the workload corpus, against the grid of plans.

Run it with `make accuracy`. For each workload: the command as a user runs it; then whole batches of
the same inputs under every plan of a grid; then the advised plan and the best of the grid head to
head, in rounds of a new random order. What following the advice would have lost is the regret.
docs/design/2026-11-22-accuracy.md has the definitions and what was refused.
"""
