"""Policies, which decide when to leave a frame and when to stop a video, and the loop that runs them."""
