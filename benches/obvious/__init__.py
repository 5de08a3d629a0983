"""How long `treadle compare` takes where the answer is plain: `python -m benches.obvious`."""
