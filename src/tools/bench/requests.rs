//! What is asked next, and the bytes that ask it.
//!
//! Draws operations, keys and lengths of values, and writes each as a message or a part of one. Knows no sockets.

use super::keys::Keys;
use super::load::Plan;
use super::mix::{Mix, Operation, Ycsb};
use super::outbox::{Outbox, Payload};
use super::protocol::Protocol;
use super::random::Random;
use super::template::{Builder, Template};
use super::values::ValueSize;

/// One command, and which operation it is a step of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Step {
    pub operation: Operation,
    /// The second step of an operation that has two.
    pub second: bool,
    /// The number of the key.
    pub key: u64,
}

impl Step {
    /// The step after this one, if there is one.
    pub fn next(self) -> Option<Step> {
        let has_next = self.operation == Operation::ReadModifyWrite && !self.second;
        has_next.then_some(Step { second: true, ..self })
    }
}

/// A stream of commands.
pub(super) struct Requests {
    protocol: &'static dyn Protocol,
    mix: Mix,
    single: Option<Operation>,
    random: Random,
    keys: Keys,
    /// Keys that are stored or about to be, and those of them that are not answered yet.
    present: u64,
    unanswered: u64,
    first: u64,
    values: ValueSize,
    get: Template,
    set: Set,
}

/// How a SET is written.
enum Set {
    Template(Template),
    Builder(Builder),
}

impl Requests {
    /// Those that a plan wants.
    pub fn new(protocol: &'static dyn Protocol, plan: &Plan, payload: &Payload) -> Requests {
        let set = match plan.values.single() {
            Some(length) => Set::Template(Template::set(protocol, plan.shape, length, payload, plan.expiry)),
            None => Set::Builder(Builder::new(plan.shape, plan.expiry)),
        };
        Requests {
            protocol,
            mix: plan.mix,
            single: plan.mix.single(),
            random: Random::seeded(plan.seed),
            keys: Keys::new(plan.distribution, plan.first_key, plan.keys),
            present: plan.keys,
            unanswered: 0,
            first: plan.first_key,
            values: plan.values,
            get: Template::get(protocol, plan.shape),
            set,
        }
    }

    /// The next operation's first step.
    pub fn next(&mut self) -> Step {
        let operation = self.single.unwrap_or_else(|| self.mix.draw(&mut self.random));
        let key = match operation {
            Operation::Insert => {
                self.present += 1;
                self.unanswered += 1;
                self.first + self.present - 1
            }
            Operation::Scan => self.random.next(),
            Operation::Get | Operation::Set | Operation::ReadModifyWrite => self.keys.next(&mut self.random),
        };
        Step { operation, second: false, key }
    }

    /// Appends a command. Returns how many bytes of it are shared.
    pub fn put(&mut self, step: Step, into: &mut Outbox) -> usize {
        match step.operation {
            Operation::Get => self.get.put(step.key, into),
            Operation::ReadModifyWrite if !step.second => self.get.put(step.key, into),
            Operation::Scan => {
                let count = 1 + self.random.below(Ycsb::LONGEST_SCAN);
                self.protocol.scan(step.key, count, into.bytes());
                0
            }
            Operation::Set | Operation::Insert | Operation::ReadModifyWrite => match &mut self.set {
                Set::Template(template) => template.put(step.key, into),
                Set::Builder(builder) => builder.put(self.protocol, step.key, self.values.draw(&mut self.random), into),
            },
        }
    }

    /// New keys were answered, so others may ask for as many.
    pub fn inserted(&mut self, count: u64) {
        self.unanswered -= count;
        self.keys.resize(self.present - self.unanswered);
    }
}
