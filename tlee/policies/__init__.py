"""When to leave a frame and when to stop a video, one kind of policy a module."""
