"""Maps, saliency, tables as pictures, rasterised with numpy: pixels in, (h, w, 3) uint8 out, no pyplot and no global state.

A training process draws a page at every checkpoint, so a page may cost milliseconds, not a second. Values become levels of a
palette of at most 256 colours by one multiplication, and a page is stored as the small palette PNG it really is. The same
values, limit and texts give the same bytes.
"""
