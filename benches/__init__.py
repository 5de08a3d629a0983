"""Benchmarks: `whole` measures the product against its peers, `accuracy` its advice on `corpus`."""
