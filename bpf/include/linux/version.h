/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/* bcc compares LINUX_VERSION_CODE in its headers; what pktdrop needs is in every kernel from this one on. */
#pragma once

#define KERNEL_VERSION(a, b, c) (((a) << 16) + ((b) << 8) + (c))
#define LINUX_VERSION_CODE KERNEL_VERSION(5, 10, 0)
