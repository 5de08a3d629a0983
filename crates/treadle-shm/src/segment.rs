//! A shared-memory file and its mapping.
//!
//! *Guarantees*: a file made here cannot shrink (it is sealed), and one that could is refused when opened, so a
//! mapping never loses its file; pages are had before they are used, so exhaustion is an error and not a SIGBUS.

use crate::error::ShmError;
use rustix::fs::{FallocateFlags, MemfdFlags, SealFlags};
use rustix::mm::{Advice, MapFlags, ProtFlags};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::ptr::NonNull;

/// The seals of a file that may grow, but never shrink.
const GROWING: SealFlags = SealFlags::SHRINK.union(SealFlags::SEAL);

/// Makes an empty shared-memory file that can grow and cannot shrink.
pub(crate) fn create_file(name: &'static str) -> Result<OwnedFd, ShmError> {
    let create = |source: io::Error| ShmError::Create { what: name, bytes: 0, source };
    let fd = rustix::fs::memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)
        .map_err(|error| create(error.into()))?;
    rustix::fs::fcntl_add_seals(&fd, GROWING).map_err(|error| create(error.into()))?;
    Ok(fd)
}

/// Refuses a file that its other holders could shrink under our mapping.
pub(crate) fn check_sealed(fd: impl AsFd) -> Result<(), ShmError> {
    match rustix::fs::fcntl_get_seals(fd) {
        Ok(seals) if seals.contains(SealFlags::SHRINK) => Ok(()),
        Ok(_) => Err(ShmError::Corrupt("a shared-memory file is not sealed against shrinking".to_owned())),
        Err(error) => Err(ShmError::Corrupt(format!("not a shared-memory file: {error}"))),
    }
}

/// The file's size in bytes, as the kernel knows it.
pub(crate) fn file_bytes(fd: impl AsFd) -> Result<u64, ShmError> {
    match rustix::fs::fstat(fd) {
        Ok(stat) => Ok(u64::try_from(stat.st_size).unwrap_or(0)),
        Err(error) => Err(ShmError::Corrupt(format!("cannot ask a shared-memory file for its size: {error}"))),
    }
}

/// Sets the file's size.
pub(crate) fn grow_file(fd: impl AsFd, from: u64, to: u64, what: &'static str) -> Result<(), ShmError> {
    rustix::fs::ftruncate(fd, to)
        .map_err(|error| ShmError::Grow { what, bytes: to - from, source: error.into() })
}

/// One mapped range of a shared-memory file; unmapped when dropped.
#[derive(Debug)]
pub(crate) struct Mapping {
    start: NonNull<u8>,
    len: usize,
    what: &'static str,
}

// SAFETY: a mapping is plain memory that stays at its address until dropped; it has no tie to a thread.
unsafe impl Send for Mapping {}
// SAFETY: through `&Mapping` only addresses are given out; who reads or writes there says why that is sound.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps `len` bytes from `offset` on, both multiples of the page size, inside the file's present size.
    pub(crate) fn new(fd: impl AsFd, offset: u64, len: u64, what: &'static str) -> Result<Mapping, ShmError> {
        let failed = |source: io::Error| ShmError::Map { what, bytes: len, source };
        let size = usize::try_from(len).map_err(|_| failed(io::ErrorKind::OutOfMemory.into()))?;
        // SAFETY: a null hint lets the kernel choose a free range, so no existing mapping is touched.
        let start = unsafe {
            rustix::mm::mmap(
                std::ptr::null_mut(),
                size,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
                fd,
                offset,
            )
        }
        .map_err(|error| failed(error.into()))?;
        let start = NonNull::new(start.cast()).ok_or_else(|| failed(io::ErrorKind::OutOfMemory.into()))?;
        Ok(Mapping { start, len: size, what })
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The address of the byte at `offset`, which must lie inside.
    pub(crate) fn at(&self, offset: usize) -> NonNull<u8> {
        assert!(offset <= self.len, "offset {offset} is outside a mapping of {} bytes", self.len);
        // SAFETY: just checked that the result lies inside the mapping or one past its end.
        unsafe { self.start.add(offset) }
    }

    /// Has the pages of a range before they are touched; `offset` and `len` are rounded out to pages.
    ///
    /// # Errors
    /// `Grow` when the memory cannot be had.
    pub(crate) fn populate(&self, fd: impl AsFd, file_offset: u64, offset: usize, len: usize) -> Result<(), ShmError> {
        let page = rustix::param::page_size();
        let from = offset / page * page;
        let to = (offset + len).next_multiple_of(page).min(self.len);
        if from >= to {
            return Ok(());
        }
        let grow = |source: io::Error| ShmError::Grow { what: self.what, bytes: (to - from) as u64, source };
        // SAFETY: the range lies inside this mapping; populating changes no byte.
        let populated = unsafe {
            rustix::mm::madvise(self.at(from).as_ptr().cast(), to - from, Advice::LinuxPopulateWrite)
        };
        match populated {
            Ok(()) => Ok(()),
            // Before Linux 5.14: take the pages from the file system instead; the first touch then only maps them.
            Err(rustix::io::Errno::INVAL) => rustix::fs::fallocate(
                fd,
                FallocateFlags::KEEP_SIZE,
                file_offset + from as u64,
                (to - from) as u64,
            )
            .map_err(|error| grow(error.into())),
            Err(error) => Err(grow(error.into())),
        }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the range came from mmap in `new`, and every user of its memory borrows or holds this mapping.
        let _ = unsafe { rustix::mm::munmap(self.start.as_ptr().cast(), self.len) };
    }
}

/// Whether this process has so many bytes of address space left: asked before much is begun that would need them piece by piece.
///
/// # Errors
/// `Map` when it has not.
pub fn check_address_space(bytes: usize) -> Result<(), ShmError> {
    let failed = |source: io::Error| ShmError::Map { what: "what a pool needs for itself", bytes: bytes as u64, source };
    // SAFETY: a null hint lets the kernel choose a free range; it is given back at once and never touched.
    unsafe {
        let start = rustix::mm::mmap_anonymous(std::ptr::null_mut(), bytes, ProtFlags::empty(), MapFlags::PRIVATE)
            .map_err(|error| failed(error.into()))?;
        rustix::mm::munmap(start, bytes).map_err(|error| failed(error.into()))
    }
}

/// Gives the pages of a range of the file back to the system; they read as zero afterwards.
pub(crate) fn punch(fd: impl AsFd, offset: u64, len: u64) -> bool {
    rustix::fs::fallocate(fd, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, offset, len).is_ok()
}
