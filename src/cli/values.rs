//! What sizes, durations and numbers look like on the command line, and what is said where something else stands.
//!
//! The flag and what was given are named by whoever reads the line; here is what it must be, in words that are not the
//! parser's own.

use bytesize::ByteSize;
use std::fmt::Display;
use std::str::FromStr;

/// Bytes, or a number with a unit.
pub(super) fn size(text: &str) -> Result<ByteSize, String> {
    match text.trim().parse() {
        // What the parser makes of more than it can count.
        Ok(ByteSize(u64::MAX)) => Err("is too large for any size".to_owned()),
        Ok(size) => Ok(size),
        Err(_) => Err("must be bytes, or a number with a unit: 65536, 64KiB, 128MiB, 1GB".to_owned()),
    }
}

/// A number with a unit of time, or several.
pub(super) fn duration(text: &str) -> Result<humantime::Duration, String> {
    text.trim().parse().map_err(|_| "must be a number with a unit: 250ms, 1s, 2m".to_owned())
}

/// A whole number that is not negative.
pub(super) fn whole<N: FromStr>(text: &str) -> Result<N, String> {
    let text = text.trim();
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let why = if is_number { "is too large" } else { "must be a whole number" };
    text.parse().map_err(|_| why.to_owned())
}

/// A number.
pub(super) fn number(text: &str) -> Result<f64, String> {
    text.trim().parse().map_err(|_| "must be a number, such as 10 or 2.5".to_owned())
}

/// Whether something is on, as variables of the environment say it.
pub(super) fn switch(text: &str) -> Result<bool, String> {
    match &*text.trim().to_ascii_lowercase() {
        "true" | "t" | "yes" | "y" | "on" | "1" => Ok(true),
        "false" | "f" | "no" | "n" | "off" | "0" => Ok(false),
        _ => Err("must be true or false, 1 or 0, yes or no".to_owned()),
    }
}

/// Bytes as they would be typed, without a loss: `64KiB`, `1000`.
pub(super) fn spell(bytes: u64) -> impl Display {
    const UNITS: [&str; 7] = ["", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let power = if bytes == 0 { 0 } else { (bytes.trailing_zeros() / 10) as usize };
    format!("{}{}", bytes >> (10 * power), UNITS.get(power).copied().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_value_is_told_in_words_of_the_manual() {
        for text in ["", "much", "64K1B", "-1", "1.5", "99999999999999999999", "KiB", "1e6"] {
            assert!(size(text).is_err_and(|why| why.contains("64KiB")), "{text}");
        }
        for text in ["", "soon", "5", "-1s", "1 fortnight"] {
            assert!(duration(text).is_err_and(|why| why.contains("250ms")), "{text}");
        }
        for text in ["99999999999999999999GiB", "16EiB", "18446744073709551615"] {
            assert_eq!(size(text), Err("is too large for any size".to_owned()), "{text}");
        }
        for text in ["", "perhaps", "2"] {
            assert!(switch(text).is_err_and(|why| why.contains("true or false, 1 or 0, yes or no")), "{text}");
        }
        assert_eq!(whole::<u64>("x"), Err("must be a whole number".to_owned()));
        assert_eq!(whole::<u64>(""), Err("must be a whole number".to_owned()));
        assert_eq!(whole::<u8>("300"), Err("is too large".to_owned()));
        assert!(number("half").is_err_and(|why| why.contains("2.5")));
        for jargon in ["ByteSize", "float", "digit found", "time unit"] {
            let said = [size("x").err(), duration("x").err(), whole::<u8>("x").err(), number("x").err()];
            assert!(said.iter().flatten().all(|why| !why.contains(jargon)), "{jargon}: {said:?}");
        }
    }

    #[test]
    fn values_are_read_as_the_manual_has_them() {
        for (text, bytes) in [("65536", 65536), ("64KiB", 65536), (" 1MB ", 1_000_000), ("1.5GiB", 3 << 29), ("0", 0)] {
            assert_eq!(size(text).map(|size| size.as_u64()), Ok(bytes), "{text}");
        }
        assert_eq!((switch("Yes"), switch("off"), switch(" 1")), (Ok(true), Ok(false), Ok(true)));
        assert_eq!(duration("2m").map(|duration| duration.as_secs()), Ok(120));
        assert_eq!((whole(" 7"), number("2.5")), (Ok(7_usize), Ok(2.5)));
    }

    #[test]
    fn sizes_are_spelled_without_a_loss() {
        for (bytes, spelled) in
            [(0, "0"), (1000, "1000"), (1024, "1KiB"), (64 << 10, "64KiB"), ((1 << 20) + 1, "1048577")]
        {
            assert_eq!(spell(bytes).to_string(), spelled);
        }
        assert_eq!(spell(1 << 62).to_string(), "4EiB");
        assert_eq!(spell(1536 << 20).to_string(), "1536MiB");
    }
}
