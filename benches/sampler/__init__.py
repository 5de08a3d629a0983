"""What the sampler of the interpreter lock costs the thread that it looks at, and how right it is.

python -m benches.sampler [--quick] [--out FILE]
"""
