"""The colours of all pictures, those of files and those of a page.

They are those of Okabe and Ito (2008, jfly.uni-koeln.de/color), which the colour-blind can tell apart,
in an order in which neighbours differ in lightness, too. Yellow is left out: it can't be seen on white.
"""

BLACK, GREY, RED = "#000000", "#767676", "#D55E00"
BLUE = "#0072B2"
COLOURS = (BLUE, "#E69F00", "#009E73", "#CC79A7", RED, "#56B4E9", BLACK)
MOST_PANELS = 12  # of a picture; the data frame has all
