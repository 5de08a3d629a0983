//! The allocator's book-keeping: extents of an arena's file, size classes, free and live blocks.
//!
//! *Assumes*: it lies in the owner's private memory; nothing here is ever read from shared memory but the `released`
//! word of a block.

use crate::block::{BLOCK_HEADER, BlockRef, header_at};
use crate::error::ShmError;
use crate::segment::{Mapping, punch};
use crate::sync::Ordering;
use std::collections::{BTreeMap, HashMap};
use std::os::fd::BorrowedFd;
use std::sync::Arc;

/// Fresh memory is had in steps of at least this: one system call for many small blocks. A page fault costs 2.6 us,
/// a page populated in bulk 0.25 (transport study, 7 "Memory").
const POPULATE_STEP: u64 = 256 * 1024;
/// Free blocks below this stay when memory is given back: a system call for less is not worth it.
const TRIM_BLOCK: u64 = 128 * 1024;

/// The bytes of a block with its header, rounded up to its class: at most 1/8 is wasted (64 bytes when small).
pub(crate) fn class_of(len: u64) -> Option<u64> {
    let total = len.checked_add(BLOCK_HEADER)?;
    let step = match total {
        0..=512 => BLOCK_HEADER,
        _ => (1_u64 << (total - 1).ilog2()) / 8,
    };
    total.checked_next_multiple_of(step)
}

/// One mapped range of the arena's file.
#[derive(Debug)]
pub(crate) struct Extent {
    pub(crate) map: Arc<Mapping>,
    /// Where never-used memory begins.
    pub(crate) fresh: u64,
    /// Up to where pages were had.
    populated: u64,
    /// Live blocks.
    live: usize,
}

/// A free or live block: the extent's place in the file, where its header begins in it, its class, its data's length.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spot {
    pub(crate) extent: u64,
    pub(crate) start: u64,
    pub(crate) class: u64,
    pub(crate) len: u64,
    /// Which allocation made it live: tells a block from a later one in the same place.
    pub(crate) serial: u64,
    /// Its pages were given back.
    cold: bool,
}

impl Spot {
    fn key(&self) -> u64 {
        self.extent + self.start
    }
}

/// All extents and blocks of one arena.
#[derive(Debug, Default)]
pub(crate) struct Extents {
    by_offset: BTreeMap<u64, Extent>,
    free: BTreeMap<u64, Vec<Spot>>,
    live: Vec<Spot>,
    /// Where each live block stands in `live`, by its place in the file.
    places: HashMap<u64, usize>,
    cursor: usize,
    /// Bytes of live blocks' data.
    pub(crate) outstanding: u64,
    /// Bytes of all extents.
    pub(crate) reserved: u64,
    /// Bytes of free blocks whose pages were given back.
    cold: u64,
}

impl Extents {
    /// Bytes whose pages are held.
    pub(crate) fn populated(&self) -> u64 {
        self.by_offset.values().map(|extent| extent.populated).sum::<u64>().saturating_sub(self.cold)
    }

    pub(crate) fn add(&mut self, offset: u64, map: Mapping) {
        self.reserved += map.len() as u64;
        self.by_offset.insert(offset, Extent { map: Arc::new(map), fresh: 0, populated: 0, live: 0 });
    }

    pub(crate) fn map_of(&self, spot: &Spot) -> Option<&Arc<Mapping>> {
        self.by_offset.get(&spot.extent).map(|extent| &extent.map)
    }

    /// The most recently freed block that fits well: of this class, or up to a quarter larger.
    pub(crate) fn take_free(&mut self, class: u64, fd: BorrowedFd<'_>) -> Result<Option<Spot>, ShmError> {
        let fitting = self.free.range_mut(class..=class.saturating_add(class / 4));
        let Some(spot) = fitting.filter_map(|(_, spots)| spots.pop()).next() else {
            return Ok(None);
        };
        if spot.cold {
            let filled = match self.map_of(&spot) {
                Some(map) => map.populate(fd, spot.extent, spot.start as usize, spot.class as usize),
                None => Ok(()),
            };
            if let Err(error) = filled {
                self.free.entry(spot.class).or_default().push(spot);
                return Err(error);
            }
            self.cold -= inner_pages(&spot).map_or(0, |(_, len)| len);
        }
        Ok(Some(Spot { cold: false, ..spot }))
    }

    /// Never-used memory for a block of this class, its pages had.
    pub(crate) fn take_fresh(&mut self, class: u64, fd: BorrowedFd<'_>) -> Result<Option<Spot>, ShmError> {
        let fits = |extent: &Extent| extent.map.len() as u64 - extent.fresh >= class;
        let Some((&offset, extent)) = self.by_offset.iter_mut().rev().find(|(_, extent)| fits(extent)) else {
            return Ok(None);
        };
        let (start, end) = (extent.fresh, extent.fresh + class);
        if end > extent.populated {
            let to = end.max(extent.populated + POPULATE_STEP).min(extent.map.len() as u64);
            extent.map.populate(fd, offset, extent.populated as usize, (to - extent.populated) as usize)?;
            extent.populated = to;
        }
        extent.fresh = end;
        Ok(Some(Spot { extent: offset, start, class, len: 0, serial: 0, cold: false }))
    }

    /// Enters a block as live.
    pub(crate) fn enter(&mut self, spot: Spot) {
        if let Some(extent) = self.by_offset.get_mut(&spot.extent) {
            extent.live += 1;
        }
        self.outstanding += spot.len;
        self.places.insert(spot.key(), self.live.len());
        self.live.push(spot);
    }

    /// The serial of the live block in this place of the file.
    pub(crate) fn serial_at(&self, key: u64) -> Option<u64> {
        self.places.get(&key).map(|&place| self.live[place].serial)
    }

    /// Takes a live block back; false when there is none with exactly these numbers.
    pub(crate) fn free_block(&mut self, block: BlockRef) -> bool {
        let Some(start) = block.offset.checked_sub(BLOCK_HEADER) else { return false };
        let place = block.extent_offset.checked_add(start).and_then(|key| self.places.get(&key).copied());
        let Some((place, spot)) = place.map(|place| (place, self.live[place])) else { return false };
        let extent_len = self.map_of(&spot).map_or(0, |map| map.len() as u64);
        let same = (spot.extent, extent_len, spot.len) == (block.extent_offset, block.extent_len, block.len);
        if same {
            self.free_place(place);
        }
        same
    }

    fn free_place(&mut self, place: usize) {
        let spot = self.live.swap_remove(place);
        self.places.remove(&spot.key());
        if let Some(moved) = self.live.get(place) {
            self.places.insert(moved.key(), place);
        }
        if let Some(extent) = self.by_offset.get_mut(&spot.extent) {
            extent.live -= 1;
        }
        self.outstanding -= spot.len;
        self.free.entry(spot.class).or_default().push(spot);
    }

    /// Looks at up to `most` live blocks, in turn, and takes back those that the peer released.
    pub(crate) fn collect(&mut self, most: usize) -> usize {
        let mut taken = 0;
        for _ in 0..most.min(self.live.len()) {
            if self.cursor >= self.live.len() {
                self.cursor = 0;
            }
            let Some(spot) = self.live.get(self.cursor) else { break };
            let released = self
                .map_of(spot)
                .and_then(|map| header_at(map, spot.start + BLOCK_HEADER))
                // [block-released] Acquire: the peer's use of the block is over.
                .is_some_and(|header| header.released.load(Ordering::Acquire) != 0);
            if released {
                self.free_place(self.cursor); // another block moves to this place: look there next
                taken += 1;
            } else {
                self.cursor += 1;
            }
        }
        taken
    }

    pub(crate) fn live_count(&self) -> usize {
        self.live.len()
    }

    /// Forgets every extent without a live block, gives its memory back, and unmaps it.
    pub(crate) fn retire_idle(&mut self, fd: BorrowedFd<'_>) -> bool {
        let idle: Vec<u64> = self.idle_extents().collect();
        for offset in &idle {
            self.forget_free_of(*offset);
            if let Some(extent) = self.by_offset.remove(offset) {
                self.reserved -= extent.map.len() as u64;
                punch(fd, *offset, extent.map.len() as u64);
            }
        }
        !idle.is_empty()
    }

    /// Gives idle memory above `keep` bytes back: whole extents first, then big free blocks, the biggest first.
    pub(crate) fn trim(&mut self, keep: u64, fd: BorrowedFd<'_>) {
        let in_use: u64 = self.live.iter().map(|spot| spot.class).sum();
        let extents: Vec<u64> = self.idle_extents().collect();
        for offset in extents.into_iter().rev() {
            if self.populated().saturating_sub(in_use) <= keep {
                return;
            }
            if let Some(extent) = self.by_offset.get_mut(&offset)
                && extent.populated > 0
                && punch(fd, offset, extent.map.len() as u64)
            {
                extent.populated = 0;
                self.forget_free_of(offset);
            }
        }
        let mut idle = self.populated().saturating_sub(in_use);
        for spot in self.free.range_mut(TRIM_BLOCK..).rev().flat_map(|(_, spots)| spots) {
            if idle <= keep {
                return;
            }
            if let (false, Some((start, len))) = (spot.cold, inner_pages(spot))
                && punch(fd, spot.extent + start, len)
            {
                spot.cold = true;
                self.cold += len;
                idle = idle.saturating_sub(len);
            }
        }
    }

    fn idle_extents(&self) -> impl Iterator<Item = u64> + '_ {
        self.by_offset.iter().filter(|(_, extent)| extent.live == 0).map(|(offset, _)| *offset)
    }

    /// Drops the free blocks of an extent whose pages were all given back: it is fresh again, or goes.
    fn forget_free_of(&mut self, offset: u64) {
        let mut cold = 0;
        for spots in self.free.values_mut() {
            spots.retain(|spot| {
                if spot.extent == offset && spot.cold {
                    cold += inner_pages(spot).map_or(0, |(_, len)| len);
                }
                spot.extent != offset
            });
        }
        self.free.retain(|_, spots| !spots.is_empty());
        self.cold -= cold;
        if let Some(extent) = self.by_offset.get_mut(&offset) {
            extent.fresh = 0;
        }
    }
}

/// The whole pages inside a block, as an offset in its extent and a length.
fn inner_pages(spot: &Spot) -> Option<(u64, u64)> {
    let page = rustix::param::page_size() as u64;
    let from = spot.start.next_multiple_of(page);
    let to = (spot.start + spot.class) / page * page;
    (to > from).then(|| (from, to - from))
}
