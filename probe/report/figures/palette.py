"""The colours of all pictures, those of files and those of a page.

Those of series are those of Okabe and Ito (2008, jfly.uni-koeln.de/color), which the colour-blind can tell apart,
in an order in which neighbours differ in lightness, too. Yellow is left out: it can't be seen on white.

The ramps of heat maps are straight lines between three or four colours in Oklab (Ottosson 2020,
bottosson.github.io/posts/oklab), cut into equal steps: equal differences of a number look alike, also to
the colour-blind and in grey, for lightness falls all along, or to both sides of the middle.
"""

BLACK, GREY, RED = "#000000", "#767676", "#D55E00"
BLUE = "#0072B2"
COLOURS = (BLUE, "#E69F00", "#009E73", "#CC79A7", RED, "#56B4E9", BLACK)
MOST_PANELS = 12  # of a picture; the data frame has all
# From low to high; both libraries join them by straight lines.
SEQUENTIAL = (
    *("#FCF9E8", "#D3E7D1", "#A9D5BA", "#80C2A8", "#63ABA6", "#4693A3"),
    *("#297B9D", "#256288", "#204A73", "#1B325E", "#151B4A"),
)
DIVERGING = (
    *("#7A3300", "#9F5624", "#C67A43", "#E6A16D", "#F0CCB3", "#F7F7F7"),
    *("#BCD6EA", "#81B5DC", "#4F92C3", "#2C6D9F", "#004A7C"),
)
UNKNOWN = "#DDDDDD"  # of a tile without a number
