def scribbling(count, seed, folder):
    return "none"
