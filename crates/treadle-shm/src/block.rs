//! One block of an arena, and the four numbers by which the other side finds it.

use crate::copy::copy_to;
use crate::error::ShmError;
use crate::segment::Mapping;
use crate::sync::{AtomicU32, AtomicU64, Ordering};
use std::sync::Arc;

/// Bytes before each block, so that its data begins on a cache line.
pub(crate) const BLOCK_HEADER: u64 = 64;

/// A block's data begins less than this many bytes behind its place.
pub(crate) const MOST_LEAD: u32 = 128;

/// What stands before each block in shared memory.
#[derive(Debug)]
#[repr(C, align(64))]
pub(crate) struct BlockHeader {
    /// The block's length in bytes; written by the owner.
    pub(crate) length: AtomicU64,
    /// 0 = the peer may use the block; 1 = it let go. Cleared by the owner, set by the peer.
    pub(crate) released: AtomicU32,
    /// How many bytes behind the block's place its data begins; written by the owner.
    pub(crate) lead: AtomicU32,
}

impl BlockHeader {
    /// The lead, for a peer: whatever stands there.
    pub(crate) fn lead_checked(&self) -> Result<u64, ShmError> {
        match self.lead.load(Ordering::Relaxed) {
            lead if lead < MOST_LEAD => Ok(lead.into()),
            lead => Err(ShmError::Corrupt(format!("a block's data begin {lead} bytes behind its place"))),
        }
    }
}

const _: () = assert!(size_of::<BlockHeader>() as u64 == BLOCK_HEADER);

/// The header of the block whose data begins at `offset` of a mapped extent.
pub(crate) fn header_at(map: &Mapping, offset: u64) -> Option<&BlockHeader> {
    let at = offset.checked_sub(BLOCK_HEADER)?;
    if !at.is_multiple_of(BLOCK_HEADER) || offset > map.len() as u64 {
        return None;
    }
    // SAFETY: `at` and the 64 bytes after it lie inside the mapping (just checked), aligned to 64 as mappings are to
    // pages; the header consists of atomics, which any bytes are valid for and any process may change.
    Some(unsafe { map.at(at as usize).cast::<BlockHeader>().as_ref() })
}

/// Where a block lies: enough for the other side to map and check it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BlockRef {
    /// Where the block's extent begins in the arena's file, in bytes.
    pub extent_offset: u64,
    /// The extent's length in bytes.
    pub extent_len: u64,
    /// The block's place in the extent, in bytes; its data begin there, or as far behind as its header says.
    pub offset: u64,
    /// The data's length in bytes.
    pub len: u64,
}

impl BlockRef {
    /// The reference as it travels in a payload or record, in native byte order.
    pub fn to_bytes(self) -> [u8; 32] {
        let mut bytes = [0; 32];
        let numbers = [self.extent_offset, self.extent_len, self.offset, self.len];
        for (place, number) in bytes.chunks_exact_mut(8).zip(numbers) {
            place.copy_from_slice(&number.to_ne_bytes());
        }
        bytes
    }

    /// The reference that [`BlockRef::to_bytes`] wrote; any numbers are taken, and checked when mapped.
    pub fn from_bytes(bytes: [u8; 32]) -> BlockRef {
        let number = |at: usize| {
            let mut word = [0; 8];
            word.copy_from_slice(&bytes[at..at + 8]);
            u64::from_ne_bytes(word)
        };
        BlockRef { extent_offset: number(0), extent_len: number(8), offset: number(16), len: number(24) }
    }
}

/// A block the owner allocated and may fill. Dropping it frees nothing: the peer releases it, or
/// [`Arena::free`](crate::Arena::free) does.
#[derive(Debug)]
pub struct Block {
    pub(crate) map: Arc<Mapping>,
    pub(crate) reference: BlockRef,
    pub(crate) serial: u64,
    pub(crate) lead: usize,
}

impl Block {
    /// Where the block lies, for the peer.
    pub fn reference(&self) -> BlockRef {
        self.reference
    }

    /// Which allocation of its arena this is; see [`Arena::free_serial`](crate::Arena::free_serial).
    pub fn serial(&self) -> u64 {
        self.serial
    }

    /// The block's length in bytes.
    pub fn len(&self) -> usize {
        self.reference.len as usize
    }

    /// Whether the block has no bytes.
    pub fn is_empty(&self) -> bool {
        self.reference.len == 0
    }

    /// Copies `bytes` to `offset` of the block.
    ///
    /// # Panics
    /// When they do not fit.
    pub fn write_at(&mut self, offset: usize, bytes: &[u8]) {
        let fits = offset.checked_add(bytes.len()).is_some_and(|end| end <= self.len());
        assert!(fits, "{} bytes at {offset} do not fit into a block of {}", bytes.len(), self.len());
        let target = self.map.at(self.reference.offset as usize + self.lead + offset);
        // SAFETY: the target range lies inside this block (just checked), which lies inside the mapping we hold; the
        // source is ordinary memory, as shared memory is never given out as a slice. `&mut self` keeps our own threads out.
        unsafe { copy_to(target, bytes) };
    }

    /// The address of the first byte; good while this `Block` lives.
    pub fn as_ptr(&self) -> *const u8 {
        self.map.at(self.reference.offset as usize + self.lead).as_ptr()
    }

    /// The address of the first byte, for writing; good while this `Block` lives.
    pub fn as_mut_ptr(&mut self) -> *mut u8 {
        self.map.at(self.reference.offset as usize + self.lead).as_ptr()
    }
}
