"""Where a policy exits, and why."""
