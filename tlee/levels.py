"""The ends of the scale of thresholds: scores are from 0 to 1, and a decision takes more than its threshold."""

NEVER = 1.0  #: no score is above it: the decision is switched off
ALWAYS = 0.0  #: every score is above it
