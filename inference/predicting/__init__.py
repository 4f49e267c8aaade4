"""What a program says of other data, and how well it would have said it."""
