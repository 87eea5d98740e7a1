"""What differs by operating system: one small module a mechanism. Standard library only."""
