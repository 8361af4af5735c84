# SPDX-License-Identifier: MIT
"""What the options that choose packets mean: an expression of pcap-filter(7), and its program."""

import re
from collections.abc import Callable, Sequence

from pktdrop.errors import WrongUse
from pktdrop.kernel.pcap import Instruction, compile_expression, shortened

_PORT = re.compile(r"[0-9]{1,5}(-[0-9]{1,5})?|[A-Za-z][A-Za-z0-9_-]{0,40}")
_HOST = re.compile(r"[A-Za-z0-9:][A-Za-z0-9.:_-]{0,252}(/[0-9]{1,3})?")


def program(expressions: Sequence[str], ports: Sequence[str], hosts: Sequence[str]) -> tuple[Instruction, ...]:
    """Return what packets match that match all of these. Raises WrongUse, and PktdropError without libpcap."""
    given = (
        *((f"({one})", one, "--filter") for one in expressions),
        *((one, one, "--port") for one in [port_expression(ports)] if one),
        *((one, one, "--host") for one in [host_expression(hosts)] if one),
    )
    found: tuple[Instruction, ...] = ()
    for _, text, option in given:  # each by itself first: else "udp) or (tcp" were one
        found = compile_expression(text, option)
    if len(given) == 1:
        return found
    return compile_expression(" and ".join(whole for whole, _, _ in given))


def port_expression(values: Sequence[str]) -> str:
    """Return the expression for packets from or to one of some ports: "53", "domain", "8000-8100", "!22".

    Raises WrongUse.
    """

    def term(value: str) -> str:
        if not _PORT.fullmatch(value):
            raise WrongUse(
                f"{shortened(value)} is no port: give a number, a range (8000-8100) or a name (domain).", "--port"
            )
        return f"portrange {value}" if "-" in value and value[0].isdigit() else f"port {value}"

    return _expression(values, term)


def host_expression(values: Sequence[str]) -> str:
    """Return the expression for packets from or to one of some hosts: "10.0.0.9", "10.0.0.0/8", "2001:db8::1", "!...".

    Raises WrongUse.
    """

    def term(value: str) -> str:
        if not _HOST.fullmatch(value):
            raise WrongUse(
                f"{shortened(value)} is no host: give an address, a network (10.0.0.0/8) or a name.", "--host"
            )
        return f"net {value}" if "/" in value else f"host {value}"

    return _expression(values, term)


def _expression(values: Sequence[str], term: Callable[[str], str]) -> str:
    wanted = [term(value) for value in values if not value.startswith("!")]
    unwanted = [f"not {term(value[1:])}" for value in values if value.startswith("!")]
    return " and ".join([*([f"({' or '.join(wanted)})"] if wanted else []), *unwanted])
