//! How large the runs are: small for each `cargo test`, a thousand nodes for `make sim`; it runs nothing.

/// Returns whether this is the full size: `LOCUS_SIM=full`.
pub(crate) fn is_full() -> bool {
    std::env::var("LOCUS_SIM").is_ok_and(|size| size == "full")
}

/// Returns what fits the size of this run.
pub(crate) fn pick<T>(small: T, full: T) -> T {
    match is_full() {
        true => full,
        false => small,
    }
}

/// Returns the seed that was asked for by `SEED=n`, if any.
pub(crate) fn asked_seed() -> Option<u64> {
    let seed = std::env::var("SEED").ok()?;
    Some(seed.parse().expect("SEED is a number"))
}

/// Returns the seed of a criterion's one run.
pub(crate) fn seed() -> u64 {
    asked_seed().unwrap_or(1)
}
