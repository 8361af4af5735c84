/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/*
 * What crosses from the kernel to user space. pktdrop/kernel/records.py decodes these structs and
 * tests hold both sides to the same sizes. All integers are in host byte order.
 */
#pragma once

#include <linux/types.h>

#define INTERFACE_NAME_SIZE 16 /* IFNAMSIZ, include/uapi/linux/if.h */
#define NO_CPU 0xffff
#define TO_GROUP (1U << 31)   /* in a reason: the frame was for a group or for all; no subsystem's number is so large */
#define NO_MATCH (1U << 30)   /* in a reason: the packet does not match the user's filter */
#define OTHER_PROTOCOL 0xffff /* reserved by RFC 1701: no protocol has it, and what claims to counts as other, too */

/* Reasons of ours for frames that end in XDP, in a subsystem that the kernel does not have: see bpf/xdp.c. */
#define REASON_XDP (0x3fffU << 16)
#define REASON_XDP_ABORTED (REASON_XDP | 1)
#define REASON_XDP_INVALID_ACTION (REASON_XDP | 2)
#define REASON_XDP_TX_ERR (REASON_XDP | 3)
#define REASON_XDP_REDIRECT_ERR (REASON_XDP | 4)
#define REASON_XDP_DEVMAP_XMIT (REASON_XDP | 5)
#define REASON_XDP_BULK_TX (REASON_XDP | 6)

/*
 * What a drop is counted by: 24 bytes, as every word more costs each drop another round of hashing. No implicit
 * padding: the map hashes every byte.
 */
struct drop_key {
	u64 call_site;	/* lower 48 bits of the return address inside the function that freed the skb; then section */
	u32 netns;	/* lower half of the network namespace's cookie, or its inode; 0: could not be known */
	u32 ifindex;	/* interface the skb was on or came in by; 0: none or could not be known */
	u32 reason;	/* enum skb_drop_reason, subsystem in the upper 16 bits; 0: the kernel gives none */
	u16 target_cpu; /* CPU whose backlog enqueue_to_backlog() was filling with this skb; NO_CPU: none known */
	u16 protocol;	/* ethertype; 0: not set; OTHER_PROTOCOL: one of many */
};

/*
 * Kernel text lies in the upper half of the address space, so the upper 16 bits of an address are all ones. A section
 * is what a CPU counts in one of the two banks.
 */
#define CALL_SITE(address, section) ((address) << 16 | (section))
#define SECTION_OF(call_site) ((call_site) & 0xffff)
#define SECTION(cpu, bank) ((cpu) << 1 | (bank))
#define CPU_OF(call_site) (SECTION_OF(call_site) >> 1)
#define ANY_BANK(call_site) ((call_site) & ~1ULL)

struct drop_value {
	u64 packets;	  /* skbs: one GSO or GRO skb counts once, as in the kernel's own counters */
	u64 bytes;	  /* sum of skb->len */
	u32 taken;	  /* samples, counted as struct control says; beside what each drop changes */
	u32 netns_inode;  /* 0: unknown */
	u64 netns_cookie; /* of the network namespace; 0: the kernel has none, or it is unknown */
	char interface[INTERFACE_NAME_SIZE]; /* name at the first drop of this key, NUL-padded; empty: unknown */
};

/* The drops of one key, in the table in front of the map. Unused while key.call_site is 0. */
struct hot_drop {
	struct drop_key key;
	struct drop_value value;
};

#define HOT_BITS 9
#define HOT_DROPS (1 << HOT_BITS) /* of each section */
#define HOT_PROBES 4		  /* entries that are looked into for a key */

#define FEW_PROTOCOLS 4

/* The first protocols beyond the known ones that a call site dropped on a CPU: only these count by themselves. */
struct rare_protocols {
	u16 protocols[FEW_PROTOCOLS];
};

/* What a CPU remembers from one probe to the next. Stays in the kernel. */
struct cpu_state {
	u64 backlog_skb; /* the skb of the enqueue_to_backlog() call that the CPU is in, or was in last */
	u64 target_cpu;	 /* the cpu argument of that call */
	u64 netns;	 /* address that proved to be a struct net, see is_netns() */
	u64 xdp_dev;	 /* device of the frame that ended in XDP last, until an skb is freed; 0: none, see xdp.c */
	u64 xdp_reason;	 /* why, if it is still to be counted; else 0 */
	u64 qdisc_skb;	 /* the skb that a queueing discipline dropped last, see at_qdisc_drop() */
	u64 qdisc_reason;
};

/*
 * What user space tells the programs, at each look. Samples are counted from the beginning on, and so are the limits:
 * what a kind, and a CPU, may take until the next look is the difference between limit and floor. The counts go round,
 * so only differences are compared.
 */
struct control {
	u64 active_bank;
	u32 kind_floor;
	u32 kind_limit; /* of drop_value.taken: the budget of each kind of drop */
	u32 cpu_floor;
	u32 cpu_limit;	/* of sample_cpu.taken: some can make any number of kinds */
	u32 cpu_scarce; /* of the same: beyond it, only kinds that have none since the last look may take one */
	u32 unused;
};

#define IS_BEYOND(count, limit) ((s32)((limit) - (count)) <= 0)

/* What a CPU did about samples. */
struct sample_cpu {
	u64 refused; /* packets that their kind had a budget for, but the CPU had none left */
	u64 full;    /* and that found the ring buffer full */
	u32 taken;
	u32 unused;
};

#define FLOWS_NONE 0
#define FLOWS_PORT 1
#define FLOWS_SOURCE 2
#define FLOWS_DESTINATION 3
#define FLOWS_FLOW 4
#define FLOWS_PROCESS 5
#define FLOWS_MOST 65536

/* What a drop is counted by, besides, where the user asks for it. What it is not counted by, or not known, is 0. */
struct flow_key {
	struct drop_key kind;
	u64 source[2];	    /* address, as two numbers; of IPv4 the second one */
	u64 destination[2]; /* and that */
	u64 inode;	    /* of the socket that it was for, or came from */
	u16 source_port;
	u16 destination_port;
	u8 protocol;	  /* IPPROTO_* */
	u8 version;	  /* of IP */
	u8 is_for_socket; /* the socket is the one it was for */
	u8 unused;
};

struct flow_value {
	u64 packets;
	u64 bytes;
};

#define SAMPLE_BYTES 128
#ifndef STACK_FRAMES
#define STACK_FRAMES 0 /* return addresses in a sample, where the user asks for them */
#endif
#define SAMPLE_RING (512 * 1024) /* bytes; a power of two, and whole pages of any size */
#define NO_DEVICE_TYPE 0xffff
#define SAMPLE_HAS_MAC 1    /* `bytes` begin with the MAC header */
#define SAMPLE_FOR_SOCKET 2 /* the socket is the one it was for (rx_sk); else it may be the one it came from */

/* A copy of a dropped packet's beginning, and what is known of its socket. Offsets are from `bytes` on, modulo 2^16. */
struct sample {
	u64 time;	     /* ns, CLOCK_MONOTONIC */
	struct drop_key key; /* under which the drop was counted */
	u64 cgroup;	     /* id of the socket's, 0: unknown */
	u64 inode;	     /* of the socket, 0: unknown, or nobody has a descriptor of it */
	u32 length;	     /* of the packet from the first of `bytes` on */
	u32 iif;	     /* interface it was received on, 0: none known */
	u32 vlan;	     /* tag that the device took out: protocol in network order, then the tag; 0: none */
	u16 captured;	     /* how many of `bytes` there are */
	u16 network;	     /* offset of the network header */
	u16 transport;	     /* offset of the transport header */
	u16 data;	     /* offset of skb->data: how far the packet had got */
	u16 device_type;     /* ARPHRD_*, NO_DEVICE_TYPE: unknown */
	u16 family;	     /* AF_* of the socket, 0: no socket is known */
	u16 local_port;
	u16 remote_port;
	u16 protocol; /* IPPROTO_* of the socket */
	u8 state;     /* TCP_* of include/net/tcp_states.h */
	u8 flags;     /* SAMPLE_* */
	u8 bytes[SAMPLE_BYTES];
#if STACK_FRAMES
	u64 stack[STACK_FRAMES]; /* of the kernel, the innermost first, 0: no more */
#endif
};

_Static_assert(sizeof(struct drop_key) == 24, "struct drop_key has padding");
_Static_assert(sizeof(struct drop_value) == 48, "struct drop_value has padding");
_Static_assert(sizeof(struct hot_drop) == 72, "struct hot_drop has padding");
_Static_assert(sizeof(struct flow_key) == 72, "struct flow_key has padding");
_Static_assert(sizeof(struct control) == 32, "struct control has padding");
_Static_assert(sizeof(struct sample_cpu) == 24, "struct sample_cpu has padding");
_Static_assert(sizeof(struct sample) == 80 + SAMPLE_BYTES + 8 * STACK_FRAMES, "struct sample has padding");
