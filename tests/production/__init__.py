"""The whole service: the exercises wired together, on one machine or many."""
