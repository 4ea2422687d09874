//! Processes: made, running another program, ended. What is gone when the agent looks at `/proc` is written down here.
//!
//! Raw tracepoints of the scheduler, which run in process context: fork and end in the process that does it, exec when the
//! new program is in place and has not run yet. So an event is in the ring buffer before the process can send anything.
//!
//! Only whole processes count, not threads. An exec by any thread leaves the process with its pid and start.

use aya_ebpf::helpers::generated::bpf_probe_read_user;
use aya_ebpf::macros::raw_tracepoint;
use aya_ebpf::programs::RawTracePointContext;
use nflog_common::{ARGS_MAX, ImageId, PATHS_MAX, ProcessEvent, Stat, process_event};

use crate::kernel::{Pointer, masked};
use crate::maps::{PROCESS, PROCESS_ARGS, PROCESSES, ProcessWork, count, offset, process_offset};
use crate::{path, task};

/// `PF_KTHREAD`: a thread of the kernel.
const PF_KTHREAD: u32 = 0x0020_0000;

const NOBODY: ImageId = ImageId {
    start_boottime: 0,
    tgid: 0,
    exec_id: 0,
};

/// match-proto: `TP_PROTO(struct task_struct *parent, struct task_struct *child)`
#[raw_tracepoint(tracepoint = "sched_process_fork")]
pub(crate) fn process_fork(ctx: RawTracePointContext) -> u32 {
    let _ = forked(&ctx);
    0
}

/// match-proto: `TP_PROTO(struct task_struct *p, pid_t old_pid, struct linux_binprm *bprm)`
#[raw_tracepoint(tracepoint = "sched_process_exec")]
pub(crate) fn process_exec(ctx: RawTracePointContext) -> u32 {
    let _ = executed(&ctx);
    0
}

/// match-proto: `TP_PROTO(struct task_struct *p)`, since 6.16 with `, bool group_dead`
#[raw_tracepoint(tracepoint = "sched_process_exit")]
pub(crate) fn process_exit(ctx: RawTracePointContext) -> u32 {
    let _ = exited(&ctx);
    0
}

#[inline(always)]
fn forked(ctx: &RawTracePointContext) -> Option<()> {
    let (maker, child) = (Pointer::new(ctx.arg(0))?, Pointer::new(ctx.arg(1))?);
    if child.read::<u32>(offset!(task_pid))? != child.read::<u32>(offset!(task_tgid))?
        || child.read::<u32>(offset!(task_flags))? & PF_KTHREAD != 0
    {
        return Some(());
    }
    count(Stat::Forks);
    let work = work()?;
    begin(process_event::FORK, child, &mut work.event)?;
    task::image(maker, &mut work.event.origin)?;
    parent(child, &mut work.event);
    send(work, 0);
    Some(())
}

#[inline(always)]
fn executed(ctx: &RawTracePointContext) -> Option<()> {
    let process = Pointer::new(ctx.arg(0))?;
    count(Stat::Execs);
    let work = work()?;
    begin(process_event::EXEC, process, &mut work.event)?;
    parent(process, &mut work.event);
    let mm = process.follow(process_offset!(task_mm))?;
    let path = match mm.follow(process_offset!(mm_exe_file)) {
        Some(file) => path::names(file, &mut work.walk, &mut work.text),
        None => 0,
    };
    work.event.path_len = path as u16;
    let cgroup = match task::cgroup_node(process) {
        Some(node) => path::cgroup_names(node, path, &mut work.walk, &mut work.text),
        None => 0,
    };
    work.event.cgroup_len = cgroup as u16;
    let paths = path + cgroup;
    // SAFETY: reads a static; nothing writes it once the program is loaded.
    let args = if unsafe { core::ptr::read_volatile(&raw const PROCESS_ARGS) } == 0 {
        0
    } else {
        arguments(mm, paths, work)
    };
    work.event.args_len = args as u16;
    send(work, paths + args);
    Some(())
}

#[inline(always)]
fn exited(ctx: &RawTracePointContext) -> Option<()> {
    let thread = Pointer::new(ctx.arg(0))?;
    let signal = thread.follow(process_offset!(task_signal))?;
    // Counted down before this tracepoint: only the last thread of a process finds none alive.
    if signal.read::<u32>(process_offset!(signal_live))? != 0
        || thread.read::<u32>(offset!(task_flags))? & PF_KTHREAD != 0
    {
        return Some(());
    }
    count(Stat::Exits);
    let work = work()?;
    begin(process_event::EXIT, thread, &mut work.event)?;
    send(work, 0);
    Some(())
}

#[inline(always)]
fn work() -> Option<&'static mut ProcessWork> {
    let work = PROCESS.get_ptr_mut(0)?;
    // SAFETY: this CPU's slot. A tracepoint's program stays on its CPU, and none of the three occurs within another.
    Some(unsafe { &mut *work })
}

/// An event about the process that `task` belongs to, without parent and text.
#[inline(always)]
fn begin(kind: u8, task: Pointer, event: &mut ProcessEvent) -> Option<()> {
    event.origin = NOBODY;
    event.parent = NOBODY;
    event.parent_comm = [0; 16];
    event.kind = kind;
    event.args_cut = 0;
    event.path_len = 0;
    event.cgroup_len = 0;
    event.args_len = 0;
    event.cgroup_id = task::cgroup_id(task);
    task::image(task, &mut event.image)
}

/// Whose child `task`'s process is.
#[inline(always)]
fn parent(task: Pointer, event: &mut ProcessEvent) {
    let parent = task::leader(task).and_then(|leader| leader.follow(offset!(task_real_parent)));
    let Some(parent) = parent else { return };
    if task::image(parent, &mut event.parent).is_none() {
        event.parent = NOBODY;
        return;
    }
    if let Some(leader) = task::leader(parent) {
        let _ = leader.read_into(offset!(task_comm), &mut event.parent_comm);
    }
}

/// Appends the arguments to the text, at `at`; how many bytes.
///
/// The kernel has just written them, so that they are in memory. What cannot be read all the same is left out.
#[inline(always)]
fn arguments(mm: Pointer, at: u32, work: &mut ProcessWork) -> u32 {
    let start: u64 = mm.read_or_zero(process_offset!(mm_arg_start));
    let end: u64 = mm.read_or_zero(process_offset!(mm_arg_end));
    let all = end.wrapping_sub(start);
    let length = if all > ARGS_MAX as u64 {
        work.event.args_cut = 1;
        ARGS_MAX as u32
    } else {
        all as u32
    };
    let at = masked(at, PATHS_MAX - 1);
    // SAFETY: in bounds, as `at` is below PATHS_MAX and the text has room for PATHS_MAX and ARGS_MAX bytes.
    let to = unsafe { work.text.as_mut_ptr().add(at) };
    // SAFETY: the helper checks the source; the destination was shown to be in bounds.
    if unsafe { bpf_probe_read_user(to.cast(), length, start as *const _) } == 0 {
        length
    } else {
        count(Stat::ReadError);
        work.event.args_cut = 1;
        0
    }
}

/// Hands the event over with the first `text` bytes of its text.
#[inline(always)]
fn send(work: &ProcessWork, text: u32) {
    let text = masked(text, work.text.len() - 1);
    // SAFETY: the head and at most all of the text, which follows it.
    let bytes = unsafe {
        core::slice::from_raw_parts((&raw const *work).cast::<u8>(), size_of::<ProcessEvent>() + text)
    };
    if PROCESSES.output::<[u8]>(bytes, 0).is_err() {
        count(Stat::ProcessEventsLost);
    }
}
