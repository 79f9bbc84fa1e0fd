"""Continual learning: strategies that keep what was learnt, and the loop over tasks."""
