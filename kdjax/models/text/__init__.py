"""Language models, and what turns them into classifiers."""
