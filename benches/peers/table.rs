//! Results as Markdown, to be pasted where figures are published.

/// Prints a heading, a header row and the rows. The first `names` columns say what a row is.
pub fn print(heading: &str, names: usize, header: &[&str], rows: &[Vec<String>]) {
    println!("\n### {heading}\n");
    println!("| {} |", header.join(" | "));
    println!("|{}{}", "---|".repeat(names), "---:|".repeat(header.len() - names));
    for row in rows {
        println!("| {} |", row.join(" | "));
    }
}

/// The middle one, or the mean of the two in the middle.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => sorted[n / 2],
        n => f64::midpoint(sorted[n / 2 - 1], sorted[n / 2]),
    }
}

/// The least and the most of some counts.
pub fn least_most(values: &[f64]) -> String {
    let least = values.iter().copied().fold(f64::INFINITY, f64::min);
    let most = values.iter().copied().fold(0.0, f64::max);
    format!("{}–{}", short(least), short(most))
}

/// A count in three digits or so: `940`, `68.1 k`, `1.19 M`.
pub fn short(value: f64) -> String {
    match value {
        v if v >= 999_500.0 => format!("{:.2} M", v / 1e6),
        v if v >= 99_950.0 => format!("{:.0} k", v / 1e3),
        v if v >= 999.5 => format!("{:.1} k", v / 1e3),
        v => format!("{v:.0}"),
    }
}

/// Bytes in MiB.
pub fn mib(bytes: u64) -> String {
    format!("{:.1}", bytes as f64 / f64::from(1 << 20))
}

/// One figure in terms of another, or a dash where there is no other.
pub fn ratio(value: f64, other: Option<f64>) -> String {
    other.map_or_else(|| "–".to_owned(), |other| format!("{:.2}", value / other))
}
