"""Maps of patch tokens as pictures: which images, which columns, and what lies over them."""
