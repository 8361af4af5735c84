/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/*
 * Reading the kernel's structs. bcc rewrites the main file only, so every read of kernel memory stands here.
 *
 * SAFE_READ 0: typed loads of a BTF program, which the kernel checks and guards against faults (a fault reads 0).
 * SAFE_READ 1: bpf_probe_read_kernel(), for programs without BTF types.
 */
#pragma once

#include "drops.h"

#if SAFE_READ
#define LOAD(to, from) bpf_probe_read_kernel(&(to), sizeof(to), &(from))
#else
#define LOAD(to, from) ((to) = (from))
#endif

/* Host byte order of a 16-bit value in network order, on either kind of machine. */
#define FROM_NETWORK16(value) (__builtin_bswap16(value))

/* Did the frame come for a group, or for all? What the device said of it shares a byte with other bit-fields. */
static __always_inline bool is_to_group(struct sk_buff *skb)
{
	u8 byte = 0;

	LOAD(byte, *((u8 *)skb + PACKET_TYPE_BYTE));
	return PACKET_TYPE(byte) == 1 || PACKET_TYPE(byte) == 2; /* PACKET_BROADCAST, PACKET_MULTICAST: if_packet.h */
}

/*
 * Is this a struct net, and not what a reused field happens to point at? Every namespace owns a
 * loopback device which points back to it; nothing else in memory closes that circle by chance. The address that
 * proved right last is remembered in `known`: most drops are in the namespace of the one before.
 */
static __always_inline bool is_netns(struct net *net, u64 *known)
{
	struct net_device *loopback = NULL;
	struct net *owner = NULL;

	if (!net)
		return false;
	if ((u64)net == *known)
		return true;
	LOAD(loopback, net->loopback_dev);
	if (!loopback)
		return false;
	LOAD(owner, loopback->nd_net_net);
	if (owner != net)
		return false;
	*known = (u64)net;
	return true;
}

/*
 * The namespace of the device that skb->dev points at, or NULL where skb->dev holds something else: the field
 * shares its memory with dev_scratch (UDP receive queue) and an rb-tree node (TCP out-of-order queue,
 * fragments), see struct sk_buff in include/linux/skbuff.h.
 */
static __always_inline struct net *netns_of_dev(struct net_device *dev, u64 *known)
{
	struct net *net = NULL;

	if (!dev)
		return NULL;
	LOAD(net, dev->nd_net_net);
	return is_netns(net, known) ? net : NULL;
}

static __always_inline struct net *netns_of_sock(struct sock *sk, u64 *known)
{
	struct net *net = NULL;

	if (!sk)
		return NULL;
	LOAD(net, sk->sk_common_skc_net_net);
	return is_netns(net, known) ? net : NULL;
}

/*
 * What stands for a namespace in a key: half of its cookie, as 32 bits tell 4 billion namespaces apart. The kernel
 * gives cookies out one by one, to each CPU 4096 at a time (gen_cookie_next() in include/linux/cookie.h); an inode
 * again within seconds.
 */
static __always_inline u32 netns_number(struct net *net)
{
#if NETNS_COOKIE
	u64 cookie = 0;

	LOAD(cookie, net->net_cookie);
	return cookie;
#else
	u32 inode = 0;

	LOAD(inode, net->ns_inum);
	return inode;
#endif
}

/* Where an skb was, proven: its namespace and its device, NULL where it is not known. */
struct origin {
	struct net *net;
	struct net_device *dev;
};

/*
 * Set namespace and interface of a key, and return them: from skb->dev where that is a device; else the namespace of
 * the socket the skb was meant for (rx_sk) or came from, and the interface it was received on, if any. What was loaded
 * once is handed on: each typed load of a pointer costs the verifier a search through all types.
 */
static __always_inline struct origin set_scope(struct drop_key *key, struct sk_buff *skb, struct sock *rx_sk,
					       u64 *known)
{
	struct origin from = {};
	struct net_device *dev = NULL;
	struct sock *sk = rx_sk;
	struct net *net;

	LOAD(dev, skb->dev);
	net = netns_of_dev(dev, known);
	if (net) {
		LOAD(key->ifindex, dev->ifindex);
		from.dev = dev;
	} else {
		if (!sk)
			LOAD(sk, skb->sk);
		net = netns_of_sock(sk, known);
		LOAD(key->ifindex, skb->skb_iif);
	}
	if (net)
		key->netns = netns_number(net);
	from.net = net;
	return from;
}

/* The same of a device that the kernel hands over itself. */
static __always_inline struct origin set_device(struct drop_key *key, struct net_device *dev)
{
	struct origin from = {.dev = dev};

	LOAD(key->ifindex, dev->ifindex);
	LOAD(from.net, dev->nd_net_net);
	if (from.net)
		key->netns = netns_number(from.net);
	return from;
}

/* Does this device leave XDP to the kernel, which has an skb by then? */
static __always_inline bool has_generic_xdp(struct net_device *dev)
{
	u64 program = 0;

#if XDP
	LOAD(program, *(u64 *)&dev->xdp_prog);
#endif
	return program;
}

/* Say of a new entry what it is: the namespace whole, and the name of the interface. */
static __always_inline void set_names(struct drop_value *value, const struct origin *from)
{
	if (from->net) {
		LOAD(value->netns_inode, from->net->ns_inum);
#if NETNS_COOKIE
		LOAD(value->netns_cookie, from->net->net_cookie);
#endif
	}
	if (!from->dev)
		return;
#pragma unroll
	for (int i = 0; i < INTERFACE_NAME_SIZE; i++)
		LOAD(value->interface[i], from->dev->name[i]);
}
