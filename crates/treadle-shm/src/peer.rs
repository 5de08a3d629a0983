//! Memory for big payloads: the side that reads what another process allocated.
//!
//! *Guarantees*: every number of a reference is checked against the file's size and the block's header; a mapped block
//! stays mapped as long as somebody holds it, even when the pool is gone; releasing happens once, and never from a
//! forked child.
//! *Assumes*: a reference that releases is mapped once.

use crate::block::{BLOCK_HEADER, BlockHeader, BlockRef, MOST_LEAD, header_at};
use crate::error::ShmError;
use crate::segment::{Mapping, check_sealed, file_bytes};
use crate::sync::{AtomicU64, Mutex, Ordering};
use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::{Arc, PoisonError};

const WHAT: &str = "treadle-arena";
/// Mapped extents kept for reuse: an owner with 64 MiB extents has 16 GiB in as many. Beyond it, unused ones go.
const KEPT_EXTENTS: usize = 256;

/// One extent as this process mapped it, or a part of one.
#[derive(Debug)]
struct PeerExtent {
    map: Mapping,
    /// Where in the extent the mapping begins.
    base: u64,
    /// Up to where pages were mapped in bulk; the owner hands fresh memory out in ascending order.
    populated: AtomicU64,
}

/// The other side's view of an arena.
#[derive(Debug)]
pub struct PeerArena {
    fd: OwnedFd,
    extents: Mutex<HashMap<(u64, u64), Arc<PeerExtent>>>,
}

impl PeerArena {
    /// Takes the file of an arena; nothing is mapped yet.
    ///
    /// # Errors
    /// `Corrupt` when the file could shrink under us.
    pub fn open(fd: OwnedFd) -> Result<PeerArena, ShmError> {
        check_sealed(&fd)?;
        Ok(PeerArena { fd, extents: Mutex::new(HashMap::new()) })
    }

    /// Maps a block; dropping the result tells the owner that it may use the memory again.
    ///
    /// # Errors
    /// `Corrupt` when the numbers do not fit the file or the block, `Map` when the system refuses.
    pub fn map(&self, block: BlockRef) -> Result<Mapped, ShmError> {
        self.map_as(block, true)
    }

    /// Maps a block that several peers read and that its owner frees by force when all are done with it: dropping the
    /// result releases nothing.
    ///
    /// # Errors
    /// As [`PeerArena::map`].
    pub fn view(&self, block: BlockRef) -> Result<Mapped, ShmError> {
        self.map_as(block, false)
    }

    fn map_as(&self, block: BlockRef, releases: bool) -> Result<Mapped, ShmError> {
        let wrong = |why: &str| ShmError::Corrupt(format!("{why}: {block:?}"));
        let end = block.offset.checked_add(block.len).ok_or_else(|| wrong("a block's numbers overflow"))?;
        if block.offset < BLOCK_HEADER || !block.offset.is_multiple_of(BLOCK_HEADER) || end > block.extent_len {
            return Err(wrong("a block does not lie in its extent"));
        }
        // The data may begin somewhat behind the block's place, which is known when the header is mapped.
        let furthest = end.saturating_add(MOST_LEAD.into()).min(block.extent_len);
        let extent = match self.extent(block) {
            // There is no room for all of the extent (ulimit -v): for the block alone there may be.
            Err(ShmError::Map { .. }) => self.part(block, furthest)?,
            extent => extent?,
        };
        let header = header_at(&extent.map, block.offset - extent.base).ok_or_else(|| wrong("a block has no header"))?;
        if header.length.load(Ordering::Relaxed) != block.len {
            return Err(wrong("a block's length is not the one in its header"));
        }
        // [block-released] Acquire
        if header.released.load(Ordering::Acquire) != 0 {
            return Err(wrong("a block was released already"));
        }
        let lead = header.lead_checked()?;
        let end = end + lead;
        if end > block.extent_len {
            return Err(wrong("a block does not lie in its extent"));
        }
        let known = extent.populated.load(Ordering::Relaxed);
        if end > known {
            // The owner holds these pages; mapping them in bulk is 5 times cheaper than by faults. Where the kernel
            // cannot, faults do it.
            let (from, base) = (known.max(extent.base), extent.base);
            let file_offset = block.extent_offset + base;
            let _ = extent.map.populate(&self.fd, file_offset, (from - base) as usize, (end - from) as usize);
            extent.populated.fetch_max(end, Ordering::Relaxed);
        }
        let offset = block.offset - extent.base;
        let (lead, len) = (lead as usize, block.len as usize);
        Ok(Mapped { extent, offset, lead, len, releases, process: rustix::process::getpid() })
    }

    fn extent(&self, block: BlockRef) -> Result<Arc<PeerExtent>, ShmError> {
        let wrong = |why: &str| ShmError::Corrupt(format!("{why}: {block:?}"));
        let mut extents = self.extents.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (block.extent_offset, block.extent_len);
        if let Some(extent) = extents.get(&key) {
            return Ok(Arc::clone(extent));
        }
        let page = rustix::param::page_size() as u64;
        let end = key.0.checked_add(key.1).ok_or_else(|| wrong("an extent's numbers overflow"))?;
        if !key.0.is_multiple_of(page) || !key.1.is_multiple_of(page) || end > file_bytes(&self.fd)? {
            return Err(wrong("an extent does not lie in its file"));
        }
        if extents.len() >= KEPT_EXTENTS {
            extents.retain(|_, extent| Arc::strong_count(extent) > 1);
        }
        let map = Mapping::new(&self.fd, key.0, key.1, WHAT)?;
        let extent = Arc::new(PeerExtent { map, base: 0, populated: AtomicU64::new(0) });
        extents.insert(key, Arc::clone(&extent));
        Ok(extent)
    }

    /// The pages of one block, which ends at `end` in its extent at the latest and whose extent lies in the file. They are unmapped with it.
    fn part(&self, block: BlockRef, end: u64) -> Result<Arc<PeerExtent>, ShmError> {
        let page = rustix::param::page_size() as u64;
        let base = (block.offset - BLOCK_HEADER) / page * page;
        let len = end.next_multiple_of(page) - base;
        let map = Mapping::new(&self.fd, block.extent_offset + base, len, WHAT)?;
        Ok(Arc::new(PeerExtent { map, base, populated: AtomicU64::new(base) }))
    }
}

/// A block of another process, mapped here; it keeps its memory as long as it lives.
#[derive(Debug)]
pub struct Mapped {
    extent: Arc<PeerExtent>,
    offset: u64,
    /// How many bytes behind the block's place its data begin; read once, for the header may be overwritten.
    lead: usize,
    len: usize,
    releases: bool,
    process: rustix::process::Pid,
}

impl Mapped {
    /// The address of the first byte; good while this `Mapped` lives. Another process may still write there.
    pub fn as_ptr(&self) -> *const u8 {
        self.as_mut_ptr()
    }

    /// The address of the first byte, for a holder that writes in place; good while this `Mapped` lives.
    pub fn as_mut_ptr(&self) -> *mut u8 {
        self.extent.map.at(self.offset as usize + self.lead).as_ptr()
    }

    /// The block's length in bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether the block has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// A private copy of all bytes.
    ///
    /// # Errors
    /// `Memory` when there is no memory for it.
    pub fn copy_to_vec(&self) -> Result<Vec<u8>, ShmError> {
        let mut copy = Vec::new();
        copy.try_reserve_exact(self.len).map_err(|_| ShmError::Memory { bytes: self.len as u64 })?;
        // SAFETY: `len` bytes lie at `as_ptr` inside the mapping (checked in `map`); the vector has room for as many;
        // fresh private memory does not overlap them; a concurrent writer can only change the values.
        unsafe {
            std::ptr::copy_nonoverlapping(self.as_ptr(), copy.as_mut_ptr(), self.len);
            copy.set_len(self.len);
        }
        Ok(copy)
    }

    /// Copies the bytes from `offset` on into `target`.
    ///
    /// # Panics
    /// When the block ends before `target` is full.
    pub fn read_at(&self, offset: usize, target: &mut [u8]) {
        let fits = offset.checked_add(target.len()).is_some_and(|end| end <= self.len);
        assert!(fits, "{} bytes at {offset} are not in a block of {}", target.len(), self.len);
        // SAFETY: the range lies inside the block (just checked) and so inside the mapping; `target` is private memory
        // and does not overlap it.
        unsafe { std::ptr::copy_nonoverlapping(self.as_ptr().add(offset), target.as_mut_ptr(), target.len()) };
    }

    fn header(&self) -> Option<&BlockHeader> {
        header_at(&self.extent.map, self.offset)
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // A forked child holds a copy of us, and its end is not ours.
        if self.releases
            && self.process == rustix::process::getpid()
            && let Some(header) = self.header()
        {
            // [block-released] Release: our use of the block is over.
            header.released.store(1, Ordering::Release);
        }
    }
}
