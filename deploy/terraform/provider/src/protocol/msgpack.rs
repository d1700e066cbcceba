//! Values as MessagePack, as Terraform writes them: nil, booleans, numbers, texts, arrays and maps; an extension stands for what is not
//! known yet, with or without refinements.
//!
//! Invariant: what comes from outside costs no more memory than it has bytes, and no more stack than [`DEPTH_MAX`] levels.

use std::collections::BTreeMap;

use thiserror::Error;

use super::value::Value;

/// Values within values.
pub const DEPTH_MAX: usize = 64;

/// Why bytes are no value.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// They end within it.
    #[error("the value ends early, at byte {at}")]
    Truncated {
        /// Where.
        at: usize,
    },
    /// Something follows.
    #[error("bytes follow the value, from byte {at} on")]
    Trailing {
        /// Where.
        at: usize,
    },
    /// A kind that Terraform does not write.
    #[error("byte {at} ({byte:#04x}) begins nothing that is known")]
    Kind {
        /// Where.
        at: usize,
        /// Which.
        byte: u8,
    },
    /// A text that is no UTF-8.
    #[error("the text at byte {at} is no UTF-8")]
    Utf8 {
        /// Where.
        at: usize,
    },
    /// A key of a map that is no text, or the same as another.
    #[error("the key at byte {at} is no text, or stands there twice")]
    Key {
        /// Where.
        at: usize,
    },
    /// A number that does not fit.
    #[error("the number at byte {at} is too large")]
    Number {
        /// Where.
        at: usize,
    },
    /// Too many values within values.
    #[error("more than {DEPTH_MAX} values within each other, at byte {at}")]
    Depth {
        /// Where.
        at: usize,
    },
}

/// One value, which is all of `bytes`.
///
/// # Errors
/// When it is none.
pub fn decode(bytes: &[u8]) -> Result<Value, DecodeError> {
    let mut reader = Reader { bytes, at: 0 };
    let value = reader.value(0)?;
    if reader.at < bytes.len() {
        return Err(DecodeError::Trailing { at: reader.at });
    }
    Ok(value)
}

struct Reader<'b> {
    bytes: &'b [u8],
    at: usize,
}

impl<'b> Reader<'b> {
    fn take(&mut self, count: usize) -> Result<&'b [u8], DecodeError> {
        let end = self.at.checked_add(count);
        let taken = end.and_then(|end| self.bytes.get(self.at..end)).ok_or(DecodeError::Truncated { at: self.at })?;
        self.at += count;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let at = self.at;
        self.take(N)?.try_into().map_err(|_| DecodeError::Truncated { at })
    }

    fn byte(&mut self) -> Result<u8, DecodeError> {
        self.array::<1>().map(|[byte]| byte)
    }

    /// A length of one, two or four bytes: the low two bits of the kinds that have one say how many.
    fn length(&mut self, width: u8) -> Result<usize, DecodeError> {
        Ok(match width {
            0 => usize::from(self.byte()?),
            1 => usize::from(u16::from_be_bytes(self.array()?)),
            _ => u32::from_be_bytes(self.array()?) as usize,
        })
    }

    fn value(&mut self, depth: usize) -> Result<Value, DecodeError> {
        let at = self.at;
        if depth > DEPTH_MAX {
            return Err(DecodeError::Depth { at });
        }
        let byte = self.byte()?;
        Ok(match byte {
            0x00..=0x7f => Value::Integer(byte.into()),
            0x80..=0x8f => self.map(usize::from(byte & 0x0f), depth)?,
            0x90..=0x9f => self.list(usize::from(byte & 0x0f), depth)?,
            0xa0..=0xbf => Value::Text(self.text(usize::from(byte & 0x1f))?),
            0xc0 => Value::Null,
            0xc2 => Value::Bool(false),
            0xc3 => Value::Bool(true),
            0xc7..=0xc9 => {
                let length = self.length(byte - 0xc7)?;
                self.unknown(length)?
            }
            0xca => number(f64::from(f32::from_be_bytes(self.array()?))),
            0xcb => number(f64::from_be_bytes(self.array()?)),
            0xcc => Value::Integer(self.byte()?.into()),
            0xcd => Value::Integer(u16::from_be_bytes(self.array()?).into()),
            0xce => Value::Integer(u32::from_be_bytes(self.array()?).into()),
            0xcf => {
                let number = u64::from_be_bytes(self.array()?);
                Value::Integer(i64::try_from(number).map_err(|_| DecodeError::Number { at })?)
            }
            0xd0 => Value::Integer(i8::from_be_bytes(self.array()?).into()),
            0xd1 => Value::Integer(i16::from_be_bytes(self.array()?).into()),
            0xd2 => Value::Integer(i32::from_be_bytes(self.array()?).into()),
            0xd3 => Value::Integer(i64::from_be_bytes(self.array()?)),
            0xd4..=0xd8 => self.unknown(1_usize << (byte - 0xd4))?,
            0xd9..=0xdb => {
                let length = self.length(byte - 0xd9)?;
                Value::Text(self.text(length)?)
            }
            0xdc | 0xdd => {
                let count = self.length(byte - 0xdc + 1)?;
                self.list(count, depth)?
            }
            0xde | 0xdf => {
                let count = self.length(byte - 0xde + 1)?;
                self.map(count, depth)?
            }
            0xe0..=0xff => Value::Integer(i8::from_be_bytes([byte]).into()),
            0xc1 | 0xc4..=0xc6 => return Err(DecodeError::Kind { at, byte }),
        })
    }

    /// The number of the extension and its bytes; whatever they refine, it is not known.
    fn unknown(&mut self, length: usize) -> Result<Value, DecodeError> {
        self.byte()?;
        self.take(length)?;
        Ok(Value::Unknown)
    }

    fn text(&mut self, length: usize) -> Result<String, DecodeError> {
        let at = self.at;
        let text = std::str::from_utf8(self.take(length)?).map_err(|_| DecodeError::Utf8 { at })?;
        Ok(text.to_owned())
    }

    fn list(&mut self, count: usize, depth: usize) -> Result<Value, DecodeError> {
        // Nothing is set aside for a count that was only claimed.
        let mut items = Vec::new();
        for _ in 0..count {
            items.push(self.value(depth + 1)?);
        }
        Ok(Value::List(items))
    }

    fn map(&mut self, count: usize, depth: usize) -> Result<Value, DecodeError> {
        let mut object = BTreeMap::new();
        for _ in 0..count {
            let at = self.at;
            let Value::Text(key) = self.value(depth + 1)? else { return Err(DecodeError::Key { at }) };
            let value = self.value(depth + 1)?;
            if object.insert(key, value).is_some() {
                return Err(DecodeError::Key { at });
            }
        }
        Ok(Value::Object(object))
    }
}

/// As the same number is always told here: without a fraction it is an integer.
pub(crate) fn number(number: f64) -> Value {
    // Up to 2^53 every integer is a float and the other way round.
    const EXACT_MAX: f64 = 9_007_199_254_740_992.0;
    if number.fract() == 0.0 && number.abs() <= EXACT_MAX {
        return Value::Integer(number as i64);
    }
    Value::Float(number)
}

/// A value as bytes.
#[must_use]
pub fn encode(value: &Value) -> Vec<u8> {
    let mut bytes = Vec::new();
    put(&mut bytes, value);
    bytes
}

fn put(bytes: &mut Vec<u8>, value: &Value) {
    match value {
        Value::Null => bytes.push(0xc0),
        // An extension of one byte, of kind 0.
        Value::Unknown => bytes.extend([0xd4, 0, 0]),
        Value::Bool(value) => bytes.push(if *value { 0xc3 } else { 0xc2 }),
        Value::Integer(number) => match u8::try_from(*number) {
            Ok(small @ 0..=0x7f) => bytes.push(small),
            _ => {
                bytes.push(0xd3);
                bytes.extend(number.to_be_bytes());
            }
        },
        Value::Float(number) => {
            bytes.push(0xcb);
            bytes.extend(number.to_be_bytes());
        }
        Value::Text(text) => put_text(bytes, text),
        Value::List(items) => {
            put_count(bytes, items.len(), 0x90, 0xdd);
            items.iter().for_each(|item| put(bytes, item));
        }
        Value::Object(object) => {
            put_count(bytes, object.len(), 0x80, 0xdf);
            for (key, value) in object {
                put_text(bytes, key);
                put(bytes, value);
            }
        }
    }
}

fn put_text(bytes: &mut Vec<u8>, text: &str) {
    match u8::try_from(text.len()) {
        Ok(length @ 0..=31) => bytes.push(0xa0 | length),
        _ => {
            bytes.push(0xdb);
            bytes.extend(length_of(text.len()));
        }
    }
    bytes.extend(text.as_bytes());
}

fn put_count(bytes: &mut Vec<u8>, count: usize, few: u8, many: u8) {
    match u8::try_from(count) {
        Ok(count @ 0..=15) => bytes.push(few | count),
        _ => {
            bytes.push(many);
            bytes.extend(length_of(count));
        }
    }
}

/// Nothing that a provider holds is 4 GiB large.
fn length_of(length: usize) -> [u8; 4] {
    u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            Just(Value::Unknown),
            any::<bool>().prop_map(Value::Bool),
            any::<i64>().prop_map(Value::Integer),
            (-1.0e6_f64..1.0e6).prop_map(number),
            ".{0,40}".prop_map(Value::Text),
        ];
        leaf.prop_recursive(4, 64, 20, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..20).prop_map(Value::List),
                prop::collection::btree_map(".{0,8}", inner, 0..20).prop_map(Value::Object),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(value in any_value()) {
            prop_assert_eq!(decode(&encode(&value)), Ok(value));
        }

        #[test]
        fn half_a_value_is_none(value in any_value(), cut in any::<prop::sample::Index>()) {
            let bytes = encode(&value);
            let cut = cut.index(bytes.len());
            prop_assert!(decode(&bytes[..cut]).is_err());
        }
    }

    #[test]
    fn every_form_of_others_is_read() {
        let read = |bytes: &[u8]| decode(bytes).unwrap();
        assert_eq!(read(&[0xcc, 200]), Value::Integer(200));
        assert_eq!(read(&[0xcd, 1, 0]), Value::Integer(256));
        assert_eq!(read(&[0xd0, 0xff]), Value::Integer(-1));
        assert_eq!(read(&[0xe0]), Value::Integer(-32));
        assert_eq!(read(&[0xca, 0x3f, 0x80, 0, 0]), Value::Integer(1), "a float without a fraction");
        assert_eq!(read(&[0xcb, 0x3f, 0xe0, 0, 0, 0, 0, 0, 0]), Value::Float(0.5));
        assert_eq!(read(&[0xd9, 1, b'a']), Value::from("a"));
        assert_eq!(read(&[0xda, 0, 1, b'a']), Value::from("a"));
        assert_eq!(read(&[0xdc, 0, 1, 0xc0]), Value::List(vec![Value::Null]));
        assert_eq!(read(&[0xde, 0, 1, 0xa1, b'k', 0xc3]), Value::Object([("k".to_owned(), Value::Bool(true))].into()));
        // Unknown: of kind 0, and with refinements of kind 12.
        assert_eq!(read(&[0xd4, 0, 0]), Value::Unknown);
        assert_eq!(read(&[0xc7, 3, 12, 0x81, 1, 0xc2]), Value::Unknown);
    }

    #[test]
    fn what_is_none_is_refused_with_its_place() {
        assert_eq!(decode(&[]), Err(DecodeError::Truncated { at: 0 }));
        assert_eq!(decode(&[0xc0, 0xc0]), Err(DecodeError::Trailing { at: 1 }));
        assert_eq!(decode(&[0xc4, 0]), Err(DecodeError::Kind { at: 0, byte: 0xc4 }));
        assert_eq!(decode(&[0xa1, 0xff]), Err(DecodeError::Utf8 { at: 1 }));
        assert_eq!(decode(&[0x81, 0x01, 0x01]), Err(DecodeError::Key { at: 1 }));
        assert_eq!(decode(&[0x82, 0xa1, b'k', 1, 0xa1, b'k', 1]), Err(DecodeError::Key { at: 4 }));
        assert_eq!(decode(&[0xcf, 255, 0, 0, 0, 0, 0, 0, 0]), Err(DecodeError::Number { at: 0 }));
        // A count that nothing stands behind sets nothing aside.
        assert_eq!(decode(&[0xdd, 0xff, 0xff, 0xff, 0xff]), Err(DecodeError::Truncated { at: 5 }));
        let deep = [0x91; 100];
        assert_eq!(decode(&deep), Err(DecodeError::Depth { at: DEPTH_MAX + 1 }));
    }
}
