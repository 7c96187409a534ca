"""The error every module raises when the user, not the code, is to mend something."""


class UserError(Exception):
    """A mistake of the user, said in one line: what was wrong, where, what to do.

    The commands print it without a traceback and exit non-zero; all other exceptions are our own bugs and keep theirs.
    """

    def __str__(self) -> str:
        """The message; names and cells that it cites may hold line breaks."""
        return super().__str__().replace('\r', '\\r').replace('\n', '\\n')
