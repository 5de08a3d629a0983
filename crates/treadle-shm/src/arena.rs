//! Memory for big payloads: the side that allocates.
//!
//! *Guarantees*: the allocator's book-keeping is private, so no peer can damage it; exhaustion is an error; a block the
//! peer released is used again, the most recently freed first, for warm memory is what makes big payloads fast.
//! *Assumes*: one owner, which alone allocates; each block is mapped once, by one peer, which releases it, or freed by
//! the owner when that peer died.

use crate::block::{BLOCK_HEADER, Block, BlockRef, MOST_LEAD, header_at};
use crate::copy::{lead, may_lead};
use crate::error::ShmError;
use crate::extents::{Extents, class_of};
use crate::fault::point;
use crate::segment::{Mapping, check_sealed, create_file, file_bytes, grow_file};
use crate::sync::Ordering;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

const WHAT: &str = "treadle-arena";
/// The first extent; each later one is twice as long, or shorter where there is no room for that.
const FIRST_EXTENT: u64 = 1024 * 1024;
/// The longest regular extent: a bigger block has one of its own.
const LONGEST_EXTENT: u64 = 64 * 1024 * 1024;
/// Live blocks looked at by each allocation, so that released ones come back at a constant price.
const LOOKED_AT: usize = 32;

/// The owner's side of one arena.
#[derive(Debug)]
pub struct Arena {
    fd: OwnedFd,
    limit: u64,
    /// Where the next extent begins.
    end: u64,
    /// How long the file is, which cannot shrink: further than `end` when an extent could not be mapped.
    file_bytes: u64,
    next_extent: u64,
    extents: Extents,
    next_serial: u64,
}

impl Arena {
    /// Makes the empty file of an arena, for a worker to [`adopt`](Arena::adopt).
    ///
    /// # Errors
    /// `Create` when the system refuses.
    pub fn empty_file() -> Result<OwnedFd, ShmError> {
        create_file(WHAT)
    }

    /// Makes an arena that grows up to `limit_bytes`; it holds no memory yet.
    ///
    /// # Errors
    /// `Create` when the system refuses.
    pub fn create(limit_bytes: u64) -> Result<Arena, ShmError> {
        Arena::adopt(Arena::empty_file()?, limit_bytes)
    }

    /// Becomes the owner of the empty file that the parent made for it.
    ///
    /// # Errors
    /// `Corrupt` when the file is not empty or not sealed against shrinking.
    pub fn adopt(fd: OwnedFd, limit_bytes: u64) -> Result<Arena, ShmError> {
        check_sealed(&fd)?;
        match file_bytes(&fd)? {
            0 => Ok(Arena {
                fd,
                limit: limit_bytes,
                end: 0,
                file_bytes: 0,
                next_extent: FIRST_EXTENT,
                extents: Extents::default(),
                next_serial: 1,
            }),
            bytes => Err(ShmError::Corrupt(format!("the file of a new arena has {bytes} bytes already"))),
        }
    }

    /// The file, to be handed to the peer.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Allocates a block of `len` bytes, aligned to 64.
    ///
    /// # Errors
    /// `Full` when the limit is reached, `Grow` or `Map` when the system has no more memory.
    pub fn allocate(&mut self, len: usize) -> Result<Block, ShmError> {
        self.take(len, 0)
    }

    /// Allocates a block for a copy of these bytes, which lies so that copying them there is fast; its address is the same as theirs modulo 64
    /// where that matters, else a multiple of 64.
    ///
    /// # Errors
    /// As [`Arena::allocate`].
    pub fn allocate_copy(&mut self, bytes: &[u8]) -> Result<Block, ShmError> {
        self.take(bytes.len(), bytes.as_ptr() as usize)
    }

    fn take(&mut self, len: usize, source: usize) -> Result<Block, ShmError> {
        let wanted = len as u64;
        let spare = if source != 0 && may_lead(len) { MOST_LEAD } else { 0 };
        let full = |arena: &Arena| ShmError::Full {
            wanted,
            outstanding: arena.extents.outstanding,
            limit: arena.limit,
        };
        let class = wanted.checked_add(spare.into()).and_then(class_of).ok_or_else(|| full(self))?;
        let fd = self.fd.as_fd();
        self.extents.collect(LOOKED_AT);
        let mut spot = self.extents.take_free(class, fd)?;
        if spot.is_none() {
            spot = self.extents.take_fresh(class, fd)?;
        }
        if spot.is_none() && self.extents.collect(usize::MAX) > 0 {
            spot = self.extents.take_free(class, fd)?;
        }
        if spot.is_none() {
            self.grow(class, full)?;
            spot = self.extents.take_fresh(class, self.fd.as_fd())?;
        }
        let mut spot = spot.ok_or_else(|| full(self))?;
        spot.len = wanted;
        spot.serial = self.next_serial;
        self.next_serial += 1;
        let serial = spot.serial;
        let map = Arc::clone(self.extents.map_of(&spot).ok_or_else(|| full(self))?);
        let offset = spot.start + BLOCK_HEADER;
        let lead = if spare > 0 { lead(map.at(offset as usize).as_ptr() as usize, source, len) } else { 0 };
        if let Some(header) = header_at(&map, offset) {
            header.length.store(wanted, Ordering::Relaxed);
            header.lead.store(lead as u32, Ordering::Relaxed);
            // [block-released] Release: cleared before the reference travels.
            header.released.store(0, Ordering::Release);
        }
        self.extents.enter(spot);
        point("arena-allocated");
        let extent_len = map.len() as u64;
        let reference = BlockRef { extent_offset: spot.extent, extent_len, offset, len: wanted };
        Ok(Block { map, reference, serial, lead })
    }

    /// Adds an extent that takes a block of `class`, within the limit.
    fn grow(&mut self, class: u64, full: impl Fn(&Arena) -> ShmError) -> Result<(), ShmError> {
        let page = rustix::param::page_size() as u64;
        let least = class.checked_next_multiple_of(page).ok_or_else(|| full(self))?;
        let left = |arena: &Arena| arena.limit.saturating_sub(arena.extents.reserved);
        if left(self) < least {
            self.extents.retire_idle(self.fd.as_fd());
        }
        if left(self) < least {
            return Err(full(self));
        }
        let mut len = least.max(self.next_extent.min(left(self) / page * page));
        loop {
            match self.add_extent(len, &full) {
                Ok(()) => {
                    self.next_extent = (len * 2).min(LONGEST_EXTENT);
                    return Ok(());
                }
                // Little address space (ulimit -v) or a small limit on files: a shorter extent may fit.
                Err(ShmError::Map { .. } | ShmError::Grow { .. }) if len > least => {
                    self.extents.retire_idle(self.fd.as_fd());
                    len = least.max(len / 2 / page * page);
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn add_extent(&mut self, len: u64, full: &impl Fn(&Arena) -> ShmError) -> Result<(), ShmError> {
        let end = self.end.checked_add(len).ok_or_else(|| full(self))?;
        if end > self.file_bytes {
            grow_file(&self.fd, self.file_bytes, end, WHAT)?;
            self.file_bytes = end;
        }
        let map = Mapping::new(&self.fd, self.end, len, WHAT)?;
        self.extents.add(std::mem::replace(&mut self.end, end), map);
        Ok(())
    }

    /// Takes a block back by force, because its peer died or never got it. A reference to no live block is ignored.
    pub fn free(&mut self, block: BlockRef) {
        self.extents.free_block(block);
    }

    /// Takes a block back by force if it still is the allocation of this serial, not a later one in its place.
    pub fn free_serial(&mut self, block: BlockRef, serial: u64) {
        if self.is_live(block, serial) {
            self.free(block);
        }
    }

    /// Whether the allocation of this serial is still live: neither freed nor (as last looked at) released.
    pub fn is_live(&self, block: BlockRef, serial: u64) -> bool {
        let key = block.offset.checked_sub(BLOCK_HEADER).and_then(|start| block.extent_offset.checked_add(start));
        key.and_then(|key| self.extents.serial_at(key)) == Some(serial)
    }

    /// Takes back every block whose peer released it; returns their number.
    pub fn collect(&mut self) -> usize {
        self.extents.collect(usize::MAX)
    }

    /// Bytes in blocks that nobody released yet (as last looked at).
    pub fn outstanding_bytes(&self) -> u64 {
        self.extents.outstanding
    }

    /// Blocks that nobody released yet (as last looked at).
    pub fn outstanding_blocks(&self) -> usize {
        self.extents.live_count()
    }

    /// Bytes of address space in use, which the limit bounds.
    pub fn reserved_bytes(&self) -> u64 {
        self.extents.reserved
    }

    /// Bytes of memory held: what was touched and not given back.
    pub fn populated_bytes(&self) -> u64 {
        self.extents.populated()
    }

    /// Gives idle memory above `keep_bytes` back to the system.
    ///
    /// A few system calls when there is something to give and nothing but a sum when there is not.
    pub fn trim(&mut self, keep_bytes: u64) {
        self.extents.collect(usize::MAX);
        self.extents.trim(keep_bytes, self.fd.as_fd());
    }
}
