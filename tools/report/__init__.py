"""Figures in README.md and docs/, written from cards and reports."""
