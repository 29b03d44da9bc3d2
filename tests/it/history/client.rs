//! A peer: what it sent, in order, and whether what comes back answers it.

use super::Frames;
use super::ask::{Ask, PAIR, Reply};
use super::events::{Histories, Open};
use std::collections::{BTreeMap, VecDeque};

/// A message that is not answered yet.
struct Sent {
    /// Goes along in the envelope.
    number: u64,
    packed: bool,
    asks: Vec<(Ask, Vec<Open>)>,
}

#[derive(Default)]
pub struct Client {
    sent: VecDeque<Sent>,
    count: u64,
    /// The latest version of each key that it was told.
    told: BTreeMap<String, u64>,
}

impl Client {
    /// Whatever was not answered never will be.
    pub fn reconnects(&mut self) {
        self.sent.clear();
    }

    /// The message that asks all of these, in frames where it is one and that is wanted, which is taken to be sent now.
    pub fn sends(
        &mut self,
        asks: Vec<Ask>,
        packed: bool,
        is_fleeting: impl Fn(&str) -> bool,
        histories: &mut Histories,
    ) -> Frames {
        self.count += 1;
        let body = if packed { Ask::packed(&asks) } else { asks[0].frames() };
        let envelope = [self.count.to_string().into_bytes(), Vec::new()];
        let mut opened = |ask: &Ask| {
            let open = |(key, deed): (&str, _)| histories.asks(key.as_bytes(), is_fleeting(key), deed);
            ask.deeds().into_iter().map(open).collect()
        };
        let asks = asks.into_iter().map(|ask| (ask.clone(), opened(&ask))).collect();
        self.sent.push_back(Sent { number: self.count, packed, asks });
        envelope.into_iter().chain(body).collect()
    }

    pub fn in_flight(&self) -> usize {
        self.sent.len()
    }

    /// Whether all that it waits for is one read, which nothing should hold up.
    pub fn waits_for_a_read(&self) -> bool {
        self.sent.len() == 1 && self.sent[0].asks.len() == 1 && self.sent[0].asks[0].0.is_read()
    }

    /// The version of a key that it was told last.
    pub fn version_of(&self, key: &str) -> Option<u64> {
        self.told.get(key).copied()
    }

    /// Takes the next reply, which has to answer the oldest message.
    pub fn hears(&mut self, reply: &Frames, histories: &mut Histories) {
        let sent = self.sent.pop_front().expect("an answer to something");
        assert_eq!(reply[0], sent.number.to_string().into_bytes(), "answers come in the order of what they answer");
        assert!(reply[1].is_empty());
        let body = &reply[2..];
        let replies = if sent.packed { Reply::of_packed(body) } else { vec![Reply::of_frames(body, &sent.asks[0].0)] };
        assert_eq!(replies.len(), sent.asks.len());
        for (reply, (ask, open)) in replies.iter().zip(&sent.asks) {
            self.has_seen(ask, reply);
            let seen = ask.seen(reply);
            assert_eq!(seen.len(), open.len());
            open.iter().zip(seen).for_each(|(open, seen)| histories.told(open, seen));
        }
    }

    /// One peer, one order: what it is told of a key never gets older.
    fn has_seen(&mut self, ask: &Ask, reply: &Reply) {
        let (Reply::Stored(version) | Reply::Value(_, version) | Reply::Conflict(version)) = reply else { return };
        let keys = match ask {
            Ask::SetPair { .. } => PAIR[1..].to_vec(),
            _ => ask.deeds().into_iter().map(|(key, _)| key).collect(),
        };
        for key in keys {
            let latest = self.told.entry(key.to_owned()).or_default();
            assert!(version >= latest, "{key}: version {version} after {latest}: {ask:?}");
            *latest = *version;
        }
    }
}
