"""What both databases are used through."""
