"""What is known of contenders beside each other: who stands below whom, differences, decisions, claims."""
