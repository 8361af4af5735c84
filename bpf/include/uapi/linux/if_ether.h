/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/* Included by bcc; pktdrop needs nothing of it. */
#pragma once
