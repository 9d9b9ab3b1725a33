"""Corpora for the audit of 19.7.1; secrets are made up when a test runs, so that no scanner finds one here."""
