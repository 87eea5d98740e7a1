"""History of jobs: who each one was, what it said and took, and how it ended."""
