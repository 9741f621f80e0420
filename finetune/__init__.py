"""What needs gradients: end-to-end and parameter-efficient tuning. Nothing is here yet."""
