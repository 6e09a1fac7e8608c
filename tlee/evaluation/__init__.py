"""Policies on one scale: replayed on stored exit features, searched on ``val``, compared on ``test``."""
