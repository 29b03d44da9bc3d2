//! Linearizability of the real daemon: four peers at once, each with several commands in flight, while segments are compacted
//! and the daemon is killed and started again. Whatever a peer was told, some order of all commands explains it.
//!
//! `KVD_HISTORIES` sets the number of histories, `KVD_SEED` repeats a run's choices (not the scheduler's).

use crate::daemon::{Client as Wire, Daemon, Store};
use crate::history::{Ask, Choice, Client, Histories, keys};
use crate::random::{Random, seed};

const PEERS: usize = 4;
/// Commands of each peer.
const COMMANDS: usize = 1_000;
/// Messages of one peer that are not answered yet.
const IN_FLIGHT: usize = 3;

struct Course {
    histories: Histories,
    choice: Choice,
    random: Random,
    /// What each peer has still to ask, and who it is.
    peers: Vec<(usize, Client)>,
    kills: usize,
}

impl Course {
    fn new(random: Random) -> Course {
        Course {
            histories: Histories::default(),
            choice: Choice { expires: true, evicts: false, count: 0 },
            random,
            peers: (0..PEERS).map(|_| (COMMANDS, Client::default())).collect(),
            kills: 0,
        }
    }

    fn send(&mut self, index: usize, wire: &Wire, asks: Vec<Ask>, packed: bool) {
        let client = &mut self.peers[index].1;
        let message = client.sends(asks, packed, |key| self.choice.is_fleeting(key), &mut self.histories);
        wire.send_frames(message.iter().map(Vec::as_slice));
    }

    fn speak(&mut self, index: usize, wire: &Wire) {
        let packed = self.random.one_in(4);
        let (left, client) = &mut self.peers[index];
        let count = if packed { (self.random.below(4) + 1).min(*left) } else { 1 };
        *left -= count;
        let asks = (0..count).map(|_| self.choice.next(&mut self.random, |key| client.version_of(key))).collect();
        self.send(index, wire, asks, packed);
    }

    /// One life of a daemon, until so many messages were answered or nobody has anything to ask. The one that is answered
    /// next is whichever reply comes first.
    fn live(&mut self, daemon: &Daemon, mut answers: usize) {
        let wires: Vec<Wire> = (0..PEERS).map(|_| daemon.dealer()).collect();
        for (_, client) in &mut self.peers {
            client.reconnects();
        }
        for key in keys() {
            self.send(0, &wires[0], vec![Ask::Get(key)], false);
        }
        while answers > 0 {
            for (index, wire) in wires.iter().enumerate() {
                while self.peers[index].0 > 0 && self.peers[index].1.in_flight() < IN_FLIGHT {
                    self.speak(index, wire);
                }
            }
            if self.peers.iter().all(|(_, client)| client.in_flight() == 0) {
                return;
            }
            for index in Wire::wait_for_any(&wires) {
                let reply = wires[index].recv_frames();
                self.peers[index].1.hears(&reply, &mut self.histories);
                answers = answers.saturating_sub(1);
            }
        }
    }

    fn is_over(&self) -> bool {
        self.peers.iter().all(|(left, _)| *left == 0)
    }
}

#[test]
fn whatever_four_peers_see_across_kills_makes_sense() {
    let histories = std::env::var("KVD_HISTORIES").map_or(10, |text| text.parse().expect("KVD_HISTORIES is a number"));
    let seed = seed();
    let mut random = Random::seeded(seed);
    let mut kills = 0;
    for number in 0..histories {
        let store = Store::new();
        let launch = store.launch().segment_size("64KiB");
        let mut course = Course::new(random.split());
        while !course.is_over() {
            let daemon = launch.start();
            let answers = 1 + course.random.below(1_500);
            course.live(&daemon, answers);
            daemon.kill();
            course.kills += 1;
        }
        course.live(&launch.start(), usize::MAX);
        if let Some(senseless) = course.histories.senseless() {
            panic!("history {number}: {senseless}\nto have this run again: KVD_SEED={seed}");
        }
        kills += course.kills;
    }
    println!("{histories} histories of {PEERS} peers x {COMMANDS} commands, {kills} kills: all make sense");
}
