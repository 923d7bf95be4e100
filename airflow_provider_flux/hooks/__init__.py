"""Hooks: the connection type ``flux``."""
