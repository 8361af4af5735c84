# SPDX-License-Identifier: MIT
"""Run the command line: python3 -m pktdrop."""

from pktdrop.cli import main

if __name__ == "__main__":
    main(prog_name="pktdrop")
