# SPDX-License-Identifier: MIT
"""`pktdrop top`, the live view. Only app.py and what it needs knows textual; all that is counted is in history.py."""
