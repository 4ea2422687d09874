//! A thread that hangs makes `/live` fail.

use crate::hung::Hung;
use crate::scrape::get;
use crate::support::wait_for;
use crate::{logging, send, start};

#[test]
fn a_reader_that_hangs_makes_the_agent_not_live_until_it_goes_on() {
    let netns = logging("hang");
    let (agent, address) = start(&netns, &["--output", "json"], &[]);
    assert_eq!(get(address, "/live").status, 200);
    let hung = Hung::stop(agent.pid(), "nflog ");
    let failed = wait_for("the agent to notice", || {
        let live = get(address, "/live");
        (live.status != 200).then_some(live)
    });
    assert_eq!(failed.status, 503);
    assert!(
        failed.body.starts_with("the reader of ") && failed.body.contains("has not moved for"),
        "{}",
        failed.body
    );
    // It is not unready: whether to send it work is another question.
    assert_eq!(get(address, "/ready").status, 200);
    drop(hung);
    wait_for("the reader to go on", || {
        (get(address, "/live").status == 200).then_some(())
    });
    send(&netns, 3);
    let ended = agent.stop();
    assert_eq!(ended.count("received"), 3);
}
