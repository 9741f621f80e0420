"""One file for each library that encoders come from, and a user's own."""
