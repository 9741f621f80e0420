"""What needs gradients: end-to-end and parameter-efficient tuning, and everything between."""
