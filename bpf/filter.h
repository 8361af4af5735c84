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
#define LINK_WORDS 5	  /* of eight bytes: up to the ports of IPv4 */
#define LONGEST_HEADER 64 /* bytes that VLAN tags and the like may make of a link's header */

/*
 * A packet as Ethernet has it on the wire, for which the filter is written: with the VLAN tag that a device took out,
 * and with an ethertype where there is no such header. pktdrop/samples/frame.py makes the same of a sample.
 */
struct frame {
	u64 link[LINK_WORDS]; /* the first bytes, each eight as a number of which the first byte is the highest */
	u32 length;	      /* of the whole frame */
	u32 captured;	      /* how many bytes there are to look at */
	u32 unused;
	u32 first; /* the first byte that there is: ADDRESSES where there are none */
};

_Static_assert(sizeof(struct frame) == 56, "struct frame is what classic.py takes it for");

/* Bytes of the frame behind those are where `bytes` plus their offset points. */
#define CALL_OF_FILTER 0x7fff0002 /* in place of the distance to it, see programs.py */
static u64 (*filter)(const struct frame *frame, u64 bytes) = (void *)CALL_OF_FILTER;

/* The first bytes of a packet, each eight as a number of which the first byte is the highest. */
static __always_inline void load_words(u64 *words, u64 from)
{
#if READER == READER_PROBE
	bpf_probe_read_kernel(words, 8 * LINK_WORDS, (void *)from);
#else
	const u64 *there = (const u64 *)from;

#if READER == READER_CAST
	there = rdonly_cast(there, CAST_TYPE);
#endif
#pragma unroll
	for (int i = 0; i < LINK_WORDS; i++)
		words[i] = there[i];
#endif
#pragma unroll
	for (int i = 0; i < LINK_WORDS; i++)
		words[i] = __builtin_bswap64(words[i]);
}

/* ARPHRD_* of devices with Ethernet headers: Ethernet itself, loopback, 802.11; include/uapi/linux/if_arp.h. */
static __always_inline bool is_ethernet(u16 type)
{
	return type == NO_DEVICE_TYPE || type == 1 || type == 772 || type == 801 || type == 802 || type == 803;
}

/* The first bytes of a frame that has a header, with the tag where it was if it is not 0. */
static __always_inline void set_link(struct frame *frame, const u64 *words, u32 tag)
{
	frame->link[0] = words[0];
	frame->link[1] = tag ? words[1] >> 32 << 32 | tag : words[1];
#pragma unroll
	for (int i = 2; i < LINK_WORDS; i++)
		frame->link[i] = tag ? words[i - 1] << 32 | words[i] >> 32 : words[i];
}

/* The same of a packet from its network header on: bytes 12 to 15 are the tag, or it begins at byte 14. */
static __always_inline void make_link(struct frame *frame, const u64 *words, u32 tag, u64 protocol)
{
	frame->link[0] = 0;
	frame->link[1] = tag ? tag : protocol << 16 | words[0] >> 48;
	frame->link[2] = tag ? protocol << 48 | words[0] >> 16 : words[0] << 16 | words[1] >> 48;
#pragma unroll
	for (int i = 3; i < LINK_WORDS; i++)
		frame->link[i] =
			tag ? words[i - 3] << 48 | words[i - 2] >> 16 : words[i - 2] << 16 | words[i - 1] >> 48;
}

static __always_inline bool matches_filter(struct sk_buff *skb, const struct origin *from)
{
	struct frame frame = {};
	struct extent of;
	u64 words[LINK_WORDS];
	u16 type = NO_DEVICE_TYPE;
	u32 tag, start, added;
	s16 network;
	bool has_header;

	set_extent(&of, skb);
	if (from->dev)
		LOAD(type, from->dev->type);
	network = of.network - of.start;
	has_header = of.has_mac && is_ethernet(type) && (network >= ETHERNET_HEADER || network < 0);
	start = of.start + (!has_header && network > 0 && network <= LONGEST_HEADER ? network : 0);
	tag = of.vlan & 0xffff ? __builtin_bswap16(of.vlan) << 16 | of.vlan >> 16 : 0;
	load_words(words, of.head + start);
	if (has_header)
		set_link(&frame, words, tag);
	else
		make_link(&frame, words, tag, __builtin_bswap16(of.protocol));
	frame.first = has_header ? 0 : ADDRESSES;
	added = (has_header ? 0 : ETHERNET_HEADER) + (tag ? TAG : 0);
	frame.length = of.length - (start - of.start) + added;
	start -= added;
	frame.captured = (s32)(of.tail - start) > 0 ? of.tail - start : 0;
	return filter(&frame, of.head + start);
}
