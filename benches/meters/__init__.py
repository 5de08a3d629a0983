"""What the always-on meters cost: the same pool with them and without, in turn.

python -m benches.meters [--quick] [--out FILE]
"""
