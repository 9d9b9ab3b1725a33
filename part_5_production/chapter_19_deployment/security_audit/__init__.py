"""The parts of exercise 19.7.1: what a finding is, how it is found in files and in a running app, how it is told."""
