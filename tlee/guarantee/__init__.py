"""Calibrated confidences, and a policy whose harm is bounded by exact tests."""
