# SPDX-License-Identifier: MIT
"""What TCP does not take of an open connection's input."""

from contextlib import suppress
from functools import cache
from socket import SHUT_WR

from pktdrop.demo.causes.cause import Traffic, cause
from pktdrop.demo.causes.parts import OPEN
from pktdrop.demo.net import Net
from tests.kit.provoke.packets import ACK, FIN, SYN, Segment, timestamps
from tests.kit.provoke.peer import TUN, Connection, Peer
from tests.kit.provoke.witnesses import counts

SLOW = ("tcp_rcv_established", "tcp_validate_incoming", "tcp_data_queue", "tcp_data_queue_ofo", "tcp_ofo_queue",
        "tcp_rcv_state_process", "tcp_try_rmem_schedule", "tcp_prune_ofo_queue")  # fmt: skip


def _lost(peer: Peer, segment: Segment, counter: str) -> Traffic:
    witness = counter if counts(peer.host, counter) else "TcpInSegs"  # which older kernels have instead
    return Traffic(lambda: peer.tcp(segment), lambda: peer.host.mib(witness), peer.udp, peer.sink.received)


@cause(
    "TCP_OLD_DATA",
    *SLOW,
    told_by="socket",
    needs_reasons=True,
    short="olddata",
    at=TUN,
    bounds=("mib.TcpExtDelayedACKLost",),
)
def old_data(net: Net, v6: bool) -> Traffic:
    """Data that came just before."""
    peer = Peer(net, v6)
    connection = Connection(peer)
    again = connection.segment(payload=b"x")
    connection.send(b"x")
    return _lost(peer, again, "TcpExtDelayedACKLost")


@cause("TCP_OLD_SEQUENCE", *SLOW, told_by="socket", needs_reasons=True, short="oldseq", at=TUN,
       bounds=("mib.TcpExtDelayedACKLost",),
       older=("TCP_INVALID_SEQUENCE",))  # fmt: skip
def old_sequence(net: Net, v6: bool) -> Traffic:
    """Data that came before and was acknowledged."""
    peer = Peer(net, v6)
    connection = Connection(peer)
    again = connection.segment(payload=b"x")
    for _ in range(3):
        connection.send(b"x")
    return _lost(peer, again, "TcpExtDelayedACKLost")


@cause(
    "TCP_OFOMERGE",
    *SLOW,
    told_by="socket",
    needs_reasons=True,
    short="ofomerge",
    at=TUN,
    counters=("mib.TcpExtTCPOFOMerge",),
)
def twice_ahead(net: Net, v6: bool) -> Traffic:
    """Data ahead of what is expected that came before."""
    peer = Peer(net, v6)
    ahead = Connection(peer).segment(ahead=10, payload=b"x")
    peer.tcp(ahead)
    return _lost(peer, ahead, "TcpExtTCPOFOMerge")


@cause("TCP_OFO_DROP", *SLOW, needs_reasons=True, short="ofodrop", at=TUN)
def hole_filled_twice(net: Net, v6: bool) -> Traffic:
    """Data ahead of what is expected that then comes once more in order."""
    peer = Peer(net, v6)
    connection = Connection(peer)
    twice = 0

    def lose() -> None:
        peer.tcp(connection.segment(ahead=1, payload=b"x"))
        connection.send(b"xx")

    def lost() -> int:
        nonlocal twice
        with suppress(BlockingIOError):
            twice += len(connection.socket.recv(65536)) // 2
        return twice

    return Traffic(lose, lost, peer.udp, peer.sink.received)


@cause(
    "TCP_INVALID_SEQUENCE",
    *SLOW,
    told_by="socket",
    needs_reasons=True,
    short="badseq",
    at=TUN,
    bounds=("mib.TcpExtBeyondWindow",),
)
def beyond_window(net: Net, v6: bool) -> Traffic:
    """Data far beyond the window."""
    peer = Peer(net, v6)
    return _lost(peer, Connection(peer).segment(ahead=10_000_000, payload=b"x"), "TcpExtBeyondWindow")


@cause(
    "TCP_INVALID_END_SEQUENCE",
    *SLOW,
    told_by="socket",
    needs_reasons=True,
    short="badend",
    at=TUN,
    bounds=("mib.TcpExtBeyondWindow",),
)
def beyond_window_end(net: Net, v6: bool) -> Traffic:
    """Data that begins in the window and ends beyond it, while older data wait to be read."""
    peer = Peer(net, v6)
    connection = Connection(peer, receive_buffer=4096)
    connection.send(b"x")
    return _lost(peer, connection.segment(payload=b"x" * 30_000), "TcpExtBeyondWindow")


@cause(
    "TCP_OVERWINDOW",
    *SLOW,
    told_by="socket",
    needs_reasons=True,
    short="overwindow",
    at=TUN,
    bounds=("mib.TcpExtBeyondWindow",),
)
def at_end_of_window(net: Net, v6: bool) -> Traffic:
    """Data that begins where the window ends."""
    peer = Peer(net, v6)
    connection = Connection(peer)
    beyond = connection.segment(ahead=connection.window, payload=b"x")

    def lost() -> int:
        try:
            raise AssertionError(f"received {connection.socket.recv(65536)!r}")
        except BlockingIOError:
            return peer.host.mib("TcpInSegs")

    return Traffic(lambda: peer.tcp(beyond), lost, peer.udp, peer.sink.received)


@cause(
    "TCP_RFC7323_PAWS",
    *SLOW,
    told_by="socket",
    needs_reasons=True,
    short="paws",
    at=TUN,
    bounds=("mib.TcpExtPAWSEstab",),
)
def old_timestamp(net: Net, v6: bool) -> Traffic:
    """Data with a time stamp from long ago."""
    peer = Peer(net, v6)
    connection = Connection(peer, stamped=True)
    connection.send(b"x")
    return _lost(peer, connection.segment(payload=b"x", older=500_000), "TcpExtPAWSEstab")


@cause("TCP_RFC7323_PAWS_ACK", *SLOW, told_by="socket", needs_reasons=True, short="pawsack", at=TUN,
       counters=("mib.TcpExtPAWSOldAck",),
       older=("TCP_RFC7323_PAWS",))  # fmt: skip
def old_acknowledgement(net: Net, v6: bool) -> Traffic:
    """An acknowledgement of before, with a time stamp from long ago."""
    peer = Peer(net, v6)
    connection = Connection(peer, stamped=True)
    connection.send(b"x")
    return _lost(peer, connection.segment(ahead=-1, older=500_000), "TcpExtPAWSOldAck")


@cause("TCP_RFC7323_TW_PAWS", "tcp_v4_rcv", short="pawstw", at=TUN, counters=("mib.TcpExtPAWSTimewait",))
def timestamp_older_than_connection(net: Net, v6: bool) -> Traffic:
    """Data with an old time stamp for a connection that has just ended."""
    peer = Peer(net, v6)

    @cache
    def late() -> Segment:
        connection = Connection(peer, stamped=True)
        connection.socket.shutdown(SHUT_WR)
        connection.ack += 1  # its FIN
        peer.tcp(connection.segment(flags=FIN | ACK))
        connection.socket.recv(1)  # our FIN: unread it would be one more packet freed
        connection.seq += 1
        return connection.segment(payload=b"x", older=500_000)

    # only now: TIME-WAIT lasts a minute (TCP_TIMEWAIT_LEN, include/net/tcp.h)
    counter = "TcpExtPAWSTimewait" if counts(peer.host, "TcpExtPAWSTimewait") else "TcpExtPAWSEstab"
    return Traffic(lambda: peer.tcp(late()), lambda: peer.host.mib(counter), peer.udp, peer.sink.received)


@cause("TCP_RFC7323_TSECR", "tcp_v4_rcv", short="tsecr", at=TUN, counters=("mib.TcpExtTSEcrRejected",),
       bounds=("socket.drops",))  # fmt: skip
def wrong_echo(net: Net, v6: bool) -> Traffic:
    """The last packet of a handshake, with an echo of a time stamp that was never sent."""
    peer = Peer(net, v6)
    net["host"].sysctl(ipv4__tcp_synack_retries=100)  # the request stays
    peer.listen()
    answer = peer.ask(Segment(4001, OPEN, 1, options=timestamps(Connection.STAMP, 0)))
    wrong = timestamps(Connection.STAMP, answer.stamp - 500_000)
    return _lost(peer, Segment(4001, OPEN, 2, answer.seq + 1, ACK, options=wrong), "TcpExtTSEcrRejected")


@cause(
    "TCP_INVALID_SYN",
    *SLOW,
    told_by="socket",
    needs_reasons=True,
    short="syninside",
    at=TUN,
    counters=("mib.TcpExtTCPSYNChallenge",),
    bounds=("mib.TcpInErrs",),
)
def syn_inside(net: Net, v6: bool) -> Traffic:
    """A SYN inside an open connection (RFC 5961)."""
    peer = Peer(net, v6)
    return _lost(peer, Connection(peer).segment(flags=SYN), "TcpExtTCPSYNChallenge")


CAUSES = (
    *old_data,
    *old_sequence,
    *twice_ahead,
    *hole_filled_twice,
    *beyond_window,
    *beyond_window_end,
    *at_end_of_window,
    *old_timestamp,
    *old_acknowledgement,
    *timestamp_older_than_connection,
    *wrong_echo,
    *syn_inside,
)
