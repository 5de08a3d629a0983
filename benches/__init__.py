"""Benchmarks: `whole` measures the product against its peers."""
