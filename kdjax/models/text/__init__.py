"""Language models, and classifiers built from them."""
