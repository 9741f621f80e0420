"""One file for each way of storing an image; ``extract.datasets.decode`` chooses among them."""
