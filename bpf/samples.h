/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/*
 * Samples: copies of the first packets of each kind of drop. Which are taken, and when no more, says struct control.
 * bcc rewrites the main file only, so all that reads the kernel's memory stands here.
 *
 * READER says how bytes of a packet are read, see pktdrop/kernel/readers.py; set from outside, besides:
 *   HAS_INODE, HAS_CGROUP, HAS_VLAN  1 where the members that tell these are known
 *   HAS_CARRIER, NO_CARRIER_BIT      the same of an interface's carrier, and the bit of net_device.state that says none
 *   STACK_FRAMES                     how many return addresses a sample has
 *   CAST_TYPE                        BTF id of struct linux_mib, which is an array from its beginning on
 */
#pragma once

#include "reads.h"

#define READER_NONE 0
#define READER_PLAIN 1 /* loads of a BTF program, from skb->head on */
#define READER_CAST 2  /* the same, behind the kfunc bpf_rdonly_cast() */
#define READER_PROBE 3 /* bpf_probe_read_kernel() */

#define NO_MAC_HEADER 0xffff /* skb_mac_header_was_set(), include/linux/skbuff.h */
#define ETHER_TYPE 1	     /* ARPHRD_ETHER, include/uapi/linux/if_arp.h */
#define TIME_WAIT 6	     /* include/net/tcp_states.h: sockets that end behind their struct sock_common */
#define NEW_SYN_RECV 12

/* bcc knows no kfunc: user space puts the id of bpf_rdonly_cast() in place of this number, see programs.py. */
#define CALL_OF_CAST 0x7fff0001
static void *(*rdonly_cast)(const void *, u32) = (void *)CALL_OF_CAST;

static __always_inline u8 first_byte(u64 from)
{
	u8 byte = 0;

#if READER == READER_PROBE
	bpf_probe_read_kernel(&byte, sizeof(byte), (void *)from);
#elif READER == READER_CAST
	byte = *(u8 *)rdonly_cast((const void *)from, CAST_TYPE);
#else
	byte = *(const u8 *)from;
#endif
	return byte;
}

static __always_inline void copy_bytes(struct sample *one, u64 from)
{
#if READER == READER_PROBE
	u32 size = one->captured;

	if (size > SAMPLE_BYTES)
		size = SAMPLE_BYTES;
	if (bpf_probe_read_kernel(one->bytes, size, (void *)from))
		one->captured = 0;
#else
	/* whole words, past the end of the packet, too: user space takes what was captured */
	const u64 *words = (const u64 *)from;
	u64 *to = (u64 *)one->bytes;

#if READER == READER_CAST
	words = rdonly_cast(words, CAST_TYPE);
#endif
#pragma unroll
	for (int i = 0; i < SAMPLE_BYTES / 8; i++)
		to[i] = words[i];
#endif
}

/* Can nothing leave by this device: it has no carrier, or is a bridge (the reason says so) without ports? */
static __always_inline bool cannot_send(struct net_device *dev, bool is_bridge)
{
#if HAS_CARRIER
	u64 state = 0, lower = 0;

	LOAD(state, dev->state);
	if (state >> NO_CARRIER_BIT & 1)
		return true;
	if (!is_bridge)
		return false;
	LOAD(lower, *(u64 *)&dev->adj_list_lower_next);
	return lower == (u64)&dev->adj_list_lower_next; /* list_empty(), include/linux/list.h */
#else
	return false;
#endif
}

/* Is the Ethernet frame, on its way out, for a group? Nothing but its address says so by then. */
static __always_inline bool is_sent_to_group(struct sk_buff *skb, struct net_device *dev)
{
#if READER
	u64 head = 0;
	u16 mac = NO_MAC_HEADER, type = NO_DEVICE_TYPE;

	LOAD(type, dev->type);
	LOAD(mac, skb->mac_header);
	LOAD(head, *(u64 *)&skb->head);
	return type == ETHER_TYPE && mac != NO_MAC_HEADER && first_byte(head + mac) & 1; /* is_multicast_ether_addr() */
#else
	return false;
#endif
}

/* Eight bytes of a packet, as a number of which the first byte is the highest. */
static __always_inline u64 eight_bytes(u64 from)
{
	u64 found = 0;

#if READER == READER_PROBE
	bpf_probe_read_kernel(&found, sizeof(found), (void *)from);
#elif READER == READER_CAST
	found = *(u64 *)rdonly_cast((void *)from, CAST_TYPE);
#else
	found = *(u64 *)from;
#endif
	return __builtin_bswap64(found);
}

/* Where a packet is: offsets from `head` on. */
struct extent {
	u64 head;
	u32 start; /* of the packet */
	u32 tail;
	u32 data;      /* skb->data: how far the packet had got */
	u32 length;    /* of the packet from `start` on, in what the skb has and elsewhere */
	u32 network;   /* header */
	u32 transport; /* header */
	u32 vlan;      /* tag that the device took out, as in struct sample */
	u16 protocol;  /* skb->protocol, in network order */
	bool has_mac;  /* `start` is a MAC header */
};

/*
 * The members of struct sk_buff that tell it lie within a hundred bytes, from `len` to `data`, on every kernel seen:
 * where each load is a call, one is for all of them.
 */
#define SPAN_MOST 128
#define SPAN_FROM (__builtin_offsetof(struct sk_buff, len) & ~7UL)
#define SPAN_AT(member) (__builtin_offsetof(struct sk_buff, member) - SPAN_FROM)
#define SPAN (SPAN_AT(data) + 8)
#define IN_SPAN(member) (SPAN_AT(member) < SPAN_AT(data))
#if HAS_VLAN
#define VLAN_IN_SPAN IN_SPAN(vlan_all)
#else
#define VLAN_IN_SPAN 1
#endif
#define HAS_SPAN                                                                                                  \
	(SAFE_READ && SPAN <= SPAN_MOST && IN_SPAN(head) && IN_SPAN(tail) && IN_SPAN(len) && IN_SPAN(protocol) && \
	 IN_SPAN(mac_header) && IN_SPAN(network_header) && IN_SPAN(transport_header) && VLAN_IN_SPAN)
#define LOAD_MEMBER(to, member)                                               \
	do {                                                                  \
		if (HAS_SPAN)                                                 \
			to = *(typeof(to) *)((void *)span + SPAN_AT(member)); \
		else                                                          \
			LOAD(to, *(typeof(to) *)&skb->member);                \
	} while (0)

/*
 * Where a packet begins is not skb->data, which is wherever the packet had got to: it is the MAC header, else the
 * network header, if they lie in what the skb has; else there is nothing better than skb->data. Some leave a header as
 * another packet had it; headers of which the order is wrong are therefore no headers.
 */
static __always_inline void set_extent(struct extent *of, struct sk_buff *skb)
{
	u64 span[SPAN_MOST / 8];
	u64 head = 0, data = 0;
	u32 tail = 0, at, start, length = 0, vlan = 0;
	u16 mac = 0, network = 0, transport = 0, protocol = 0;

	if (HAS_SPAN)
		bpf_probe_read_kernel(span, SPAN, (void *)skb + SPAN_FROM);
	LOAD_MEMBER(head, head);
	LOAD_MEMBER(data, data);
	LOAD_MEMBER(tail, tail);
	LOAD_MEMBER(mac, mac_header);
	LOAD_MEMBER(network, network_header);
	LOAD_MEMBER(transport, transport_header);
	LOAD_MEMBER(protocol, protocol);
	LOAD_MEMBER(length, len);
#if HAS_VLAN
	LOAD_MEMBER(vlan, vlan_all);
#endif
	at = data - head;
	if (network && network <= tail && (mac == NO_MAC_HEADER || mac <= network))
		start = mac == NO_MAC_HEADER ? network : mac;
	else
		start = mac != NO_MAC_HEADER && mac <= at ? mac : at;
	of->head = head;
	of->start = start;
	of->tail = tail;
	of->data = at;
	of->length = length + at - start;
	of->network = network;
	of->transport = transport;
	of->vlan = vlan;
	of->protocol = protocol;
	of->has_mac = mac == start;
}

static __always_inline void set_bytes(struct sample *one, struct sk_buff *skb)
{
	struct extent of;
	u32 there;

	set_extent(&of, skb);
	if (of.has_mac)
		one->flags |= SAMPLE_HAS_MAC;
	one->vlan = of.vlan;
	one->network = of.network - of.start;
	one->transport = of.transport - of.start;
	one->data = of.data - of.start;
	one->length = of.length;
	there = of.tail > of.start ? of.tail - of.start : 0;
	one->captured = there < SAMPLE_BYTES ? there : SAMPLE_BYTES;
	copy_bytes(one, of.head + of.start);
}

/* The inode of a socket that may be a whole struct sock; 0: unknown, or nobody has a descriptor of it. */
static __always_inline u64 inode_of(struct sock *sk)
{
	u64 number = 0;
#if HAS_INODE
	struct socket *socket = NULL;
	struct file *file = NULL;
	struct inode *inode = NULL;
	u8 state = 0;

	LOAD(state, sk->sk_common_skc_state);
	if (state == TIME_WAIT || state == NEW_SYN_RECV)
		return 0;
	LOAD(socket, sk->sk_socket);
	if (socket)
		LOAD(file, socket->file);
	if (file)
		LOAD(inode, file->f_inode);
	if (inode)
		LOAD(number, inode->i_ino);
#endif
	return number;
}

static __always_inline void set_socket(struct sample *one, struct sock *sk)
{
	u16 remote = 0;

	LOAD(one->family, sk->sk_common_skc_family);
	LOAD(one->state, sk->sk_common_skc_state);
	LOAD(one->local_port, sk->sk_common_skc_num);
	LOAD(remote, sk->sk_common_skc_dport);
	one->remote_port = FROM_NETWORK16(remote);
	if (one->state == TIME_WAIT || one->state == NEW_SYN_RECV)
		return;
	LOAD(one->protocol, sk->sk_protocol);
	one->inode = inode_of(sk);
#if HAS_CGROUP
	struct cgroup *cgroup = NULL;
	struct kernfs_node *node = NULL;

	LOAD(cgroup, sk->sk_cgrp_data_cgroup);
	if (cgroup)
		LOAD(node, cgroup->kn);
	if (node)
		LOAD(one->cgroup, node->id);
#endif
}

static __always_inline void fill_sample(struct sample *one, const struct drop_key *key, struct sk_buff *skb,
					struct sock *rx_sk, const struct origin *from, void *ctx)
{
	struct sock *sk = rx_sk;

	one->time = bpf_ktime_get_ns();
	one->key = *key;
	one->cgroup = 0;
	one->inode = 0;
	one->device_type = NO_DEVICE_TYPE;
	one->family = 0;
	one->local_port = 0;
	one->remote_port = 0;
	one->protocol = 0;
	one->state = 0;
	one->flags = rx_sk ? SAMPLE_FOR_SOCKET : 0;
	LOAD(one->iif, skb->skb_iif);
	if (from->dev)
		LOAD(one->device_type, from->dev->type);
	if (!sk)
		LOAD(sk, skb->sk);
	if (sk)
		set_socket(one, sk);
	set_bytes(one, skb);
#if STACK_FRAMES
	bpf_get_stack(ctx, one->stack, sizeof(one->stack), 0); /* makes zeros of what it does not fill, or of all */
#endif
}
