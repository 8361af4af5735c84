/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/*
 * The user's filter: which packets match an expression of pcap-filter(7). pktdrop/kernel/classic.py makes a function of
 * it, which is put behind the program when that is loaded; here is what it looks at.
 *
 * FILTER  1 where there is one; only with a READER
 */
#pragma once

#include "samples.h"

#define ETHERNET_HEADER 14
#define ADDRESSES 12	  /* bytes in front of the ethertype, or of a VLAN tag */
#define TAG 4		  /* bytes of a VLAN tag */
#define LONGEST_HEADER 64 /* bytes that VLAN tags and the like may make of a link's header */

/*
 * A packet as Ethernet has it on the wire, for which the filter is written: with the VLAN tag that a device took out,
 * and with an ethertype where there is no such header. pktdrop/samples/frame.py makes the same of a sample.
 */
struct frame {
	u64 link[3];  /* the first 24 bytes, each eight as a number of which the first byte is the highest */
	u32 length;   /* of the whole frame */
	u32 captured; /* how many bytes there are to look at */
	u32 unused;
	u32 first; /* the first byte that there is: ADDRESSES where there are none */
};

_Static_assert(sizeof(struct frame) == 40, "struct frame is what classic.py takes it for");

/* Bytes of the frame from the 24th on are where `bytes` plus their offset points. */
#define CALL_OF_FILTER 0x7fff0002 /* in place of the distance to it, see programs.py */
static u64 (*filter)(const struct frame *frame, u64 bytes) = (void *)CALL_OF_FILTER;

/* ARPHRD_* of devices with Ethernet headers: Ethernet itself, loopback, 802.11; include/uapi/linux/if_arp.h. */
static __always_inline bool is_ethernet(u16 type)
{
	return type == NO_DEVICE_TYPE || type == 1 || type == 772 || type == 801 || type == 802 || type == 803;
}

static __always_inline bool matches_filter(struct sk_buff *skb, const struct origin *from)
{
	struct frame frame = {};
	struct extent of;
	u16 type = NO_DEVICE_TYPE, protocol = 0;
	u32 vlan = 0, tag = 0, start;
	s16 network;
	u64 bytes;

	set_extent(&of, skb);
	if (from->dev)
		LOAD(type, from->dev->type);
#if HAS_VLAN
	LOAD(vlan, skb->vlan_all);
	if (vlan & 0xffff)
		tag = __builtin_bswap16(vlan) << 16 | vlan >> 16;
#endif
	network = of.network - of.start;
	if (of.has_mac && is_ethernet(type) && (network >= ETHERNET_HEADER || network < 0)) {
		start = of.start;
		bytes = of.head + start;
		frame.link[0] = eight_bytes(bytes);
		frame.link[1] = eight_bytes(bytes + 8);
		frame.link[2] = eight_bytes(bytes + 16);
		if (tag) {
			frame.link[2] = frame.link[1] << 32 | frame.link[2] >> 32;
			frame.link[1] = frame.link[1] >> 32 << 32 | tag;
		}
		frame.length = of.length;
	} else {
		start = of.start + (network > 0 && network <= LONGEST_HEADER ? network : 0);
		bytes = of.head + start;
		LOAD(protocol, skb->protocol);
		protocol = __builtin_bswap16(protocol);
		frame.first = ADDRESSES;
		frame.link[1] = eight_bytes(bytes);
		if (tag) {
			frame.link[2] = (u64)protocol << 48 | frame.link[1] >> 16;
			frame.link[1] = tag;
		} else {
			frame.link[2] = eight_bytes(bytes + 2);
			frame.link[1] = (u64)protocol << 16 | frame.link[1] >> 48;
		}
		frame.length = of.length - (start - of.start) + ETHERNET_HEADER;
		bytes -= ETHERNET_HEADER;
		start -= ETHERNET_HEADER;
	}
	if (tag) {
		frame.length += TAG;
		bytes -= TAG;
		start -= TAG;
	}
	frame.captured = (s32)(of.tail - start) > 0 ? of.tail - start : 0;
	return filter(&frame, bytes);
}
