/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/*
 * What crosses from the kernel to user space. pktdrop/kernel/records.py decodes these structs and
 * tests hold both sides to the same sizes. All integers are in host byte order.
 */
#pragma once

#include <linux/types.h>

#define INTERFACE_NAME_SIZE 16 /* IFNAMSIZ, include/uapi/linux/if.h */
#define NO_CPU 0xffff

/* What a drop is counted by. No implicit padding: the map hashes every byte. */
struct drop_key {
	u64 location;	/* return address inside the function that freed the skb */
	u32 netns;	/* inode of the network namespace; 0: could not be known */
	u32 ifindex;	/* interface the skb was on or came in by; 0: none or could not be known */
	u32 reason;	/* enum skb_drop_reason, subsystem in the upper 16 bits; 0: the kernel gives none */
	u16 cpu;	/* CPU that freed the skb */
	u16 target_cpu; /* CPU whose backlog enqueue_to_backlog() was filling with this skb; NO_CPU: none known */
	u16 protocol;	/* ethertype; 0: not set */
	u16 pad;	/* always 0 */
	u32 pad2;	/* always 0 */
};

struct drop_value {
	u64 packets;			     /* skbs: one GSO or GRO skb counts once, as in the kernel's own counters */
	u64 bytes;			     /* sum of skb->len */
	char interface[INTERFACE_NAME_SIZE]; /* name at the first drop of this key, NUL-padded; empty: unknown */
};

/* The enqueue_to_backlog() call that a CPU is in, or was in last. */
struct backlog_call {
	u64 skb;	/* address of its skb */
	u64 target_cpu; /* its cpu argument */
};

_Static_assert(sizeof(struct drop_key) == 32, "struct drop_key has padding");
_Static_assert(sizeof(struct drop_value) == 32, "struct drop_value has padding");
