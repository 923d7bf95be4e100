"""Triggers, and what they share in a triggerer's process."""
