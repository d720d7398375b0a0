//! CRC-32C of records and blocks. For short ones, this takes half as long as the crate that is used for long ones. It also
//! works on words in a map, to which the crate cannot take a reference.

use std::sync::atomic::{AtomicU64, Ordering};

/// Longer ones are faster in parallel, as in the crate.
#[cfg(target_arch = "x86_64")]
const SHORT: usize = 512;

/// The checksum of data with the checksum `crc`, followed by `bytes`.
#[inline(always)]
pub fn append(crc: u32, bytes: &[u8]) -> u32 {
    #[cfg(target_arch = "x86_64")]
    if bytes.len() <= SHORT && std::is_x86_feature_detected!("sse4.2") {
        // SAFETY: the processor has the instruction.
        return unsafe { append_short(crc, bytes) };
    }
    crc32c::crc32c_append(crc, bytes)
}

/// # Safety
/// The processor must have SSE 4.2.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "sse4.2")]
#[inline]
unsafe fn append_short(crc: u32, bytes: &[u8]) -> u32 {
    use std::arch::x86_64::{_mm_crc32_u32, _mm_crc32_u64, _mm_crc32_u8};
    let (words, rest) = bytes.as_chunks::<8>();
    let mut sum = u64::from(!crc);
    for word in words {
        sum = _mm_crc32_u64(sum, u64::from_le_bytes(*word));
    }
    let mut sum = sum as u32;
    let (words, rest) = rest.as_chunks::<4>();
    for word in words {
        sum = _mm_crc32_u32(sum, u32::from_le_bytes(*word));
    }
    for byte in rest {
        sum = _mm_crc32_u8(sum, *byte);
    }
    !sum
}

/// As [`append`], for words that others may change at the same time.
pub fn append_words(crc: u32, words: &[AtomicU64]) -> u32 {
    #[cfg(target_arch = "x86_64")]
    if std::is_x86_feature_detected!("sse4.2") {
        // SAFETY: the processor has the instruction.
        return unsafe { lanes::append(crc, words) };
    }
    append_copied(crc, words)
}

fn append_copied(mut crc: u32, words: &[AtomicU64]) -> u32 {
    let mut piece = [0u8; 4096];
    for words in words.chunks(piece.len() / 8) {
        for (place, word) in piece.as_chunks_mut::<8>().0.iter_mut().zip(words) {
            *place = word.load(Ordering::Relaxed).to_ne_bytes();
        }
        crc = append(crc, &piece[..words.len() * 8]);
    }
    crc
}

/// Three checksums at once: the processor can start one of these instructions per cycle, and finishes it after three.
#[cfg(target_arch = "x86_64")]
mod lanes {
    use std::arch::x86_64::_mm_crc32_u64;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::sync::OnceLock;

    /// The number of words in a lane.
    const LANE: usize = 128;

    /// # Safety
    /// The processor must have SSE 4.2.
    #[target_feature(enable = "sse4.2")]
    pub unsafe fn append(crc: u32, words: &[AtomicU64]) -> u32 {
        let load = |word: &AtomicU64| u64::from_le(word.load(Ordering::Relaxed));
        let mut sum = u64::from(!crc);
        let (blocks, rest) = words.as_chunks::<{ 3 * LANE }>();
        if !blocks.is_empty() {
            // SAFETY: the caller's promise.
            let behind = BEHIND.get_or_init(|| unsafe { Behind::new() });
            for block in blocks {
                let (mut second, mut third) = (0, 0);
                for index in 0..LANE {
                    sum = _mm_crc32_u64(sum, load(&block[index]));
                    second = _mm_crc32_u64(second, load(&block[LANE + index]));
                    third = _mm_crc32_u64(third, load(&block[2 * LANE + index]));
                }
                sum = behind.lane(behind.lane(sum) ^ second) ^ third;
            }
        }
        for word in rest {
            sum = _mm_crc32_u64(sum, load(word));
        }
        !(sum as u32)
    }

    /// The effect of a lane of zeros on a checksum, byte by byte, because a checksum is linear.
    struct Behind([[u32; 256]; 4]);

    static BEHIND: OnceLock<Behind> = OnceLock::new();

    impl Behind {
        /// # Safety
        /// The processor must have SSE 4.2.
        #[target_feature(enable = "sse4.2")]
        unsafe fn new() -> Behind {
            let mut tables = [[0; 256]; 4];
            for (number, table) in tables.iter_mut().enumerate() {
                for bit in 0..8 {
                    let mut sum = 1 << (8 * number + bit);
                    for _ in 0..LANE {
                        sum = _mm_crc32_u64(sum, 0);
                    }
                    for (byte, entry) in table.iter_mut().enumerate() {
                        if byte >> bit & 1 == 1 {
                            *entry ^= sum as u32;
                        }
                    }
                }
            }
            Behind(tables)
        }

        #[inline(always)]
        fn lane(&self, sum: u64) -> u64 {
            let [first, second, third, fourth] = &self.0;
            let byte = |number: u32| (sum >> (8 * number)) as usize & 0xff;
            let sum = first[byte(0)] ^ second[byte(1)] ^ third[byte(2)] ^ fourth[byte(3)];
            u64::from(sum)
        }
    }
}

/// Copies bytes, and returns the checksum of data with the checksum `crc`, followed by the copied bytes. Source or
/// destination may be in a map, which others change at the same time. `own` is the other one, from which the checksum is
/// computed.
///
/// Not through a buffer in between: the compiler would detect that the buffer equals `from`, and read `from` twice.
///
/// # Safety
/// `from` must have `count` readable bytes, and `to` room for as many; they must not overlap. `own` must be one of them, and
/// not be changed by others.
#[inline(always)]
pub unsafe fn copy(crc: u32, from: *const u8, to: *mut u8, own: *const u8, count: usize) -> u32 {
    #[cfg(target_arch = "x86_64")]
    if count <= SHORT && std::is_x86_feature_detected!("sse4.2") {
        // SAFETY: the processor has the instruction; the rest by the caller's promise.
        return unsafe { copy_short(crc, from, to, count) };
    }
    let mut crc = crc;
    let mut done = 0;
    while done < count {
        let some = (count - done).min(4096);
        // SAFETY: the caller's promise.
        let bytes = unsafe {
            std::ptr::copy_nonoverlapping(from.add(done), to.add(done), some);
            std::slice::from_raw_parts(own.add(done), some)
        };
        crc = append(crc, bytes);
        done += some;
    }
    crc
}

/// # Safety
/// As [`copy`], and the processor must have SSE 4.2.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "sse4.2")]
#[inline]
unsafe fn copy_short(crc: u32, from: *const u8, to: *mut u8, count: usize) -> u32 {
    use std::arch::x86_64::{_mm_crc32_u64, _mm_crc32_u8};
    let mut sum = u64::from(!crc);
    let words = count / 8;
    for word in 0..words {
        // SAFETY: below `count`.
        unsafe {
            let value = from.cast::<u64>().add(word).read_unaligned();
            to.cast::<u64>().add(word).write_unaligned(value);
            sum = _mm_crc32_u64(sum, value.to_le());
        }
    }
    let mut sum = sum as u32;
    for byte in words * 8..count {
        // SAFETY: as above.
        unsafe {
            let value = from.add(byte).read();
            to.add(byte).write(value);
            sum = _mm_crc32_u8(sum, value);
        }
    }
    !sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_have_that_of_the_crate() {
        let words: Vec<u64> = (1..3000u64).map(|n| n.wrapping_mul(n << 40 | 7)).collect();
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        let words: Vec<AtomicU64> = words.into_iter().map(AtomicU64::new).collect();
        for count in (0..20).chain(380..390).chain([767, 768, 1152, 2999]) {
            let expected = crc32c::crc32c_append(77, &bytes[..count * 8]);
            assert_eq!(append_words(77, &words[..count]), expected);
            assert_eq!(append_copied(77, &words[..count]), expected);
        }
    }

    #[test]
    fn is_that_of_the_crate() {
        let bytes: Vec<u8> = (0..600u32).map(|n| ((n * n) >> 3) as u8).collect();
        // Miri takes too long for all lengths.
        let step = if cfg!(miri) { 97 } else { 1 };
        for start in 0..9 {
            for end in (start..bytes.len()).step_by(step) {
                let bytes = &bytes[start..end];
                assert_eq!(append(77, bytes), crc32c::crc32c_append(77, bytes));
            }
        }
        assert_eq!(append(0, b"123456789"), 0xe306_9283);
        let many: Vec<u8> = (0..10_000u32).map(|n| ((n * n) >> 3) as u8).collect();
        for count in [0, 1, 7, 8, 9, 64, 75, 511, 512, 513, 4096, 4097, 9999] {
            let mut copied = vec![0; count];
            // SAFETY: both have `count` bytes.
            let crc = unsafe {
                let to = copied.as_mut_ptr();
                copy(77, many.as_ptr().add(1), to, to, count)
            };
            assert_eq!(crc, append(77, &many[1..=count]));
            assert_eq!(copied, many[1..=count]);
        }
    }
}
