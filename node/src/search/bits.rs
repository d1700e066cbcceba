//! A set of messages of one mailbox, by their place in it.

/// One bit a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Bits {
    words: Vec<u64>,
    length: usize,
}

impl Bits {
    pub(super) fn none(length: usize) -> Self {
        Self { words: vec![0; length.div_ceil(64)], length }
    }

    pub(super) fn from_fn(length: usize, mut has: impl FnMut(usize) -> bool) -> Self {
        let mut bits = Self::none(length);
        for at in 0..length {
            bits.words[at / 64] |= u64::from(has(at)) << (at % 64);
        }
        bits
    }

    pub(super) fn set(&mut self, at: usize) {
        self.words[at / 64] |= 1 << (at % 64);
    }

    pub(super) fn unset(&mut self, at: usize) {
        self.words[at / 64] &= !(1 << (at % 64));
    }

    pub(super) fn has(&self, at: usize) -> bool {
        self.words.get(at / 64).is_some_and(|word| word >> (at % 64) & 1 == 1)
    }

    /// One more, at the end.
    pub(super) fn push(&mut self, has: bool) {
        if self.length.is_multiple_of(64) {
            self.words.push(0);
        }
        self.length += 1;
        if has {
            self.set(self.length - 1);
        }
    }

    pub(super) fn and(&mut self, other: &Self) {
        self.words.iter_mut().zip(&other.words).for_each(|(word, other)| *word &= other);
    }

    pub(super) fn or(&mut self, other: &Self) {
        self.words.iter_mut().zip(&other.words).for_each(|(word, other)| *word |= other);
    }

    pub(super) fn without(&mut self, other: &Self) {
        self.words.iter_mut().zip(&other.words).for_each(|(word, other)| *word &= !other);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.words.iter().all(|word| *word == 0)
    }

    /// From the last down.
    pub(super) fn descending(&self) -> impl Iterator<Item = usize> {
        self.words.iter().enumerate().rev().flat_map(|(n, word)| {
            let mut word = *word;
            std::iter::from_fn(move || {
                let at = 63u32.checked_sub(word.leading_zeros())?;
                word &= !(1 << at);
                Some(n * 64 + at as usize)
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_of_bits() {
        let mut bits = Bits::from_fn(130, |at| at % 3 == 0);
        assert_eq!(bits.descending().collect::<Vec<_>>(), (0..130).rev().filter(|at| at % 3 == 0).collect::<Vec<_>>());
        bits.push(true);
        assert!(bits.has(130) && !bits.has(131) && !bits.has(1000));
        bits.without(&Bits::from_fn(131, |at| at < 100));
        assert_eq!(bits.descending().count(), 11);
        bits.unset(130);
        assert!(!bits.is_empty() && !bits.has(130));
    }
}
