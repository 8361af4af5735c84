/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/*
 * Counts by more than the place of a drop: by port, address, flow or socket. What is read of a packet is bounded by
 * what the skb has; a packet that cannot be read counts with all of it 0.
 *
 * FLOWS  what to count by, FLOWS_* of drops.h; only with a READER
 */
#pragma once

#include "samples.h"

#define ETH_P_IPV4 0x0800 /* include/uapi/linux/if_ether.h */
#define ETH_P_IPV6 0x86dd
#define HOP_BY_HOP 0 /* extension headers of IPv6: RFC 8200 */
#define ROUTING 43
#define FRAGMENT 44
#define DESTINATION_OPTIONS 60
#define EXTENSIONS 4 /* that are gone through, at most */
#define FRAGMENT_OFFSET 0x1fff

static __always_inline bool has_ports(u8 protocol)
{
	return protocol == 6 || protocol == 17 || protocol == 33 || protocol == 132 || protocol == 136;
}

/* The first 32 bits of what IP carries, where these are ports. */
static __always_inline void set_ports(struct flow_key *flow, const struct extent *of, u32 at)
{
	u64 ports;

	if (at + 4 > of->tail || !has_ports(flow->protocol))
		return;
	ports = eight_bytes(of->head + at) >> 32;
	if (FLOWS == FLOWS_FLOW)
		flow->source_port = ports >> 16;
	flow->destination_port = ports;
}

static __always_inline void set_ipv4(struct flow_key *flow, const struct extent *of, u32 at)
{
	u64 first, second;

	if (at + 20 > of->tail)
		return;
	first = eight_bytes(of->head + at);
	second = eight_bytes(of->head + at + 8);
	if (first >> 60 != 4)
		return;
	flow->version = 4;
	flow->protocol = second >> 48;
	if (FLOWS == FLOWS_SOURCE || FLOWS == FLOWS_FLOW)
		flow->source[1] = (u32)second;
	if (FLOWS != FLOWS_SOURCE && FLOWS != FLOWS_PORT)
		flow->destination[1] = eight_bytes(of->head + at + 16) >> 32;
	if (!(first & FRAGMENT_OFFSET))
		set_ports(flow, of, at + (first >> 56 & 15) * 4);
}

static __always_inline void set_ipv6(struct flow_key *flow, const struct extent *of, u32 at)
{
	u64 next, first;
	u8 protocol;

	if (at + 40 > of->tail)
		return;
	first = eight_bytes(of->head + at);
	if (first >> 60 != 6)
		return;
	flow->version = 6;
	if (FLOWS == FLOWS_SOURCE || FLOWS == FLOWS_FLOW) {
		flow->source[0] = eight_bytes(of->head + at + 8);
		flow->source[1] = eight_bytes(of->head + at + 16);
	}
	if (FLOWS != FLOWS_SOURCE && FLOWS != FLOWS_PORT) {
		flow->destination[0] = eight_bytes(of->head + at + 24);
		flow->destination[1] = eight_bytes(of->head + at + 32);
	}
	protocol = first >> 8;
	at += 40;
#pragma unroll
	for (int i = 0; i < EXTENSIONS; i++) {
		if (at + 8 > of->tail)
			break;
		if (protocol == FRAGMENT) {
			next = eight_bytes(of->head + at);
			protocol = next >> 56;
			flow->protocol = protocol;
			at += 8;
			if (next >> 35 & FRAGMENT_OFFSET)
				return; /* ports are in another fragment */
		} else if (protocol == HOP_BY_HOP || protocol == ROUTING || protocol == DESTINATION_OPTIONS) {
			next = eight_bytes(of->head + at);
			protocol = next >> 56;
			at += ((next >> 48 & 255) + 1) * 8;
		}
	}
	flow->protocol = protocol;
	set_ports(flow, of, at);
}

/* What a drop is counted by, besides its key. */
static __always_inline void set_flow(struct flow_key *flow, struct sk_buff *skb, struct sock *rx_sk, u16 protocol)
{
	struct sock *sk = rx_sk;
	struct extent of;

	if (FLOWS == FLOWS_PROCESS) {
		if (!sk)
			LOAD(sk, skb->sk);
		flow->is_for_socket = !!rx_sk;
		flow->inode = sk ? inode_of(sk) : 0;
		if (flow->inode)
			return;
	}
	set_extent(&of, skb);
	if (protocol == ETH_P_IPV4)
		set_ipv4(flow, &of, of.network);
	else if (protocol == ETH_P_IPV6)
		set_ipv6(flow, &of, of.network);
	if (FLOWS == FLOWS_SOURCE || FLOWS == FLOWS_DESTINATION) {
		flow->protocol = 0;
		flow->destination_port = 0;
	}
}
