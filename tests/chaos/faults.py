def faults(count, seed, folder):
    return "none"
