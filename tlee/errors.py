"""The one error that a user can mend."""


class UserError(Exception):
    """Something outside the code is wrong: a file, a parameter, a label.

    The message is one line that names the thing and the remedy. Notebooks and the command line
    show that line alone; every other exception is a defect and keeps its traceback.
    """

    def _render_traceback_(self) -> list[str]:
        """What IPython prints in place of a traceback."""
        return [f"error: {self}"]
