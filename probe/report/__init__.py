"""What reads stored rows: tables of them."""
