"""A batch over a folder of photographs: each is developed into a WebP picture and a thumbnail.

The map, in the order of a file's way::

    photographs  makes a folder of them, as cameras would
    developing   one file: decode, orient, resize, sharpen, tone, encode     (the only part that runs in workers)
    memory       what a worker may use, and what all of them used
    batch        the loop over all files; any executor
    journal      what is done, for the next run
    sheet        contact sheets of the thumbnails
"""
