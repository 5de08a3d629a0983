//! The bytes of a task and of a record: what the parent and a worker agree on.
//!
//! ```text
//! task payload    [function id u32][function block 32]?  [packet]
//! record          [started u64][ended u64]? [packet]
//! packet          [buffer count u16][ (block 32, read-only u8) … ][body …]
//! ```
//!
//! A payload longer than a slot, or a record longer than a ring takes, has its packet in one arena block, and the slot or record
//! holds only that block's reference ([`IN_ARENA`]). A record that ends a task tells when that began and ended there ([`Times`]).
//!
//! *Assumes* nothing about the other side: every length is checked, and a packet that does not fit its bytes is a [`WireError`].

use treadle_shm::{BlockRef, REFERENCE_BYTES};

/// Set in a kind: the inline bytes are the reference of one arena block that holds the payload or record.
pub const IN_ARENA: u32 = 1 << 8;
/// Set in a task's kind: the payload names a function of the pool's table.
pub const HAS_FUNCTION: u32 = 1 << 9;
/// Set in a task's kind: give the function private copies of the buffers, because the task may have to run again.
pub const COPY_BUFFERS: u32 = 1 << 10;
/// Set in a task's kind: the items of the chunk are one argument each, not tuples of arguments.
pub const SINGLE_ARGUMENT: u32 = 1 << 11;
/// The bits of a kind that say what the body is.
pub const BODY: u32 = 0xff;

/// Task body: the positional arguments as scalars ([`HAS_FUNCTION`] is set).
pub const CALL_SCALARS: u32 = 1;
/// Task body: a pickle of `(args, kwargs)` ([`HAS_FUNCTION`] is set).
pub const CALL_PICKLED: u32 = 2;
/// Task body: a pickle of `(function, args, kwargs)`.
pub const CALL_WHOLE: u32 = 3;
/// Task body: a chunk of single arguments as scalars ([`HAS_FUNCTION`] is set).
pub const CHUNK_SCALARS: u32 = 4;
/// Task body: a pickle of a list of argument tuples ([`HAS_FUNCTION`] is set).
pub const CHUNK_PICKLED: u32 = 5;
/// Task body: a pickle of `(function, list of argument tuples)`.
pub const CHUNK_WHOLE: u32 = 6;

/// Record body: the result as one scalar.
pub const VALUE_SCALAR: u32 = 1;
/// Record body: the result, pickled.
pub const VALUE_PICKLED: u32 = 2;
/// Record body: the exception and its traceback, pickled.
pub const RAISED: u32 = 3;
/// Record body: the seconds that a chunk took, and its results from the last part on, as values.
pub const VALUES: u32 = 4;
/// Record body: as [`RAISED`], and the task is not to be run again: it was interrupted, or asked the program to end.
pub const RAISED_FINAL: u32 = 5;
/// Record body: more results of a chunk that goes on, as values. It ends no task.
pub const VALUES_PART: u32 = 6;
/// Record body: the worker has finished its initializer and takes tasks; the body is its process id.
pub const READY: u32 = 16;
/// Record body: the worker leaves by plan; the body says why.
pub const RETIRED: u32 = 17;
/// Record body: the initializer failed; the body is its traceback as text.
pub const INITIALIZER_FAILED: u32 = 18;
/// Record body: something a worker printed, warned or logged, pickled.
pub const NOTE: u32 = 19;

/// Whether a record's body is an exception.
pub fn is_raised(kind: u32) -> bool {
    matches!(kind, RAISED | RAISED_FINAL)
}

/// Whether a record of this kind ends its task.
pub fn ends_task(kind: u32) -> bool {
    kind & BODY < READY && kind & BODY != VALUES_PART
}

const BLOCK: usize = 32;

/// What is wrong with bytes that the other side wrote.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct WireError(pub &'static str);

/// When a worker took a task and when it was through with it, in nanoseconds of the monotonic clock, which all processes share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Times {
    /// When it was claimed.
    pub started_ns: u64,
    /// When its record was written.
    pub ended_ns: u64,
}

impl Times {
    /// As they stand in a record.
    pub fn to_bytes(self) -> [u8; 16] {
        (u128::from(self.started_ns) | u128::from(self.ended_ns) << 64).to_le_bytes()
    }

    /// Splits the times off a record that [ends its task](ends_task).
    ///
    /// # Errors
    /// When the bytes are too short.
    pub fn read(bytes: &[u8]) -> Result<(Times, &[u8]), WireError> {
        let (times, rest) = bytes
            .split_first_chunk::<16>()
            .ok_or(WireError("a record without its times"))?;
        let both = u128::from_le_bytes(*times);
        Ok((
            Times {
                started_ns: both as u64,
                ended_ns: (both >> 64) as u64,
            },
            rest,
        ))
    }
}

/// The process that a record of kind [`READY`] names; 0 when its bytes are no process id.
pub fn read_ready(bytes: &[u8]) -> i32 {
    bytes.try_into().map_or(0, i32::from_le_bytes).max(0)
}

/// One out-of-band buffer of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BufferRef {
    /// Where its bytes stand.
    pub block: BlockRef,
    /// Whether the object that it came from was read-only.
    pub read_only: bool,
}

impl BufferRef {
    /// The buffer as it stands in a packet.
    pub fn to_bytes(self) -> [u8; REFERENCE_BYTES] {
        let mut bytes = [0; REFERENCE_BYTES];
        bytes[..BLOCK].copy_from_slice(&self.block.to_bytes());
        bytes[BLOCK] = u8::from(self.read_only);
        bytes
    }
}

/// The block of a buffer as it stands in a packet.
pub fn block_of(buffer: &[u8; REFERENCE_BYTES]) -> BlockRef {
    let mut block = [0; BLOCK];
    block.copy_from_slice(&buffer[..BLOCK]);
    BlockRef::from_bytes(block)
}

/// Reads the reference that stands in place of a payload or record ([`IN_ARENA`]).
///
/// # Errors
/// When the bytes are not exactly one reference.
pub fn read_reference(bytes: &[u8]) -> Result<BlockRef, WireError> {
    let exact: [u8; BLOCK] = bytes
        .try_into()
        .map_err(|_| WireError("a block reference of the wrong length"))?;
    Ok(BlockRef::from_bytes(exact))
}

/// Appends the head of a payload: the function it calls.
pub fn write_function(out: &mut Vec<u8>, id: u32, block: BlockRef) {
    out.extend_from_slice(&id.to_le_bytes());
    out.extend_from_slice(&block.to_bytes());
}

/// Splits the head of a payload off: function id, block of its pickle, and the packet.
///
/// # Errors
/// When the bytes are too short.
pub fn read_function(bytes: &[u8]) -> Result<(u32, BlockRef, &[u8]), WireError> {
    let (id, rest) = bytes
        .split_first_chunk::<4>()
        .ok_or(WireError("a payload without its function"))?;
    let (block, rest) = rest
        .split_first_chunk::<BLOCK>()
        .ok_or(WireError("a payload without its function's block"))?;
    Ok((u32::from_le_bytes(*id), BlockRef::from_bytes(*block), rest))
}

/// Appends the head of a packet: its buffers. The body follows.
pub fn write_buffers(out: &mut Vec<u8>, buffers: &[[u8; REFERENCE_BYTES]]) {
    out.extend_from_slice(
        &u16::try_from(buffers.len())
            .unwrap_or(u16::MAX)
            .to_le_bytes(),
    );
    out.extend_from_slice(buffers.as_flattened());
}

/// The most buffers that a packet may carry; a payload with more carries all of them in its body.
pub const MOST_BUFFERS: usize = 4096;

/// A packet, taken apart.
#[derive(Debug)]
pub struct Packet<'a> {
    buffers: &'a [u8],
    /// The body's bytes.
    pub body: &'a [u8],
}

impl<'a> Packet<'a> {
    /// Takes a packet apart.
    ///
    /// # Errors
    /// When a length in it does not fit the bytes.
    pub fn read(bytes: &'a [u8]) -> Result<Packet<'a>, WireError> {
        let (count, rest) = bytes
            .split_first_chunk::<2>()
            .ok_or(WireError("an empty packet"))?;
        let length = usize::from(u16::from_le_bytes(*count)) * REFERENCE_BYTES;
        if rest.len() < length {
            return Err(WireError("a packet shorter than its buffers"));
        }
        let (buffers, body) = rest.split_at(length);
        Ok(Packet { buffers, body })
    }

    /// The packet's buffers in their order.
    pub fn buffers(&self) -> impl ExactSizeIterator<Item = BufferRef> + 'a {
        let (whole, _) = self.buffers.as_chunks::<REFERENCE_BYTES>();
        whole.iter().map(|buffer| BufferRef {
            block: block_of(buffer),
            read_only: buffer[BLOCK] != 0,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_process_id_is_none() {
        assert_eq!(read_ready(&4711_u32.to_le_bytes()), 4711);
        for bytes in [&b""[..], b"abc", &u32::MAX.to_le_bytes(), &[1; 8]] {
            assert_eq!(read_ready(bytes), 0);
        }
    }

    #[test]
    fn a_packet_survives_the_round_trip() {
        let block = BlockRef {
            extent_offset: 4096,
            extent_len: 1 << 20,
            offset: 64,
            len: 100,
        };
        let mut bytes = Vec::new();
        write_buffers(
            &mut bytes,
            &[BufferRef {
                block,
                read_only: true,
            }
            .to_bytes()],
        );
        bytes.extend_from_slice(b"body");
        let packet = Packet::read(&bytes).unwrap();
        assert_eq!(packet.body, b"body");
        assert_eq!(
            packet.buffers().collect::<Vec<_>>(),
            [BufferRef {
                block,
                read_only: true
            }]
        );
    }

    #[test]
    fn truncated_bytes_are_refused_at_every_length() {
        let block = BlockRef {
            extent_offset: 0,
            extent_len: 1,
            offset: 0,
            len: 1,
        };
        let mut bytes = Vec::new();
        write_buffers(
            &mut bytes,
            &[BufferRef {
                block,
                read_only: false,
            }
            .to_bytes()],
        );
        for length in 0..bytes.len() {
            assert!(
                Packet::read(&bytes[..length]).is_err(),
                "{length} bytes were taken for a packet"
            );
        }
    }
}
