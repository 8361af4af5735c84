# SPDX-License-Identifier: MIT
"""Names of kernel addresses, on frozen tables of real kernels."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from pktdrop.kernel.symbols import Symbols

DATA = Path(__file__).parents[1] / "data/symbols"
V6_1, V7_3 = "6.1.0-50-debian", "7.3.4-debian"


def _proc(directory: Path, kernel: str) -> Path:
    for table in ("kallsyms", "modules"):
        shutil.copy(DATA / kernel / table, directory / table)
    return directory


@pytest.mark.parametrize(
    ("kernel", "address", "name"),
    [
        (V6_1, 0xFFFFFFFF818B4DB0 + 0x49E, "udp_rcv+0x49e"),
        (V6_1, 0xFFFFFFFF817CE720, "enqueue_to_backlog+0x0"),
        (V6_1, 0xFFFFFFFF818BB550 - 1, "udp_rcv+0x679f"),
        (V6_1, 0xFFFFFFFFC04720D0 + 0x12, "nft_do_chain+0x12 [nf_tables]"),
        (V6_1, 0xFFFFFFFFC0472080 + 0x4, "__nft_trace_verdict.isra.0+0x4 [nf_tables]"),
        (V6_1, 0xFFFFFFFFC04DCA50 + 0x1F3, "veth_xmit+0x1f3 [veth]"),
        (V7_3, 0xFFFFFFFF820214F0 + 0x49E, "udp_rcv+0x49e"),
        (V7_3, 0xFFFFFFFFC052F3F0 + 0x1A, "tbf_enqueue+0x1a [sch_tbf]"),
        (V7_3, 0xFFFFFFFFC053053A + 0x2, "tbf_change.cold+0x2 [sch_tbf]"),
        (V7_3, 0xFFFFFFFFC052D4C0 + 0x20, "veth_xmit+0x20 [veth]"),
    ],
)
def test_an_address_is_a_symbol_and_an_offset(tmp_path: Path, kernel: str, address: int, name: str) -> None:
    """An address is named by the nearest symbol at or below it, with its module."""
    symbols = Symbols(_proc(tmp_path, kernel))
    assert symbols.name(address) == name
    assert symbols.hidden is None


@pytest.mark.parametrize("kernel", [V6_1, V7_3])
def test_every_text_symbol_is_found_by_its_address(tmp_path: Path, kernel: str) -> None:
    """The start of each function is named by its own symbol or one that shares its address, and by its own module.

    Since 6.4 the text and the data of a module are apart, and /proc/modules tells the sum of their sizes (kernel:
    kernel/module/procfs.c, module_total_size): address and size of one module may run into the text of the next.
    """
    names: dict[int, set[str]] = {}
    for line in (DATA / kernel / "kallsyms").read_text().splitlines():
        address, kind, name, *module = line.split()
        if kind in "tTwW" and name != "_etext":
            names.setdefault(int(address, 16), set()).add(" ".join([f"{name}+0x0", *module]))
    symbols = Symbols(_proc(tmp_path, kernel))
    wrong = {f"{address:#x}": symbols.name(address) for address in names if symbols.name(address) not in names[address]}
    assert wrong == {}
    assert len(names) > 20


def test_data_has_no_name(tmp_path: Path) -> None:
    """Behind the text of the kernel there is data: an address there is shown as an address."""
    symbols = Symbols(_proc(tmp_path, V6_1))
    assert symbols.name(0xFFFFFFFF82467970) == "0xffffffff82467970"
    assert symbols.name(0xFFFFFFFF81E01D32) == "0xffffffff81e01d32"


@pytest.mark.parametrize("address", [0, 1, 0xFFFFFFFF80FFFFFF, 0xFFFFFFFFC0000000, 2**64 - 1])
def test_an_address_of_nobody(tmp_path: Path, address: int) -> None:
    """An address outside all text is shown as an address."""
    assert Symbols(_proc(tmp_path, V6_1)).name(address) == f"{address:#x}"


def test_hidden_addresses(tmp_path: Path) -> None:
    """Where the kernel shows zeros for addresses, these stay addresses, and the reason is told."""
    symbols = Symbols(_proc(tmp_path, f"{V6_1}-restricted"))
    assert symbols.name(0xFFFFFFFF818B4DB0) == "0xffffffff818b4db0"
    assert symbols.name(0x1000) == "0x1000"
    assert symbols.hidden is not None
    assert "kptr_restrict" in symbols.hidden


def test_no_kallsyms(tmp_path: Path) -> None:
    """A kernel without the table is no error: addresses stay addresses, and what is missing is told."""
    symbols = Symbols(tmp_path)
    assert symbols.name(0xFFFFFFFF818B4DB0) == "0xffffffff818b4db0"
    assert symbols.hidden == f"{tmp_path}/kallsyms cannot be read: {os.strerror(2)}"


def test_a_kernel_without_modules(tmp_path: Path) -> None:
    """A kernel built without modules has no /proc/modules, and its own symbols have names."""
    (_proc(tmp_path, V6_1) / "modules").unlink()
    symbols = Symbols(tmp_path)
    assert symbols.name(0xFFFFFFFF818B4DB1) == "udp_rcv+0x1"
    assert symbols.name(0xFFFFFFFFC04720D0) == "0xffffffffc04720d0"


def test_a_module_that_comes(tmp_path: Path) -> None:
    """An address in a module that was loaded after the start has its name."""
    proc = _proc(tmp_path, V6_1)
    lines = (DATA / V6_1 / "kallsyms").read_text().splitlines(keepends=True)
    (proc / "kallsyms").write_text("".join(line for line in lines if "[nf_tables]" not in line))
    (proc / "modules").write_text("veth 36864 0 - Live 0xffffffffc04db000\n")
    symbols = Symbols(proc)
    assert symbols.name(0xFFFFFFFFC04DCA51) == "veth_xmit+0x1 [veth]"
    _proc(tmp_path, V6_1)
    assert symbols.name(0xFFFFFFFFC04720D1) == "nft_do_chain+0x1 [nf_tables]"


def test_a_module_that_goes(tmp_path: Path) -> None:
    """A call site in a module keeps its name when the module is unloaded."""
    proc = _proc(tmp_path, V6_1)
    symbols = Symbols(proc)
    assert symbols.name(0xFFFFFFFFC04720D1) == "nft_do_chain+0x1 [nf_tables]"
    (proc / "modules").write_text("")
    (proc / "kallsyms").write_text("ffffffff81000000 T _stext\nffffffff81e01d32 T _etext\n")
    assert symbols.name(0xFFFFFFFF91000000) == "0xffffffff91000000"  # has the tables read anew
    assert symbols.name(0xFFFFFFFFC04720D1) == "nft_do_chain+0x1 [nf_tables]"


def test_a_module_in_the_place_of_another(tmp_path: Path) -> None:
    """A new address in a module that was loaded where another was before is not named after that one."""
    proc = _proc(tmp_path, V6_1)
    symbols = Symbols(proc)
    assert symbols.name(0xFFFFFFFFC04720D1) == "nft_do_chain+0x1 [nf_tables]"
    (proc / "modules").write_text("tun 61440 0 - Live 0xffffffffc0472000\n")
    (proc / "kallsyms").write_text(
        "ffffffff81000000 T _stext\nffffffff81e01d32 T _etext\nffffffffc0472000 t tun_net_xmit\t[tun]\n"
    )
    assert symbols.name(0xFFFFFFFFC04720E0) == "tun_net_xmit+0xe0 [tun]"


def test_a_module_that_taints(tmp_path: Path) -> None:
    """A module with taint flags behind its address is read like any other (kernel: module_flags())."""
    proc = _proc(tmp_path, V6_1)
    (proc / "modules").write_text(
        "veth 36864 0 - Live 0xffffffffc04db000 (OE)\nnf_tables 303104 1 nft_compat, Loading 0xffffffffc0472000 (PO+)\n"
    )
    symbols = Symbols(proc)
    assert symbols.name(0xFFFFFFFFC04DCA51) == "veth_xmit+0x1 [veth]"
    assert symbols.name(0xFFFFFFFFC04720D1) == "nft_do_chain+0x1 [nf_tables]"


def test_symbols_in_any_order(tmp_path: Path) -> None:
    """The order of the table does not matter: that of modules is by no address."""
    proc = _proc(tmp_path, V6_1)
    lines = (DATA / V6_1 / "kallsyms").read_text().splitlines(keepends=True)
    (proc / "kallsyms").write_text("".join(reversed(lines)).rstrip("\n"))
    symbols = Symbols(proc)
    assert symbols.name(0xFFFFFFFF818B4DB0 + 0x49E) == "udp_rcv+0x49e"
    assert symbols.name(0xFFFFFFFFC04720D0 + 0x12) == "nft_do_chain+0x12 [nf_tables]"
    assert symbols.name(0xFFFFFFFF81000001) == "_stext+0x1"


def test_a_name_is_looked_up_once(tmp_path: Path) -> None:
    """A name that was given once is given again, even if the tables are gone."""
    symbols = Symbols(_proc(tmp_path, V6_1))
    name = symbols.name(0xFFFFFFFF818B4DB1)
    (tmp_path / "kallsyms").unlink()
    (tmp_path / "modules").unlink()
    assert symbols.name(0xFFFFFFFF818B4DB1) == name == "udp_rcv+0x1"


def test_tables_are_read_when_needed(tmp_path: Path) -> None:
    """Nothing is read before the first address is asked for."""
    symbols = Symbols(tmp_path)
    _proc(tmp_path, V6_1)
    assert symbols.name(0xFFFFFFFF818B4DB1) == "udp_rcv+0x1"
