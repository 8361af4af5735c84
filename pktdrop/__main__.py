# SPDX-License-Identifier: MIT
"""Run the command line: python3 -m pktdrop."""

from pktdrop.start import main

if __name__ == "__main__":
    main()
