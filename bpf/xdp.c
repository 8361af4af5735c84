/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/*
 * Frames that end in XDP, before there is an skb or without one, by the tracepoints of include/trace/events/xdp.h; what
 * a program drops on purpose (XDP_DROP) has none. Compiled behind drops.c: bcc rewrites both as one.
 *
 * Their programs may interrupt count_kfree_skb(), which alone writes the table in front of the map.
 */
#define ACTION_ABORTED 0 /* enum xdp_action, include/uapi/linux/bpf.h */
#define ACTION_TX 3
#define ACTION_REDIRECT 4

static __always_inline void count_frames(struct net_device *dev, u32 reason, u64 frames)
{
	int zero = 0;
	struct control *control = controls.lookup(&zero);
	struct drop_key key = {};
	struct drop_value *value;
	struct origin from;

	if (!control)
		return;
	key.call_site = CALL_SITE(0, SECTION(bpf_get_smp_processor_id(), control->active_bank));
	key.reason = FILTER ? reason | NO_MATCH : reason; /* there is nothing to look into */
	key.target_cpu = NO_CPU;
	from = set_device(&key, dev);
	value = entry_in_map(&key, &from);
	if (value)
		ADD(value->packets, frames);
}

/*
 * One frame ended. Where it is an skb, count_kfree_skb() comes next on this CPU: with generic XDP always, and then that
 * counts it, under this reason; else in some drivers (veth, tun), and then it is counted here, and not again.
 */
static __always_inline void count_frame(struct net_device *dev, u32 reason, bool may_be_skb)
{
	int zero = 0;
	struct cpu_state *state = cpu_states.lookup(&zero);
	bool is_generic = has_generic_xdp(dev);

	if (!is_generic)
		count_frames(dev, reason, 1);
	if (!state || !(is_generic || may_be_skb))
		return;
	state->xdp_reason = is_generic ? reason : 0;
	state->xdp_dev = (u64)dev;
}

/* xdp:xdp_exception(dev, prog, act) */
int at_xdp_exception(u64 *ctx)
{
	u32 action = ctx[2];

	if (action == ACTION_REDIRECT) /* some drivers say so again of what xdp_redirect_err said */
		return 0;
	count_frame((struct net_device *)ctx[0],
		    action == ACTION_ABORTED ? REASON_XDP_ABORTED
		    : action == ACTION_TX    ? REASON_XDP_TX_ERR
					     : REASON_XDP_INVALID_ACTION,
		    true);
	return 0;
}

/* xdp:xdp_redirect_err(dev, prog, target, err, ...) */
int at_xdp_redirect_err(u64 *ctx)
{
	count_frame((struct net_device *)ctx[0], REASON_XDP_REDIRECT_ERR, false);
	return 0;
}

/* xdp:xdp_devmap_xmit(from, to, sent, drops, err), of up to 16 frames */
int at_xdp_devmap_xmit(u64 *ctx)
{
	s32 drops = ctx[3];

	if (drops > 0)
		count_frames((struct net_device *)ctx[1], REASON_XDP_DEVMAP_XMIT, drops);
	return 0;
}

/* xdp:xdp_bulk_tx(dev, sent, drops, err), of up to 16 frames */
int at_xdp_bulk_tx(u64 *ctx)
{
	s32 drops = ctx[2];

	if (drops > 0)
		count_frames((struct net_device *)ctx[0], REASON_XDP_BULK_TX, drops);
	return 0;
}

/*
 * qdisc:qdisc_drop(qdisc, queue, dev, skb, reason), of Linux 7.1 and later: why a queueing discipline frees an skb,
 * which it then does as QDISC_DROP.
 */
int at_qdisc_drop(u64 *ctx)
{
	int zero = 0;
	struct cpu_state *state = cpu_states.lookup(&zero);

	if (!state)
		return 0;
	state->qdisc_skb = ctx[3];
	state->qdisc_reason = ctx[4];
	return 0;
}
