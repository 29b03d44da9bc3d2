//! Ranks by Zipf's law: rank k comes with a probability in proportion to 1 / k^theta.

use super::random::Random;

/// The exponent that YCSB made usual for caches.
pub const THETA: f64 = 0.99;

/// Draws ranks by rejection-inversion (Hörmann, Derflinger: "Rejection-inversion to generate variates from
/// monotone discrete distributions", TOMACS 1996): exact, without a table, in about one try.
#[derive(Clone, Debug)]
pub struct Zipf {
    density: Density,
    ranks: f64,
    /// The integral of the density up to the middle of rank 1, less the rank's own weight, and up to the end.
    first: f64,
    last: f64,
    /// Below this distance from its rank a point is always accepted.
    sure: f64,
}

impl Zipf {
    /// Ranks from 0 to below `ranks`. `theta` is above 0; 1 is allowed.
    pub fn new(ranks: u64, theta: f64) -> Zipf {
        let (ranks, density) = (ranks as f64, Density { theta });
        Zipf {
            ranks,
            first: density.integral(1.5) - 1.0,
            last: density.integral(ranks + 0.5),
            sure: 2.0 - density.inverse(density.integral(2.5) - density.at(2.0)),
            density,
        }
    }

    /// The next rank; 0 is the most frequent.
    #[expect(clippy::cast_sign_loss, reason = "the first rank is 1 in here")]
    pub fn draw(&self, random: &mut Random) -> u64 {
        loop {
            let area = self.last + random.unit() * (self.first - self.last);
            let point = self.density.inverse(area);
            let rank = point.round().clamp(1.0, self.ranks);
            if rank - point <= self.sure || area >= self.density.integral(rank + 0.5) - self.density.at(rank) {
                return rank as u64 - 1;
            }
        }
    }
}

/// x^-theta.
#[derive(Clone, Debug)]
struct Density {
    theta: f64,
}

impl Density {
    fn at(&self, x: f64) -> f64 {
        x.powf(-self.theta)
    }

    /// The integral from 1 to `x`.
    fn integral(&self, x: f64) -> f64 {
        let (power, log) = (1.0 - self.theta, x.ln());
        // Where the exponent nears 1 the quotient nears the logarithm, and would be 0 / 0.
        if power.abs() < 1e-9 { log } else { (power * log).exp_m1() / power }
    }

    /// Where the integral has this value.
    fn inverse(&self, area: f64) -> f64 {
        let power = 1.0 - self.theta;
        if power.abs() < 1e-9 { area.exp() } else { ((power * area).max(-1.0).ln_1p() / power).exp() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pearson's statistic of 200,000 draws against the exact probabilities. The seed is fixed, so is the outcome.
    #[test]
    fn ranks_come_as_often_as_the_law_says() {
        const RANKS: usize = 50;
        const DRAWS: u32 = 200_000;
        for theta in [0.5, THETA, 1.0, 2.0] {
            let zipf = Zipf::new(RANKS as u64, theta);
            let mut random = Random::seeded(1);
            let mut seen = [0_u32; RANKS];
            for _ in 0..DRAWS {
                seen[zipf.draw(&mut random) as usize] += 1;
            }
            let weights: Vec<f64> = (1..=RANKS).map(|rank| (rank as f64).powf(-theta)).collect();
            let total: f64 = weights.iter().sum();
            let statistic: f64 = weights
                .iter()
                .zip(seen)
                .map(|(weight, seen)| {
                    let expected = weight / total * f64::from(DRAWS);
                    (f64::from(seen) - expected).powi(2) / expected
                })
                .sum();
            // 49 degrees of freedom: 85.4 is exceeded once in a thousand times.
            assert!(statistic < 85.4, "theta {theta}: {statistic}");
        }
    }

    #[test]
    fn one_rank_is_always_the_first() {
        let mut random = Random::seeded(1);
        assert!((0..100).all(|_| Zipf::new(1, THETA).draw(&mut random) == 0));
    }
}
