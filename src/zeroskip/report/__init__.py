"""What the numbers look like: tables for people, dictionaries for JSON."""
