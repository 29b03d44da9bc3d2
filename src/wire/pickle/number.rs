//! Python's numbers as far as its equality tells them apart: `1 == 1.0 == True`, `0.0 == -0.0`.
//!
//! Knows the ways a pickle writes integers and floats. An integer and a float are equal when they are the
//! same number exactly, however large, so every float without a fraction is made into the integer it is.

use super::opcode::{BINFLOAT, BININT, BININT1, BININT2, FLOAT, INT, LONG, LONG1, LONG4, NEWFALSE, NEWTRUE};
use super::reader::Instruction;
use super::{refuse, room, too_big};
use crate::wire::WireError;

/// Most digits of a decimal integer in a key: CPython's own limit, since converting takes quadratic time.
pub(super) const MAX_DECIMAL_DIGITS: usize = 4_300;

/// A number, in the one form that equal numbers share.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Number {
    /// Any integer.
    Integer {
        /// Below zero.
        negative: bool,
        /// The absolute value, little-endian, without zero bytes at its end. Zero has no bytes at all.
        magnitude: Vec<u8>,
    },
    /// A float that is no integer: with a fraction, or infinite.
    Float(f64),
}

impl Number {
    /// The number that an instruction pushes, if it pushes one.
    pub(super) fn of(instruction: &Instruction<'_>) -> Option<Result<Self, WireError>> {
        let argument = instruction.argument;
        Some(match instruction.opcode {
            NEWTRUE => Ok(Self::integer(false, vec![1])),
            NEWFALSE => Ok(Self::integer(false, Vec::new())),
            BININT1 | BININT2 => Ok(Self::integer(false, argument.to_vec())),
            BININT | LONG1 | LONG4 => Self::from_twos_complement(argument),
            // Protocol 0 has no other way to write False and True.
            INT if argument == b"00" => Ok(Self::integer(false, Vec::new())),
            INT if argument == b"01" => Ok(Self::integer(false, vec![1])),
            INT => Self::from_decimal(argument),
            LONG => Self::from_decimal(argument.strip_suffix(b"L").unwrap_or(argument)),
            BINFLOAT => match argument.try_into() {
                Ok(bytes) => Self::from_float(f64::from_be_bytes(bytes)),
                Err(_) => Err(refuse("a float in the key is not eight bytes")),
            },
            FLOAT => match std::str::from_utf8(argument).ok().and_then(|text| text.parse().ok()) {
                Some(float) => Self::from_float(float),
                None => Err(refuse("a float in the key is no number")),
            },
            _ => return None,
        })
    }

    fn integer(negative: bool, mut magnitude: Vec<u8>) -> Self {
        let significant = magnitude.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
        magnitude.truncate(significant);
        Number::Integer { negative: negative && !magnitude.is_empty(), magnitude }
    }

    fn from_twos_complement(bytes: &[u8]) -> Result<Self, WireError> {
        room(&[], bytes.len())?;
        let negative = bytes.last().is_some_and(|top| top & 0x80 != 0);
        let mut magnitude = bytes.to_vec();
        if negative {
            let mut carry = true;
            for byte in &mut magnitude {
                (*byte, carry) = (!*byte).overflowing_add(u8::from(carry));
            }
        }
        Ok(Self::integer(negative, magnitude))
    }

    fn from_decimal(text: &[u8]) -> Result<Self, WireError> {
        /// As many digits as fit a limb of 32 bits.
        const DIGITS: usize = 9;
        let (negative, digits) = match text {
            [b'-', digits @ ..] => (true, digits),
            digits => (false, digits),
        };
        if digits.len() > MAX_DECIMAL_DIGITS {
            return Err(too_big());
        }
        let decimal = digits.iter().all(u8::is_ascii_digit);
        if !decimal || digits.is_empty() || (digits.len() > 1 && digits.starts_with(b"0")) {
            return Err(refuse("an int in the key is no decimal number"));
        }
        let mut limbs: Vec<u32> = Vec::new();
        for chunk in digits.rchunks(DIGITS).rev() {
            let scale = 10u64.pow(chunk.len() as u32);
            let mut carry = chunk.iter().fold(0, |number, &digit| number * 10 + u64::from(digit - b'0'));
            for limb in &mut limbs {
                carry += u64::from(*limb) * scale;
                *limb = carry as u32;
                carry >>= u32::BITS;
            }
            if carry > 0 {
                limbs.push(carry as u32);
            }
        }
        Ok(Self::integer(negative, limbs.iter().flat_map(|limb| limb.to_le_bytes()).collect()))
    }

    fn from_float(float: f64) -> Result<Self, WireError> {
        /// The exponent that IEEE 754 writes for the number whose 53 bits are an integer as they stand.
        const INTEGER_EXPONENT: u64 = 1023 + 52;
        if float.is_nan() {
            // NaN is not equal to itself: a dict finds it by identity alone, which no message carries. A set
            // could never be followed by a get.
            return Err(refuse("nan can't be a key: it is not equal to itself"));
        }
        if float.is_infinite() || float.fract() != 0.0 {
            return Ok(Number::Float(float));
        }
        if float == 0.0 {
            return Ok(Self::integer(false, Vec::new()));
        }
        let bits = float.to_bits();
        let exponent = bits >> 52 & 0x7ff;
        let significand = u128::from(bits & ((1 << 52) - 1) | 1 << 52);
        let magnitude = match exponent.checked_sub(INTEGER_EXPONENT) {
            Some(shift) => {
                let mut magnitude = vec![0; shift as usize / 8];
                magnitude.extend_from_slice(&(significand << (shift % 8)).to_le_bytes());
                magnitude
            }
            // Without a fraction, the bits that are shifted out are zeros.
            None => (significand >> (INTEGER_EXPONENT - exponent)).to_le_bytes().to_vec(),
        };
        Ok(Self::integer(float < 0.0, magnitude))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decimal(text: &str) -> Number {
        Number::from_decimal(text.as_bytes()).unwrap()
    }

    fn float(float: f64) -> Number {
        Number::from_float(float).unwrap()
    }

    fn twos_complement(number: i128) -> Number {
        Number::from_twos_complement(&number.to_le_bytes()).unwrap()
    }

    #[test]
    fn one_form_for_equal_integers() {
        for number in [0, 1, -1, 127, 128, -128, 255, -256, 1 << 31, -(1 << 31), 1 << 53, -(1 << 90), i128::MIN] {
            assert_eq!(decimal(&number.to_string()), twos_complement(number));
            #[allow(clippy::cast_precision_loss)] // Each is a power of two, or small.
            let as_float = number as f64;
            if as_float as i128 == number {
                assert_eq!(float(as_float), twos_complement(number));
            }
        }
        assert_eq!(Number::from_twos_complement(&[0xff, 0xff]).unwrap(), decimal("-1"));
        assert_eq!(Number::from_twos_complement(&[]).unwrap(), decimal("0"));
        assert_eq!(decimal("-0"), decimal("0"));
        assert_eq!(float(-0.0), decimal("0"));
    }

    #[test]
    fn large_floats_are_the_integers_they_are() {
        assert_eq!(float(1e23), decimal("99999999999999991611392"));
        assert_ne!(float(1e23), decimal("100000000000000000000000"));
        assert_eq!(float(-9_007_199_254_740_993.0), decimal("-9007199254740992"));
        let Number::Integer { negative: false, magnitude } = float(f64::MAX) else { panic!("an integer") };
        assert_eq!(magnitude.len(), 128);
    }

    #[test]
    fn floats_that_are_no_integers() {
        for number in [0.5, -1.5, f64::INFINITY, f64::NEG_INFINITY, f64::MIN_POSITIVE, 5e-324] {
            assert_eq!(float(number), Number::Float(number));
        }
        assert!(Number::from_float(f64::NAN).is_err());
    }

    #[test]
    fn decimals_that_are_refused() {
        let longest = "9".repeat(MAX_DECIMAL_DIGITS);
        assert!(Number::from_decimal(longest.as_bytes()).is_ok());
        for text in ["", "-", "+1", " 1", "1_0", "0x1", "01", "-01", "1.0", &(longest + "9")] {
            assert!(Number::from_decimal(text.as_bytes()).is_err(), "{text}");
        }
    }
}
