"""The check kit: starts a target in its own process, moves its clock, plays its model, and reports in six lines."""
