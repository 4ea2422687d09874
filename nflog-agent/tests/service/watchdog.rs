//! Signs of life: while all loops move, and only then.

use std::thread::sleep;
use std::time::Duration;

use crate::hung::Hung;
use crate::manager::Manager;
use crate::support::{Netns, wait_for};

#[test]
fn signs_of_life_end_when_a_loop_hangs_and_come_back_with_it() {
    let netns = Netns::new("watchdog");
    let path = netns.path().display().to_string();
    let interval = Duration::from_secs(2);
    let manager = Manager::new(true).with_watchdog(interval);
    let signs = || manager.look(|state| state.count("WATCHDOG=1"));
    let more = |than: usize| wait_for("a sign of life", || (signs() > than).then_some(()));
    let agent = manager.start(&["--group", "7", "--netns", &path]);
    more(2);
    for (name, says) in [("nflog ", "the reader of "), ("network", "the exporter")] {
        let said = agent.count_said(says);
        let hung = Hung::stop(agent.pid(), name);
        wait_for("the agent to notice", || {
            (agent.count_said(says) > said).then_some(())
        });
        let before = signs();
        sleep(2 * interval);
        assert_eq!(signs(), before, "{name}");
        drop(hung);
        more(before);
    }
    assert_eq!(agent.stop().code, Some(0));
}
