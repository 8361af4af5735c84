# SPDX-License-Identifier: MIT
"""The errors that end pktdrop for a reason outside it. The command line turns them into messages and exit statuses."""


class PktdropError(Exception):
    """What is missing, and what to do about it: one sentence each. Exit status 1."""

    def __init__(self, what: str, do: str) -> None:
        """Keep both sentences; str() shows them on lines of their own."""
        super().__init__(f"{what}\n  {do}")
        self.what = what
        self.do = do


class WrongUse(Exception):
    """A value that an option or argument cannot have, and why, with what it could be. Exit status 2."""

    def __init__(self, why: str, option: str) -> None:
        """Take the sentence, and the name of the option or argument."""
        super().__init__(why)
        self.why = why
        self.option = option
