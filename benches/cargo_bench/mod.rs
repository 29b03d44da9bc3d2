//! Whether a bench was asked for. `cargo test --benches` runs benches as well, to see that they build; that is no reason to
//! keep a machine busy for minutes.

/// Whether `cargo bench` runs this program. Says how to have it run, if not.
pub fn runs_this(name: &str) -> bool {
    let given = |wanted: &str| std::env::args().any(|argument| argument == wanted);
    // `cargo nextest` asks every test program for its tests; there are none here.
    if !given("--bench") && !given("--list") {
        println!("run it with: cargo bench --bench {name}");
    }
    given("--bench")
}
