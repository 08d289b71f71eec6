//! Zeroed storage that starts on a cache line, so that vector loads never straddle two.
//!
//! What is large comes from the system, in pages of two megabytes where it has them. Activations of a pass come and go by the hundreds of megabytes, and an
//! allocator that keeps them in pieces would hold more and more; so they go back to the system, but for the last that were given up: clean pages take it as
//! long as some products.

use std::alloc::{Layout, alloc, alloc_zeroed, dealloc, handle_alloc_error};
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use half::f16;
use memmap2::MmapMut;

/// Bytes in a cache line, and in the widest vector register.
const LINE: usize = 64;

/// Bytes from which on storage comes from the system.
const LARGE: usize = 1 << 18;

/// Bytes of pages that are kept for the next buffer.
const KEPT: usize = 192 << 20;

/// Bytes of pages that are kept while there is a [`MorePages`].
const MORE: usize = 768 << 20;

/// How many [`MorePages`] there are.
static MORE_PAGES: AtomicUsize = AtomicUsize::new(0);

/// Pages of a buffer that was given up, for one that is hardly smaller.
static PAGES: Mutex<Vec<MmapMut>> = Mutex::new(Vec::new());

/// A number whose all-zero bytes are the value zero and that needs no drop.
///
/// Sealed by being implemented here only: [`Buffer`] relies on it.
pub trait Plain: Copy + Send + Sync + 'static + sealed::Sealed {}
impl Plain for f32 {}
impl Plain for f16 {}
impl Plain for u16 {}
impl Plain for u8 {}
impl Plain for i8 {}
impl Plain for i32 {}

mod sealed {
    pub trait Sealed {}
    impl Sealed for f32 {}
    impl Sealed for super::f16 {}
    impl Sealed for u16 {}
    impl Sealed for u8 {}
    impl Sealed for i8 {}
    impl Sealed for i32 {}
}

/// A fixed number of plain values, zeroed at first, on a 64-byte boundary.
pub struct Buffer<T: Plain> {
    start: NonNull<T>,
    len: usize,
    /// Where the values lie, if they are many.
    pages: Option<MmapMut>,
}

impl<T: Plain> Buffer<T> {
    /// `len` zeros.
    pub fn zeroed(len: usize) -> Self {
        if len == 0 {
            return Self { start: NonNull::dangling(), len, pages: None };
        }
        let layout = Self::layout(len);
        if let Some((mut buffer, clean)) = Self::of_pages(layout, len) {
            if !clean {
                #[expect(unsafe_code, reason = "all-zero bytes are the value zero")]
                unsafe {
                    buffer.as_mut_ptr().write_bytes(0, len);
                }
            }
            return buffer;
        }
        #[expect(unsafe_code, reason = "aligned allocation; the layout is not empty")]
        let raw = unsafe { alloc_zeroed(layout) };
        let Some(start) = NonNull::new(raw.cast::<T>()) else { handle_alloc_error(layout) };
        Self { start, len, pages: None }
    }

    /// `len` values, whichever: for what is overwritten as a whole.
    pub fn any(len: usize) -> Self {
        let buffer = match Self::of_pages(Self::layout(len), len) {
            Some((buffer, _)) => buffer,
            None => Self::zeroed(len),
        };
        #[cfg(test)]
        let buffer = {
            let mut buffer = buffer;
            // Whoever reads them shall notice.
            #[expect(unsafe_code, reason = "any bits are a value")]
            unsafe {
                buffer.as_mut_ptr().write_bytes(0xff, len);
            }
            buffer
        };
        buffer
    }

    /// Pages of an earlier buffer or from the system, if the values are many and it gives them; and whether they are zeros.
    fn of_pages(layout: Layout, len: usize) -> Option<(Self, bool)> {
        if layout.size() < LARGE {
            return None;
        }
        let earlier = take_pages(layout.size());
        let clean = earlier.is_none();
        let mut pages = match earlier {
            Some(pages) => pages,
            None => {
                let pages = MmapMut::map_anon(layout.size()).ok()?;
                // Only slower without.
                #[cfg(target_os = "linux")]
                let _ = pages.advise(memmap2::Advice::HugePage);
                pages
            }
        };
        let start = NonNull::new(pages.as_mut_ptr().cast::<T>())?;
        Some((Self { start, len, pages: Some(pages) }, clean))
    }

    /// A copy of `values`.
    pub fn from_slice(values: &[T]) -> Self {
        let len = values.len();
        if len == 0 {
            return Self::zeroed(0);
        }
        let layout = Self::layout(len);
        if let Some((mut buffer, _)) = Self::of_pages(layout, len) {
            buffer.copy_from_slice(values);
            return buffer;
        }
        // Zeros would be written only to be overwritten.
        #[expect(unsafe_code, reason = "aligned allocation; the layout is not empty, and as long as `values`")]
        unsafe {
            let Some(start) = NonNull::new(alloc(layout).cast::<T>()) else { handle_alloc_error(layout) };
            start.copy_from_nonoverlapping(NonNull::from(values).cast(), len);
            Self { start, len, pages: None }
        }
    }

    fn layout(len: usize) -> Layout {
        Layout::array::<T>(len).and_then(|layout| layout.align_to(LINE)).expect("a buffer fits the address space")
    }
}

/// The smallest pages that are kept and have room for `size` bytes, unless they are much larger.
fn take_pages(size: usize) -> Option<MmapMut> {
    let mut kept = PAGES.lock().unwrap_or_else(PoisonError::into_inner);
    let fits = |pages: &MmapMut| (size..=size + size / 2).contains(&pages.len());
    let (at, _) = kept.iter().enumerate().filter(|(_, pages)| fits(pages)).min_by_key(|(_, pages)| pages.len())?;
    Some(kept.remove(at))
}

/// Keeps pages for another buffer, and gives the oldest back to the system where they are too many.
fn keep_pages(pages: Option<MmapMut>) {
    let mut kept = PAGES.lock().unwrap_or_else(PoisonError::into_inner);
    kept.extend(pages);
    let most = if MORE_PAGES.load(Ordering::Relaxed) > 0 { MORE } else { KEPT };
    let mut held: usize = kept.iter().map(|pages| pages.len()).sum();
    while held > most {
        held -= kept.remove(0).len();
    }
}

/// As long as it lives more pages are kept: for training, where one pass gives up all its values and the next wants as many at once.
#[derive(Debug)]
pub(crate) struct MorePages(());

impl MorePages {
    pub(crate) fn keep() -> Self {
        MORE_PAGES.fetch_add(1, Ordering::Relaxed);
        Self(())
    }
}

impl Drop for MorePages {
    fn drop(&mut self) {
        MORE_PAGES.fetch_sub(1, Ordering::Relaxed);
        keep_pages(None);
    }
}

impl<T: Plain> Drop for Buffer<T> {
    fn drop(&mut self) {
        if let Some(pages) = self.pages.take() {
            keep_pages(Some(pages));
        } else if self.len > 0 {
            #[expect(unsafe_code, reason = "allocated with this very layout")]
            unsafe {
                dealloc(self.start.as_ptr().cast(), Self::layout(self.len));
            }
        }
    }
}

impl<T: Plain> Deref for Buffer<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        #[expect(unsafe_code, reason = "`start` owns `len` initialised values")]
        unsafe {
            std::slice::from_raw_parts(self.start.as_ptr(), self.len)
        }
    }
}

impl<T: Plain> DerefMut for Buffer<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        #[expect(unsafe_code, reason = "`start` owns `len` initialised values, borrowed mutably")]
        unsafe {
            std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len)
        }
    }
}

impl<T: Plain> Clone for Buffer<T> {
    fn clone(&self) -> Self {
        Self::from_slice(self)
    }
}

impl<'a, T: Plain> IntoIterator for &'a Buffer<T> {
    type Item = &'a T;
    type IntoIter = std::slice::Iter<'a, T>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl<T: Plain + PartialEq> PartialEq for Buffer<T> {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl<T: Plain> std::fmt::Debug for Buffer<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Buffer({} values)", self.len)
    }
}

#[expect(unsafe_code, reason = "a buffer owns plain values, as a `Vec` does")]
unsafe impl<T: Plain> Send for Buffer<T> {}
#[expect(unsafe_code, reason = "shared access is read-only")]
unsafe impl<T: Plain> Sync for Buffer<T> {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_zeroed_aligned_and_copied() {
        for len in [0, 1, 15, 16, 1000, LARGE / 4 + 1] {
            let mut buffer = Buffer::<f32>::zeroed(len);
            assert!(buffer.iter().all(|&v| v == 0.0));
            assert!(len == 0 || (buffer.as_ptr() as usize).is_multiple_of(64));
            buffer.iter_mut().for_each(|v| *v = 1.5);
            assert_eq!(buffer.clone().iter().sum::<f32>(), 1.5 * len as f32);
            assert!(len == 0 || (buffer.clone().as_ptr() as usize).is_multiple_of(64));
        }
    }

    #[test]
    fn pages_are_used_again_and_clean() {
        let size = 3 * LARGE;
        for _ in 0..3 {
            let mut buffer = Buffer::<u8>::zeroed(size);
            assert!(buffer.iter().all(|&v| v == 0));
            buffer.fill(7);
            drop(buffer);
            let (pages, clean) = Buffer::<u8>::of_pages(Buffer::<u8>::layout(size - 1000), size - 1000).unwrap();
            // Another test may have taken them.
            assert!(clean || pages.len() == size - 1000);
        }
        drop((0..100).map(|_| Buffer::<u8>::any(size)).collect::<Vec<_>>());
        let held: usize = PAGES.lock().unwrap().iter().map(|pages| pages.len()).sum();
        assert!(held <= KEPT, "{held} bytes");
    }
}
