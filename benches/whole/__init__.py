"""The whole-product benchmark: treadle against its peers, in one run, on named workloads.

Run it with `make bench`. The method, in short: every contender of a workload is opened and warmed,
then each is sampled in turn, in a new random order for every repetition, so that whatever the
machine does meanwhile happens to all. A figure is the median of its samples; a ratio is the
baseline's median over the contender's. The ratios of single repetitions give the range beside it.
"""
