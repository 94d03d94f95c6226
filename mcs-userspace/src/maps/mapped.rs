//! The memory of a `BPF_F_MMAPABLE` array, mapped into this process.
//!
//! The kernel programs read and write the same memory at the same time, so nothing here makes a reference to a row: rows
//! are copied in and out, and what must be whole is one atomic word. This module is one of the two that may use `unsafe`.

#![expect(unsafe_code, reason = "map memory")]

use std::io;
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};

use aya::Pod;
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// All rows of an array map.
#[derive(Debug)]
pub struct Mapped<T> {
    memory: NonNull<u8>,
    rows: u32,
    writable: bool,
    row: PhantomData<T>,
}

// SAFETY: the memory is the kernel's and shared anyhow; all access is by volatile copies and atomics.
unsafe impl<T: Send> Send for Mapped<T> {}

impl<T: Pod> Mapped<T> {
    /// The kernel lays an array's rows out at multiples of eight bytes (`array_map_alloc`, `round_up(value_size, 8)`).
    const STRIDE: usize = size_of::<T>().next_multiple_of(8);

    /// Rows are copied word by word, so their size must be one of whole words.
    const WORDS: usize = {
        assert!(size_of::<T>().is_multiple_of(8) && align_of::<T>() <= 64);
        size_of::<T>() / 8
    };

    /// Maps `rows` rows of the array behind `fd`.
    ///
    /// # Errors
    /// What `mmap` says: `EINVAL` when the map is smaller or was made without `BPF_F_MMAPABLE`.
    pub fn new(fd: impl AsFd, rows: u32, writable: bool) -> io::Result<Self> {
        let access = if writable { ProtFlags::READ | ProtFlags::WRITE } else { ProtFlags::READ };
        // SAFETY: a new mapping at an address of the kernel's choice.
        let memory = unsafe { mmap(ptr::null_mut(), Self::bytes(rows), access, MapFlags::SHARED, fd, 0) }?;
        let memory = NonNull::new(memory.cast()).ok_or_else(|| io::Error::other("mapped at address 0"))?;
        Ok(Self { memory, rows, writable, row: PhantomData })
    }

    fn bytes(rows: u32) -> usize {
        (rows as usize * Self::STRIDE).next_multiple_of(rustix::param::page_size())
    }

    /// How many rows there are.
    #[must_use]
    pub fn rows(&self) -> u32 {
        self.rows
    }

    fn at(&self, index: u32) -> Option<NonNull<u8>> {
        // SAFETY: below `rows`, so inside the mapping.
        (index < self.rows).then(|| unsafe { self.memory.add(index as usize * Self::STRIDE) })
    }

    /// A copy of a row. Words that a program writes meanwhile are each old or new. None beyond the end.
    #[must_use]
    pub fn read(&self, index: u32) -> Option<T> {
        let row = self.at(index)?.cast::<u64>();
        let mut copy = MaybeUninit::<T>::uninit();
        for word in 0..Self::WORDS {
            // SAFETY: WORDS words are a row; the row is inside the mapping and at a multiple of 8.
            unsafe { copy.as_mut_ptr().cast::<u64>().add(word).write_unaligned(row.add(word).read_volatile()) };
        }
        // SAFETY: every byte was written, and every byte pattern is a T.
        Some(unsafe { copy.assume_init() })
    }

    /// Replaces a row; false beyond the end or on a read-only mapping. For rows that no program can reach, or whose
    /// words may be seen one by one.
    pub fn write(&mut self, index: u32, row: &T) -> bool {
        match self.at(index) {
            Some(place) if self.writable => {
                let source = ptr::from_ref(row).cast::<u64>();
                for word in 0..Self::WORDS {
                    // SAFETY: as for `read`, and the mapping is writable.
                    unsafe { place.cast::<u64>().add(word).write_volatile(source.add(word).read_unaligned()) };
                }
                true
            }
            Some(_) | None => false,
        }
    }

    /// The atomic of type `A` at `offset` bytes into a row.
    fn atomic<A>(&self, index: u32, offset: usize) -> Option<&A> {
        if !self.writable || offset + size_of::<A>() > size_of::<T>() || !offset.is_multiple_of(align_of::<A>()) {
            return None;
        }
        // SAFETY: inside a row, aligned (rows lie at multiples of 8), and shared memory that is only changed atomically
        // or by whole copies. It lives as long as `self`.
        self.at(index).map(|row| unsafe { row.add(offset).cast::<A>().as_ref() })
    }

    /// Stores eight bytes at once, after everything stored before; false where there is no such word.
    pub fn store_u64(&mut self, index: u32, offset: usize, value: u64) -> bool {
        self.atomic::<AtomicU64>(index, offset).map(|word| word.store(value, Ordering::Release)).is_some()
    }

    /// Stores four bytes at once, after everything stored before; false where there is no such word.
    pub fn store_u32(&mut self, index: u32, offset: usize, value: u32) -> bool {
        self.atomic::<AtomicU32>(index, offset).map(|word| word.store(value, Ordering::Release)).is_some()
    }

    /// Stores one byte, after everything stored before; false where there is none.
    pub fn store_u8(&mut self, index: u32, offset: usize, value: u8) -> bool {
        self.atomic::<AtomicU8>(index, offset).map(|byte| byte.store(value, Ordering::Release)).is_some()
    }
}

impl<T> Drop for Mapped<T> {
    fn drop(&mut self) {
        let stride = size_of::<T>().next_multiple_of(8);
        let bytes = (self.rows as usize * stride).next_multiple_of(rustix::param::page_size());
        // SAFETY: the mapping made in `new`; no reference into it outlives `self`.
        if let Err(error) = unsafe { munmap(self.memory.as_ptr().cast(), bytes) } {
            tracing::warn!(%error, "unmap an array's memory");
        }
    }
}
