/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/*
 * Count every freed skb that the tracepoint skb:kfree_skb reports, in the kernel, by reason, call site, CPU, interface,
 * namespace and ethertype.
 *
 * What it cannot see: frames lost before an skb exists (NIC FIFO, RX ring; of XDP, see xdp.c), and skbs that a call
 * site frees with consume_skb(). Those show in counters only.
 *
 * Compiled with bcc behind the layouts of struct sk_buff and others, made from the running kernel; set from outside:
 *   SAFE_READ    how kernel memory is read, see reads.h
 *   ARGUMENTS    number of arguments of the tracepoint: 2 (skb, location), 3 (+ reason), 4 (+ rx_sk)
 *   NETNS_COOKIE 1 where struct net has a cookie that tells namespaces apart; else their inodes have to do
 *   NESTS        1 where the kernel lets a program interrupt itself on a CPU, so that adding must be atomic
 *   IS_KNOWN_PROTOCOL(protocol)  1 for those of pktdrop/data/ethertypes.tsv
 *   MAY_BE_TO_GROUP(reason)  1 where it matters whether the frame came for a group
 *   MAY_BE_UNSENT(reason)    1 where it matters whether it was to leave for a group, and could not leave at all
 *   HAS_NO_PORT(reason)      1 where a bridge without ports gives it
 *   READER and more, see samples.h
 *   FILTER       1 where there is a filter of packets, see filter.h
 *   IS_QDISC_DROP(reason)   1 where the tracepoint qdisc_drop may have told more, see at_qdisc_drop()
 *   QDISC_GENERIC           what that tells where there is no more to tell
 *   XDP          1 where what ends in XDP can be counted, see xdp.c
 *   MAY_BE_OF_XDP(reason)   1 where an skb may have been freed for what XDP said of it
 *   MAY_BE_BACKLOG(reason)  0 where the reason says that the skb was not freed inside enqueue_to_backlog()
 */
#include <uapi/linux/ptrace.h>

#include "samples.h"
#if FILTER
#include "filter.h"
#endif
#if FLOWS
#include "flows.h"
#endif

BPF_TABLE("hash", struct drop_key, struct drop_value, drops, 65536);
BPF_TABLE("hash", struct drop_key, struct drop_value, other_places, 4096); /* made with more for more CPUs */
BPF_TABLE("hash", u64, struct rare_protocols, rare_protocols_of_call_site, 4096);
BPF_ARRAY(hot_drops, struct hot_drop, HOT_DROPS); /* made with as many for each section */
BPF_ARRAY(hot_claims, u64, 1);			  /* made with one for each section */
BPF_ARRAY(uncounted, u64, 1);			  /* made with one for each CPU */
BPF_ARRAY(controls, struct control, 1);
BPF_PERCPU_ARRAY(cpu_states, struct cpu_state, 1);

#if READER
BPF_ARRAY(sample_cpus, struct sample_cpu, 1); /* made with one for each CPU */

/* As BPF_RINGBUF_OUTPUT() would be, which wants its size in pages. */
struct sample_ring_table_t {
	int key;
	u32 leaf;
	void *(*ringbuf_reserve)(u64);
	void (*ringbuf_submit)(void *, u64);
	u32 max_entries;
};
__attribute__((section("maps/ringbuf"))) struct sample_ring_table_t sample_ring = {.max_entries = SAMPLE_RING};
#endif

#if FLOWS
BPF_TABLE("hash", struct flow_key, struct flow_value, flows, FLOWS_MOST);
BPF_TABLE("hash", struct drop_key, struct flow_value, other_flows, 4096); /* made with one for each kind */
#endif

#if NESTS
#define ADD(to, value) __sync_fetch_and_add(&(to), value)
#else
#define ADD(to, value) ((to) += (value))
#endif

/*
 * The target CPU of the enqueue_to_backlog() call that this CPU is in with this very skb. A call leaves its record
 * behind, so the caller must know from the reason or the location that the skb is freed inside that function.
 */
static __always_inline u16 target_cpu(const struct cpu_state *state, struct sk_buff *skb)
{
	return state->backlog_skb == (u64)skb ? state->target_cpu : NO_CPU;
}

static __always_inline void set_target_cpu(void *skb, u32 cpu)
{
	int zero = 0;
	struct cpu_state *state = cpu_states.lookup(&zero);

	if (!state)
		return;
	state->backlog_skb = (u64)skb;
	state->target_cpu = cpu;
}

static __always_inline struct drop_value *new_entry(struct drop_key *key, const struct origin *from)
{
	struct drop_value first = {};

	set_names(&first, from);
	/* refused where an interrupt on this CPU was faster (look again) or the map is full */
	drops.insert(key, &first);
	return drops.lookup(key);
}

/*
 * Where a drop is counted that found no room in the map: by all of its key but namespace and interface, of which a host
 * can have any number. What is left is bounded by the kernel's text, its CPUs and bounded_protocol().
 */
static __always_inline struct drop_value *other_place(struct drop_key *key)
{
	struct drop_value first = {};
	struct drop_value *value;

	key->call_site = ANY_BANK(key->call_site);
	key->netns = 0;
	key->ifindex = 0;
	value = other_places.lookup(key);
	if (value)
		return value;
	other_places.insert(key, &first);
	return other_places.lookup(key);
}

/* The last resort: never reached so far. */
static __always_inline void count_uncounted(void)
{
	int cpu = bpf_get_smp_processor_id();
	u64 *packets = uncounted.lookup(&cpu);

	if (packets)
		ADD(*packets, 1);
}

/*
 * The protocol to count by. Senders choose it freely, and must not make more kinds of drops than the host has call
 * sites: beyond the known ones, a call site counts the first few by themselves, and all others together.
 */
static __always_inline u16 bounded_protocol(u64 call_site, u16 protocol)
{
	struct rare_protocols none = {};
	struct rare_protocols *rare;

	if (!protocol || IS_KNOWN_PROTOCOL(protocol))
		return protocol;
	rare = rare_protocols_of_call_site.lookup(&call_site);
	if (!rare) {
		rare_protocols_of_call_site.insert(&call_site, &none);
		rare = rare_protocols_of_call_site.lookup(&call_site);
	}
	if (!rare)
		return OTHER_PROTOCOL;
#pragma unroll
	for (int i = 0; i < FEW_PROTOCOLS; i++) {
		if (!rare->protocols[i])
			rare->protocols[i] = protocol;
		if (rare->protocols[i] == protocol)
			return protocol;
	}
	return OTHER_PROTOCOL;
}

static __always_inline bool is_same(const struct drop_key *one, const struct drop_key *other)
{
	return one->call_site == other->call_site && one->netns == other->netns && one->ifindex == other->ifindex &&
	       one->reason == other->reason && one->target_cpu == other->target_cpu && one->protocol == other->protocol;
}

static __always_inline void claim(struct hot_drop *hot, struct drop_key *key, const struct origin *from)
{
	int section = SECTION_OF(key->call_site);
	u64 *claims = hot_claims.lookup(&section);

	if (claims)
		*claims += 1; /* a reader looks into the sections that have some */
	set_names(&hot->value, from);
	hot->key.netns = key->netns;
	hot->key.ifindex = key->ifindex;
	hot->key.reason = key->reason;
	hot->key.target_cpu = key->target_cpu;
	hot->key.protocol = key->protocol;
	asm volatile("" ::: "memory"); /* a reader takes an entry with a call site for a whole one */
	hot->key.call_site = key->call_site;
}

/*
 * The entry of a key in the table in front of the map, or NULL where other keys of this CPU came first. Finding it
 * takes no call into the kernel, which looking into a hash map takes four of; and user space reads the table without
 * one: see pktdrop/kernel/banks.py. An entry is given up with its whole bank only, so a key is in one entry only; the
 * CPU is part of the key, so no other CPU writes it.
 */
static __always_inline struct drop_value *hot_value(struct drop_key *key, const struct origin *from)
{
	u64 mixed = key->call_site ^ ((u64)key->ifindex << 32 | key->netns) ^ ((u64)key->protocol << 32 | key->reason);
	u32 first = mixed * 0x9e3779b97f4a7c15 >> (64 - HOT_BITS);
	struct hot_drop *hot = NULL;

#pragma unroll
	for (int probe = 0; probe < HOT_PROBES; probe++) {
		int index = SECTION_OF(key->call_site) << HOT_BITS | ((first + probe) & (HOT_DROPS - 1));

		hot = hot_drops.lookup(&index);
		if (!hot)
			return NULL;
		if (is_same(&hot->key, key))
			return &hot->value;
		if (!hot->key.call_site)
			goto unused;
	}
	return NULL;
unused:
	claim(hot, key, from);
	return &hot->value;
}

/*
 * Copy a packet, if its kind and this CPU may take one more until the next look. Nobody is woken up: user space reads
 * the ring when it looks.
 */
static __always_inline void take_sample(struct drop_value *value, const struct drop_key *key,
					const struct control *control, struct sk_buff *skb, struct sock *rx_sk,
					const struct origin *from, void *ctx)
{
#if READER
	int cpu = CPU_OF(key->call_site);
	struct sample_cpu *here = sample_cpus.lookup(&cpu);
	struct sample *one;

	if (!here)
		return;
	if (!IS_BEYOND(here->taken, control->cpu_floor))
		here->taken = control->cpu_floor;
	if (!IS_BEYOND(value->taken, control->kind_floor))
		value->taken = control->kind_floor;
	if (IS_BEYOND(here->taken, control->cpu_limit) ||
	    (IS_BEYOND(here->taken, control->cpu_scarce) && value->taken != control->kind_floor)) {
		ADD(here->refused, 1);
		return;
	}
	one = sample_ring.ringbuf_reserve(sizeof(*one));
	if (!one) {
		ADD(here->full, 1);
		return;
	}
	here->taken += 1;
	value->taken += 1;
	fill_sample(one, key, skb, rx_sk, from, ctx);
	sample_ring.ringbuf_submit(one, BPF_RB_NO_WAKEUP);
#endif
}

/* The entry of a key in the map, or in the table of other places. */
static __always_inline struct drop_value *entry_in_map(struct drop_key *key, const struct origin *from)
{
	struct drop_value *value = drops.lookup(key);

	if (!value)
		value = new_entry(key, from);
	if (!value)
		value = other_place(key);
	if (!value)
		count_uncounted();
	return value;
}

/*
 * Count a drop by more than its key: what finds no room counts by that alone, which every key has room for. The key has
 * a CPU, so no other adds to an entry.
 */
static __always_inline void count_flow(const struct drop_key *key, struct sk_buff *skb, struct sock *rx_sk, u32 length)
{
#if FLOWS
	struct flow_value none = {};
	struct flow_key flow = {};
	struct flow_value *value;

	flow.kind = *key;
	set_flow(&flow, skb, rx_sk, key->protocol);
	value = flows.lookup(&flow);
	if (!value) {
		flows.insert(&flow, &none);
		value = flows.lookup(&flow);
	}
	if (!value) {
		other_flows.insert((struct drop_key *)key, &none);
		value = other_flows.lookup((struct drop_key *)key);
	}
	if (!value)
		return;
	ADD(value->packets, 1);
	ADD(value->bytes, length);
#endif
}

static __always_inline void count(struct drop_key *key, struct sk_buff *skb, struct sock *rx_sk,
				  const struct origin *from, const struct control *control, void *ctx)
{
	/* while an entry is claimed, another run on this CPU must not claim it */
	struct drop_value *value = NESTS ? NULL : hot_value(key, from);
	u32 len = 0;

	if (!value)
		value = entry_in_map(key, from);
	if (!value)
		return;
	LOAD(len, skb->len);
	ADD(value->packets, 1);
	ADD(value->bytes, len);
	if (FILTER && key->reason & NO_MATCH)
		return; /* nobody looks at these */
	count_flow(key, skb, rx_sk, len);
	if (READER && __builtin_expect(!IS_BEYOND(value->taken, control->kind_limit), 0))
		take_sample(value, key, control, skb, rx_sk, from, ctx);
}

/*
 * Was the frame for a group, where that decides whether it is a loss? Either it came for one, by the device that it is
 * still on: before Linux 5.17, no reason tells that from a frame on its way out. Or it could not leave for one.
 */
static __always_inline bool is_for_group(const struct drop_key *key, struct sk_buff *skb, struct net_device *dev)
{
	u32 iif = 0;

	if (MAY_BE_TO_GROUP(key->reason)) {
		LOAD(iif, skb->skb_iif);
		if (iif == key->ifindex && is_to_group(skb))
			return true;
	}
	return MAY_BE_UNSENT(key->reason) && cannot_send(dev, HAS_NO_PORT(key->reason)) && is_sent_to_group(skb, dev);
}

/* Was an skb that was freed next counted when XDP ended it? If it was not, set the reason that XDP had. */
static __always_inline bool is_counted_in_xdp(struct cpu_state *state, struct drop_key *key, struct sk_buff *skb,
					      const struct origin *from)
{
	bool is_same = (u64)from->dev == state->xdp_dev && MAY_BE_OF_XDP(key->reason);
	u32 iif = 0;

	state->xdp_dev = 0;
	if (!is_same)
		return false;
	if (state->xdp_reason) {
		key->reason = state->xdp_reason;
		return false;
	}
	LOAD(iif, skb->skb_iif);
	return iif != key->ifindex; /* the stack, which would have set it, has not had it yet */
}

/* Tracepoint skb:kfree_skb(skb, location[, reason[, rx_sk]]), by BTF-typed or plain raw tracepoint. */
int count_kfree_skb(u64 *ctx)
{
	int zero = 0;
	struct cpu_state *state = cpu_states.lookup(&zero);
	struct control *control = controls.lookup(&zero);
	struct sk_buff *skb = (struct sk_buff *)ctx[0];
	struct drop_key key = {};
	struct sock *rx_sk = NULL;
	struct origin from;
	u16 protocol = 0;

	if (!state || !control) /* never: the arrays have their one entry, but the verifier cannot know */
		return 0;
	key.call_site = CALL_SITE(ctx[1], SECTION(bpf_get_smp_processor_id(), control->active_bank));
#if ARGUMENTS > 2
	key.reason = ctx[2];
#endif
#if ARGUMENTS > 3
	rx_sk = (struct sock *)ctx[3];
#endif
	key.target_cpu = MAY_BE_BACKLOG(key.reason) ? target_cpu(state, skb) : NO_CPU;
	LOAD(protocol, skb->protocol);
	key.protocol = bounded_protocol(ANY_BANK(key.call_site), FROM_NETWORK16(protocol));
	from = set_scope(&key, skb, rx_sk, &state->netns);
	if (state->xdp_dev && is_counted_in_xdp(state, &key, skb, &from))
		return 0;
	if (from.dev && is_for_group(&key, skb, from.dev))
		key.reason |= TO_GROUP;
	if (IS_QDISC_DROP(key.reason) && state->qdisc_skb == (u64)skb) {
		state->qdisc_skb = 0;			  /* another skb may have that address next */
		if (state->qdisc_reason != QDISC_GENERIC) /* which says no more than QDISC_DROP does */
			key.reason = state->qdisc_reason;
	}
#if FILTER
	if (!matches_filter(skb, &from))
		key.reason |= NO_MATCH;
#endif
	count(&key, skb, rx_sk, &from, control, ctx);
	return 0;
}

/* enqueue_to_backlog(skb, cpu, qtail) is entered. */
int backlog_fentry(u64 *ctx)
{
	set_target_cpu((void *)ctx[0], ctx[1]);
	return 0;
}

int backlog_kprobe(struct pt_regs *ctx)
{
	set_target_cpu((void *)PT_REGS_PARM1(ctx), PT_REGS_PARM2(ctx));
	return 0;
}
