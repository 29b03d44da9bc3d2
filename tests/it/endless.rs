//! A message that never ends. libzmq shows a message when it is whole, so kvd never hears of this one and can't refuse
//! it; what bounds it is the service's limit of memory. Here the kernel enforces that limit, as it would under a service
//! manager: the daemon alone is killed, and nothing that it acknowledged is lost.

use crate::daemon::Store;
use crate::memory_group::MemoryGroup;
use crate::zmtp::{MORE, Peer};
use std::os::unix::process::ExitStatusExt as _;

const LIMIT: u64 = 128 << 20;
/// Many to a write, so that the limit is reached in no time.
const FRAMES: usize = 64;

/// Sends frames that each announce another one until nobody takes them any more. Returns how many bytes it were.
fn send_without_end(mut peer: Peer) -> u64 {
    let frame = [&[MORE, 200][..], &[b'v'; 200]].concat();
    let frames = frame.repeat(FRAMES);
    let mut sent = 0;
    while peer.send_raw(&frames).is_ok() {
        sent += frames.len() as u64;
    }
    sent
}

#[test]
fn a_message_without_end_costs_a_restart_and_no_acknowledged_write() {
    let Some(group) = MemoryGroup::with_limit(LIMIT) else { return };
    let (store, bystanders) = (Store::new(), Store::new());
    let bystander = bystanders.start();
    let confined = store.launch().under(&group.wrapper());
    for round in 0..2 {
        let daemon = confined.start();
        let limit = daemon.client().figure("max_memory_bytes");
        assert_eq!(limit, LIMIT / 4 * 3, "--max-memory leaves room below the limit of the group");
        let (mut writer, endless) = (daemon.peer(), daemon.peer());
        let (acknowledged, sent, ended) = std::thread::scope(|scope| {
            let sender = scope.spawn(|| send_without_end(endless));
            let writing = scope.spawn(move || {
                let mut acknowledged = 0;
                while let Ok(reply) =
                    writer.call(&["SET", &format!("{round}:{acknowledged}"), &acknowledged.to_string()])
                {
                    assert_eq!(reply[0], b"OK");
                    acknowledged += 1;
                }
                acknowledged
            });
            let ended = daemon.wait();
            (writing.join().expect("the writer"), sender.join().expect("the sender"), ended)
        });
        println!("killed after {} MiB of one message, {acknowledged} writes were acknowledged", sent >> 20);
        assert_eq!(ended.status.signal(), Some(9), "the kernel kills it:\n{}", ended.stderr);
        assert_eq!(group.kills(), round + 1, "for want of memory, and nobody else of the group");
        assert!(acknowledged > 0);

        let again = confined.start();
        let client = again.client();
        for n in 0..acknowledged {
            let value = client.say(&format!("GET {round}:{n}"));
            assert!(value.starts_with(&format!("OK {n} ")), "an acknowledged write is lost: {round}:{n} is {value}");
        }
        again.stop();
    }
    assert!(bystander.client().say("SET k v").starts_with("OK "), "a process outside of the group goes on");
    bystander.stop();
}
