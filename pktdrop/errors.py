# SPDX-License-Identifier: MIT
"""The one error that ends pktdrop for a reason outside it."""

import click


class PktdropError(click.ClickException):
    """What is missing, and what to do about it: one sentence each. Exit status 1."""

    def __init__(self, what: str, do: str) -> None:
        """Keep both sentences; str() and the message on stderr show them on lines of their own."""
        super().__init__(f"{what}\n  {do}")
        self.what = what
        self.do = do
