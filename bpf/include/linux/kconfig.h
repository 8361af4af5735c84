/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/*
 * The smallest tree that bcc accepts as BCC_KERNEL_SOURCE, so that pktdrop needs no kernel headers:
 * bcc's own headers (bcc/helpers.h, bcc/bpf.h) include the files of this tree and nothing else.
 * Kernel structs are not here: their layouts are made from the running kernel's BTF.
 */
#pragma once

#define CONFIG_BPF_SYSCALL 1
