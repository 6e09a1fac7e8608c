"""Errors that a user can fix, each shown as one line."""

import errno
import unicodedata

_BREAKING = {"Cc", "Cs", "Zl", "Zp"}  # Unicode categories: control, undecodable, line and paragraph separator

#: Remedies for the errors of a file system, by number.
STORAGE_REMEDIES = {
    errno.ENOSPC: "free space on that disk",
    errno.EDQUOT: "free space within your quota",
    errno.EROFS: "make that file system writable",
    errno.EACCES: "change the permissions of that file or its folder",
    errno.EPERM: "change the permissions of that file or its folder",
}


class UserError(Exception):
    """Something outside the code is wrong: a file, a parameter, a label.

    The message is one line that names the thing and the remedy. Notebooks and the command line show only that line;
    every other exception is a bug and keeps its traceback.
    """

    def _render_traceback_(self) -> list[str]:
        """Return the lines that IPython prints in place of a traceback."""
        return [f"error: {one_line(str(self))}"]


def storage_error(number: int, what: str) -> UserError | None:
    """Return the error of a full, read-only or forbidden file system; None for other numbers of ``errno``.

    ``what`` names the file and the problem.
    """
    if number not in STORAGE_REMEDIES:
        return None
    return UserError(f"{what}: {STORAGE_REMEDIES[number]} and run the same command again; finished work is kept")


def breaks_lines(text: str) -> bool:
    """Return True if ``text`` has characters that break a line or that no file can store as UTF-8."""
    return any(unicodedata.category(character) in _BREAKING for character in text)


def one_line(text: str) -> str:
    """Return ``text`` with such characters escaped: a line break becomes a backslash and ``n``."""
    return "".join(
        character.encode("unicode_escape").decode() if breaks_lines(character) else character for character in text
    )
