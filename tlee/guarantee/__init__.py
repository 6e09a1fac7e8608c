"""Calibration of the confidences, and policies with a statistical guarantee."""
