//! Ranks by Zipf's law: rank k comes with a probability in proportion to 1 / k^s.

use crate::random::Random;

/// The exponent that YCSB made usual for caches.
const EXPONENT: f64 = 0.99;

/// Draws ranks by rejection-inversion (Hörmann, Derflinger: "Rejection-inversion to generate variates from
/// monotone discrete distributions", TOMACS 1996): exact, without a table, in about one try.
pub struct Zipf {
    ranks: f64,
    /// The integral of the density up to the middle of rank 1, less the rank's own weight, and up to the end.
    first: f64,
    last: f64,
    /// Below this distance from its rank a point is always accepted.
    sure: f64,
}

impl Zipf {
    /// Ranks from 0 to below `ranks`.
    pub fn new(ranks: u64) -> Zipf {
        let ranks = ranks as f64;
        Zipf {
            ranks,
            first: integral(1.5) - 1.0,
            last: integral(ranks + 0.5),
            sure: 2.0 - inverse(integral(2.5) - density(2.0)),
        }
    }

    /// The next rank; 0 is the most frequent.
    #[expect(clippy::cast_sign_loss, reason = "the first rank is 1 in here")]
    pub fn draw(&self, random: &mut Random) -> u64 {
        loop {
            let area = self.last + random.unit() * (self.first - self.last);
            let point = inverse(area);
            let rank = point.round().clamp(1.0, self.ranks);
            if rank - point <= self.sure || area >= integral(rank + 0.5) - density(rank) {
                return rank as u64 - 1;
            }
        }
    }
}

fn density(x: f64) -> f64 {
    x.powf(-EXPONENT)
}

/// The integral of the density from 1 to `x`.
fn integral(x: f64) -> f64 {
    ((1.0 - EXPONENT) * x.ln()).exp_m1() / (1.0 - EXPONENT)
}

/// Where the integral has this value.
fn inverse(area: f64) -> f64 {
    (((1.0 - EXPONENT) * area).max(-1.0).ln_1p() / (1.0 - EXPONENT)).exp()
}
