"""One file for each way of storing an image; ``extract.datasets.files.decode`` chooses among them."""
