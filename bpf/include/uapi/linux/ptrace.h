/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/*
 * The registers a kprobe program sees, for the accessors PT_REGS_PARM1.. of bcc/helpers.h.
 * Order as in arch/x86/include/asm/ptrace.h and arch/arm64/include/uapi/asm/ptrace.h; arm64 has both namings, as in
 * its own arch/arm64/include/asm/ptrace.h: bcc 0.26 to 0.35 reads regs[0].
 */
#pragma once

#if defined(__TARGET_ARCH_arm64) || defined(__aarch64__)
struct user_pt_regs {
	unsigned long long regs[31];
	unsigned long long sp;
	unsigned long long pc;
	unsigned long long pstate;
};
struct pt_regs {
	union {
		struct user_pt_regs user_regs;
		struct {
			unsigned long long regs[31];
			unsigned long long sp;
			unsigned long long pc;
			unsigned long long pstate;
		};
	};
};
#else
struct pt_regs {
	unsigned long r15, r14, r13, r12, bp, bx, r11, r10, r9, r8, ax, cx, dx, si, di, orig_ax, ip, cs, flags, sp, ss;
};
#endif
