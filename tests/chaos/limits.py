def limits(count, seed, folder):
    return "none"
