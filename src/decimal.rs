//! Integers as ASCII decimal, where each number has exactly one spelling.
//!
//! No sign but a `-` before a negative number, no leading zeros, no spaces, no `-0`: what parses is what
//! printing gives back, so that a number can be compared as bytes. `wire` reads the numbers of requests with
//! it and `engine` the values that INCR adds to; it exists so that the two agree.

/// Reads an unsigned integer.
pub fn parse_u64(text: &[u8]) -> Option<u64> {
    match text {
        [b'0'] => Some(0),
        [b'1'..=b'9', ..] => text.iter().try_fold(0_u64, |number, digit| {
            if !digit.is_ascii_digit() {
                return None;
            }
            number.checked_mul(10)?.checked_add(u64::from(digit - b'0'))
        }),
        _ => None,
    }
}

/// Reads a signed integer.
pub fn parse_i64(text: &[u8]) -> Option<i64> {
    match text {
        [b'-', digits @ ..] => match parse_u64(digits)? {
            0 => None,
            magnitude => 0_i64.checked_sub_unsigned(magnitude),
        },
        digits => i64::try_from(parse_u64(digits)?).ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn one_spelling_a_number() {
        for text in ["", "-", "+1", "00", "01", "-0", "-01", " 1", "1 ", "1.0", "1e3", "0x10", "--1", "1_000"] {
            assert_eq!(parse_u64(text.as_bytes()), None, "{text:?}");
            assert_eq!(parse_i64(text.as_bytes()), None, "{text:?}");
        }
    }

    #[test]
    fn the_ends_of_the_range() {
        assert_eq!(parse_u64(b"18446744073709551615"), Some(u64::MAX));
        assert_eq!(parse_u64(b"18446744073709551616"), None);
        assert_eq!(parse_u64(b"99999999999999999999"), None);
        assert_eq!(parse_i64(b"9223372036854775807"), Some(i64::MAX));
        assert_eq!(parse_i64(b"9223372036854775808"), None);
        assert_eq!(parse_i64(b"-9223372036854775808"), Some(i64::MIN));
        assert_eq!(parse_i64(b"-9223372036854775809"), None);
    }

    proptest! {
        #[test]
        fn print_and_parse_agree(number: i64, unsigned: u64) {
            prop_assert_eq!(parse_i64(number.to_string().as_bytes()), Some(number));
            prop_assert_eq!(parse_u64(unsigned.to_string().as_bytes()), Some(unsigned));
        }
    }
}
