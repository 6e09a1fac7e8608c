"""The error that a user can fix."""


class UserError(Exception):
    """Something outside the code is wrong: a file, a parameter, a label.

    The message is one line that names the thing and the remedy. Notebooks and the command line show only that line;
    every other exception is a bug and keeps its traceback.
    """

    def _render_traceback_(self) -> list[str]:
        """Return the lines that IPython prints in place of a traceback."""
        return [f"error: {self}"]
